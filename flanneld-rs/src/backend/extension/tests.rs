use super::command::{run, run_for, wants_shell};
use super::*;
use crate::lease::LeaseAttrs;
use crate::peers::Peers;

fn peer(third: u8, data: &str) -> Arc<Lease> {
    Arc::new(Lease {
        subnet: Subnet {
            v4: format!("10.3.{third}.0/24").parse().ok(),
            v6: None,
        },
        attrs: LeaseAttrs {
            public_ip: Some([192, 168, 66, third].into()),
            backend_type: NAME.to_owned(),
            backend_data: Some(BackendData::new(&data)),
            ..LeaseAttrs::default()
        },
    })
}

fn desired(peers: &[Arc<Lease>]) -> Desired {
    let own = Lease::clone(&peer(1, ""));
    let uplink = Uplink {
        index: 1,
        name: "eth0".to_owned(),
        mtu: 1500,
        address_v4: None,
        address_v6: None,
        public_v4: None,
        public_v6: None,
    };
    Desired {
        uplink,
        own,
        peers: peers.iter().cloned().collect::<Peers>(),
    }
}

/// Each command is a script that appends its name, environment and input to a file.
fn scripted(dir: &std::path::Path) -> (Extension, impl Fn() -> Vec<String>) {
    use std::os::unix::fs::PermissionsExt;
    let (script, log) = (dir.join("script"), dir.join("log"));
    let text = format!(
        "#!/bin/sh\nread input\necho \"$* $SUBNET $PUBLIC_IP $input\" >> {}\necho out; echo err >&2\n",
        log.display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let command = |what: &str| format!("{} {what}", script.display());
    let commands = backend::Extension {
        pre_startup: command("pre"),
        post_startup: command("post $NETWORK"),
        subnet_add: command("add ${SUBNET}"),
        subnet_remove: command("remove"),
    };
    let config =
        NetworkConfig::parse(r#"{"Network":"10.3.0.0/16","Backend":{"Type":"extension"}}"#)
            .unwrap();
    let read = move || {
        let lines = std::fs::read_to_string(&log)
            .unwrap_or_default()
            .lines()
            .map(|l| l.trim().to_owned())
            .collect();
        let _ = std::fs::remove_file(&log);
        lines
    };
    (Extension::new(&config, commands), read)
}

#[test]
fn each_command_runs_once_per_change_with_its_environment_and_input() {
    let dir = tempfile::tempdir().unwrap();
    let (mut extension, log) = scripted(dir.path());
    let (two, three) = (peer(2, "hello"), peer(3, "x"));

    let desired_two = desired(&[Arc::clone(&two)]);
    let announced = extension.prepare(&desired_two.uplink, None).unwrap();
    assert_eq!(announced.data.unwrap().as_str(), "\"out\\nerr\"");
    assert_eq!(log(), ["pre"]);

    let report = extension.reconcile(&desired_two);
    assert_eq!((report.total(), report.errors.len()), (2, 0), "{report:?}");
    assert_eq!(
        log(),
        [
            "post 10.3.0.0/16 10.3.1.0/24 192.168.66.1",
            "add 10.3.2.0/24 10.3.2.0/24 192.168.66.2 hello"
        ]
    );
    assert_eq!(extension.reconcile(&desired_two), Report::default());
    assert_eq!(log(), Vec::<String>::new());

    let both = desired(&[Arc::clone(&two), Arc::clone(&three)]);
    extension.update(&both, &[PeerChange::Added(three)]);
    assert_eq!(log(), ["add 10.3.3.0/24 10.3.3.0/24 192.168.66.3 x"]);
    assert_eq!(extension.plan(&desired(&[])).unwrap().len(), 2);
    extension.reconcile(&desired(&[]));
    assert_eq!(
        log(),
        [
            "remove 10.3.2.0/24 192.168.66.2 hello",
            "remove 10.3.3.0/24 192.168.66.3 x"
        ]
    );
}

#[test]
fn a_failing_command_stays_reported_with_its_output_and_is_repeated_after_a_pause() {
    let config = NetworkConfig::parse(r#"{"Network":"10.3.0.0/16"}"#).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let wanted = dir.path().join("wanted");
    let commands = backend::Extension {
        subnet_add: format!("ls {}", wanted.display()),
        ..backend::Extension::default()
    };
    let mut extension = Extension::new(&config, commands);
    let desired = desired(&[peer(2, "")]);
    let report = extension.reconcile(&desired);
    assert_eq!(report.errors.len(), 1);
    assert!(
        report.errors[0].contains("10.3.2.0/24") && report.errors[0].contains("No such file"),
        "{report:?}"
    );
    // At once: not run again, and not forgotten.
    std::fs::write(&wanted, "").unwrap();
    assert_eq!(extension.reconcile(&desired), report);
    std::thread::sleep(Duration::from_millis(1100));
    let report = extension.reconcile(&desired);
    assert_eq!((report.total(), report.errors.len()), (1, 0), "{report:?}");
    assert_eq!(extension.reconcile(&desired), Report::default());
}

#[test]
fn a_plan_names_the_pre_startup_command_first() {
    let dir = tempfile::tempdir().unwrap();
    let (mut extension, _) = scripted(dir.path());
    let plan = extension.plan(&desired(&[])).unwrap();
    assert!(plan.len() == 2 && plan[0].ends_with(" pre"), "{plan:?}");
}

#[test]
fn neither_a_background_child_nor_a_hanging_command_holds_us() {
    let started = Instant::now();
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("script");
    std::fs::write(&script, "#!/bin/sh\nsleep 20 &\necho done\n").unwrap();
    let text = format!("sh {}", script.display());
    assert_eq!(run(&text, &[], "").unwrap(), "done");
    let error = run_for("sleep 20", &[], "", Duration::from_millis(300)).unwrap_err();
    assert!(format!("{error:#}").contains("killed"), "{error:#}");
    // Much more than a pipe holds, for a command that does not read it.
    assert_eq!(run("echo done", &[], &"x".repeat(1 << 20)).unwrap(), "done");
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn long_output_is_read_to_its_end() {
    let output = run("seq 1 100000", &[], "").unwrap();
    assert!(output.ends_with("\n100000") && output.lines().count() == 100_000);
}

#[test]
fn variables_expand_and_no_shell_is_involved() {
    let env = [("A", "one".to_owned())];
    assert_eq!(
        run("echo $A-${A} $NOT_SET_HERE $ | ; \"q\"", &env, "").unwrap(),
        "one-one $ | ; \"q\""
    );
    assert!(
        run("$NOT_SET_HERE", &[], "")
            .unwrap_err()
            .to_string()
            .contains("nothing is left")
    );
    assert!(
        format!("{:#}", run("/no/such/program", &[], "").unwrap_err()).contains("/no/such/program")
    );
    assert!(wants_shell("a | b") && !wants_shell("ip route add $SUBNET via ${PUBLIC_IP}"));
}
