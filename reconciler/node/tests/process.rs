//! The process runtime on real namespaces. Each test has a root of its own and looks at its end that nothing is left.

#[path = "process/bed.rs"]
mod bed;
#[path = "process/images.rs"]
mod images;
#[path = "process/leaks.rs"]
mod leaks;
#[path = "process/net.rs"]
mod net;
#[path = "process/restart.rs"]
mod restart;
#[path = "process/talk.rs"]
mod talk;

use std::fs;
use std::time::{Duration, Instant};

use bed::{Bed, may_run, shell, text};
use node::runtime::{ContainerState, Error, Event, Limits, Mount, Runtime as _};

#[tokio::test]
async fn a_container_prints_and_ends() {
    if !may_run() {
        return;
    }
    let mut bed = Bed::new().await;
    let sandbox = bed.sandbox(|_| {}).await;
    let id = bed
        .start(
            &sandbox,
            "echo out; echo err >&2; echo $0 $HOSTNAME $HOME; id -u; exit 3",
            |_| {},
        )
        .await
        .unwrap();
    let status = bed.end_of(&id).await;
    assert_eq!(
        (status.state, status.exit_code, status.reason.as_str()),
        (ContainerState::Exited, Some(3), "Error")
    );
    assert!(status.started.unwrap() <= status.finished.unwrap());
    let mut lines: Vec<_> = text(&status.log).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(
        lines,
        [
            "stderr F err",
            "stdout F /bin/sh pod /root",
            "stdout F 0",
            "stdout F out"
        ]
    );
    assert!(matches!(bed.events.recv().await, Some(Event::Container(_))));
    bed.end().await;
}

#[tokio::test]
async fn exit_codes_and_signals_are_told() {
    if !may_run() {
        return;
    }
    let bed = Bed::new().await;
    let sandbox = bed.sandbox(|_| {}).await;
    for (script, code, signal, reason) in [
        ("exit 0", 0, 0, "Completed"),
        ("exit 255", 255, 0, "Error"),
        ("sh -c 'kill -9 $$'", 137, 0, "Error"),
    ] {
        let id = bed.start(&sandbox, script, |_| {}).await.unwrap();
        let status = bed.end_of(&id).await;
        assert_eq!(
            (status.exit_code, status.signal, status.reason.as_str()),
            (Some(code), signal, reason),
            "{script}"
        );
    }
    let id = bed
        .start(
            &sandbox,
            "trap 'exit 7' TERM; echo up; while :; do sleep 0.1; done",
            |_| {},
        )
        .await
        .unwrap();
    let log = bed.runtime().container(&id).await.unwrap().log;
    bed::wait(async || text(&log).contains("up").then_some(())).await;
    bed.runtime()
        .stop_container(&id, Duration::from_secs(5))
        .await
        .unwrap();
    assert_eq!(bed.end_of(&id).await.exit_code, Some(7));
    let id = bed.start(&sandbox, "sleep 1000", |_| {}).await.unwrap();
    let before = Instant::now();
    bed.runtime()
        .stop_container(&id, Duration::from_millis(300))
        .await
        .unwrap();
    assert!(
        before.elapsed() > Duration::from_millis(300) && before.elapsed() < Duration::from_secs(3)
    );
    let status = bed.end_of(&id).await;
    assert_eq!((status.exit_code, status.signal), (Some(137), 9));
    bed.end().await;
}

#[tokio::test]
async fn a_program_that_is_not_there_is_told_as_kubernetes_does() {
    if !may_run() {
        return;
    }
    let bed = Bed::new().await;
    let sandbox = bed.sandbox(|_| {}).await;
    for (program, message) in [
        (
            "no-such-program",
            "exec: \"no-such-program\": executable file not found in $PATH",
        ),
        (
            "/no/such",
            "exec: \"/no/such\": stat /no/such: no such file or directory",
        ),
        ("/etc/passwd", "exec: \"/etc/passwd\": permission denied"),
    ] {
        let config = node::runtime::ContainerConfig {
            command: vec![program.into()],
            ..shell("")
        };
        let id = bed
            .runtime()
            .create_container(&sandbox, &config)
            .await
            .unwrap();
        assert_eq!(
            bed.runtime().start_container(&id).await,
            Err(Error::Invalid(message.into()))
        );
        let status = bed.runtime().container(&id).await.unwrap();
        assert_eq!(
            (
                status.state,
                status.exit_code,
                status.reason.as_str(),
                status.message.as_str()
            ),
            (ContainerState::Exited, Some(128), "StartError", message)
        );
    }
    bed.end().await;
}

#[tokio::test]
async fn the_nodes_files_are_seen_and_not_written() {
    if !may_run() {
        return;
    }
    let bed = Bed::new().await;
    let sandbox = bed.sandbox(|_| {}).await;
    let root = bed.path().join("runtime");
    let script = format!(
        "test -x /bin/sh && touch /x 2>/dev/null && echo wrote; touch /etc/x 2>/dev/null && echo wrote; \
         touch /tmp/a /run/b /dev/shm/c && echo private; ls /tmp; cat /etc/hosts /etc/resolv.conf /etc/hostname; \
         ls {} 2>/dev/null; echo 1 2>/dev/null > /proc/sys/kernel/panic && echo wrote; ls /proc | grep -c '^[0-9]*$'; \
         mknod /tmp/d b 8 0 2>/dev/null && echo made; echo > /dev/null; ls /sys/class/net; \
         mount -t tmpfs x /tmp 2>/dev/null && echo mounted; ls -d /dev/pts /dev/mqueue",
        root.display()
    );
    let (code, output) = bed.run(&sandbox, &script).await;
    let lines: Vec<_> = output
        .lines()
        .map(|line| line.rsplit(" F ").next().unwrap())
        .collect();
    let expected = [
        "private",
        "a",
        "127.0.0.1\tlocalhost",
        "nameserver 10.96.0.10",
        "pod",
        "3",
        "lo",
        "/dev/mqueue",
        "/dev/pts",
    ];
    // sh, ls and grep are processes in it.
    assert_eq!((code, lines), (0, expected.to_vec()));
    bed.end().await;
}

#[tokio::test]
async fn volumes_are_mounted_where_nothing_was() {
    if !may_run() {
        return;
    }
    let bed = Bed::new().await;
    let sandbox = bed.sandbox(|_| {}).await;
    let (data, config) = (bed.path().join("data"), bed.path().join("config"));
    fs::create_dir(&data).unwrap();
    fs::create_dir(&config).unwrap();
    fs::write(config.join("key"), "value\n").unwrap();
    let mount = |source: &std::path::Path, target: &str, read_only| Mount {
        source: source.into(),
        target: target.into(),
        read_only,
        propagation: "None".into(),
    };
    let script = "cat /etc/config/key /etc/one; echo new > /no-such/data/file; echo x > /etc/config/key; \
                  cat /var/run/secrets/token/key; echo last words > /dev/termination-log; exit 1";
    let id = bed
        .start(&sandbox, script, |container| {
            container.mounts = vec![
                mount(&data, "/no-such/data", false),
                mount(&config, "/etc/config", true),
                mount(&config.join("key"), "/etc/one", true),
                mount(&config, "/var/run/secrets/token", true),
            ];
        })
        .await
        .unwrap();
    let status = bed.end_of(&id).await;
    let output = text(&status.log);
    assert_eq!(output.matches("stdout F value").count(), 3, "{output}");
    assert!(output.contains("Read-only file system"), "{output}");
    assert_eq!(status.message, "last words\n");
    assert_eq!(fs::read_to_string(data.join("file")).unwrap(), "new\n");
    bed.end().await;
}

#[tokio::test]
async fn neighbours_share_network_names_and_memory_but_not_processes() {
    if !may_run() {
        return;
    }
    let bed = Bed::new().await;
    let sandbox = bed.sandbox(|_| {}).await;
    let server = bed
        .start(
            &sandbox,
            "echo shared > /dev/shm/file; exec busybox nc -l -p 8080 -e echo hello",
            |_| {},
        )
        .await
        .unwrap();
    let script = "until busybox nc 127.0.0.1 8080; do sleep 0.05; done; cat /dev/shm/file; hostname; ls /proc | grep -c '^[0-9]*$'";
    let (code, output) = bed.run(&sandbox, script).await;
    let lines: Vec<_> = output
        .lines()
        .filter(|line| line.starts_with("stdout"))
        .collect();
    assert_eq!(
        (code, lines),
        (
            0,
            vec![
                "stdout F hello",
                "stdout F shared",
                "stdout F pod",
                "stdout F 3"
            ]
        )
    );
    assert_eq!(bed.end_of(&server).await.exit_code, Some(0));
    bed.end().await;
}

#[tokio::test]
async fn processes_are_shared_if_the_pod_says_so() {
    if !may_run() {
        return;
    }
    let bed = Bed::new().await;
    let sandbox = bed.sandbox(|config| config.share_processes = true).await;
    let other = bed
        .start(&sandbox, "sleep 1234 & sleep 1234", |_| {})
        .await
        .unwrap();
    let script = "for i in /proc/[0-9]*; do tr '\\0' ' ' < $i/cmdline; echo; done; kill -0 1 && echo pause is 1";
    let (_, output) = bed.run(&sandbox, script).await;
    assert_eq!(output.matches("F sleep 1234 \n").count(), 2, "{output}");
    assert!(
        output.contains(" pause ") && output.contains("pause is 1"),
        "{output}"
    );
    // Both of its processes end with it, though they have the PID namespace of all.
    bed.runtime()
        .stop_container(&other, Duration::ZERO)
        .await
        .unwrap();
    let (_, output) = bed
        .run(
            &sandbox,
            "for i in /proc/[0-9]*; do tr '\\0' ' ' < $i/cmdline; echo; done",
        )
        .await;
    assert!(!output.contains("sleep 1234"), "{output}");
    bed.end().await;
}

#[tokio::test]
async fn want_of_memory_is_told() {
    if !may_run() {
        return;
    }
    let bed = Bed::new().await;
    let sandbox = bed.sandbox(|_| {}).await;
    let script = "x=$(dd if=/dev/zero bs=1M count=100 2>/dev/null | tr '\\0' x); echo $x | wc -c";
    let id = bed
        .start(&sandbox, script, |config| {
            config.limits = Limits {
                memory: 20 << 20,
                cpu: 900,
                cpu_request: 100,
            };
            config.message_from_log = true;
        })
        .await
        .unwrap();
    let status = bed.end_of(&id).await;
    assert_eq!(
        (status.reason.as_str(), status.exit_code),
        ("OOMKilled", Some(137))
    );
    bed.end().await;
}

#[tokio::test]
async fn users_and_capabilities_are_as_asked_for() {
    if !may_run() {
        return;
    }
    let bed = Bed::new().await;
    let sandbox = bed.sandbox(|_| {}).await;
    let id = bed
        .start(&sandbox, "id -u; id -g; id -G; grep -E 'CapEff|NoNewPrivs' /proc/self/status; echo x > /dev/stderr", |config| {
            config.security.user = Some(1234);
            config.security.group = Some(99);
            config.security.groups = vec![2000];
            config.security.no_new_privileges = true;
        })
        .await
        .unwrap();
    let output = text(&bed.end_of(&id).await.log);
    for line in [
        "F 1234",
        "F 99",
        "F 99 2000",
        "F CapEff:\t0000000000000000",
        "F NoNewPrivs:\t1",
        "stderr F x",
    ] {
        assert!(output.contains(line), "{line} in {output}");
    }
    let id = bed
        .start(&sandbox, "grep CapEff /proc/self/status", |config| {
            config.security.drop_capabilities = vec!["ALL".into()];
            config.security.add_capabilities = vec!["NET_ADMIN".into()];
        })
        .await
        .unwrap();
    assert_eq!(
        text(&bed.end_of(&id).await.log),
        "stdout F CapEff:\t0000000000001000\n"
    );
    bed.end().await;
}

#[tokio::test]
async fn logs_are_rotated_and_go_with_their_container() {
    if !may_run() {
        return;
    }
    let bed = Bed::new().await;
    let sandbox = bed.sandbox(|_| {}).await;
    let id = bed.start(&sandbox, "seq 1 3000", |_| {}).await.unwrap();
    let status = bed.end_of(&id).await;
    assert!(text(&status.log).ends_with("stdout F 3000\n"));
    let rotated = status.log.with_extension("log.1");
    assert!(rotated.exists() && fs::metadata(&rotated).unwrap().len() <= 20_000);
    bed.runtime().remove_container(&id).await.unwrap();
    assert!(!rotated.exists() && !status.log.exists());
    assert!(
        fs::read_dir(bed.path().join("logs"))
            .unwrap()
            .next()
            .is_none()
    );
    bed.end().await;
}

#[tokio::test]
async fn what_is_not_there_is_no_error_to_stop() {
    if !may_run() {
        return;
    }
    let bed = Bed::new().await;
    let runtime = bed.runtime();
    runtime.stop_sandbox("none").await.unwrap();
    runtime.remove_sandbox("none").await.unwrap();
    runtime
        .stop_container("none", Duration::ZERO)
        .await
        .unwrap();
    runtime.remove_container("none").await.unwrap();
    assert!(matches!(
        runtime.container("none").await,
        Err(Error::NotFound(_))
    ));
    assert!(matches!(
        runtime.create_container("none", &shell("")).await,
        Err(Error::NotFound(_))
    ));
    bed.end().await;
}

#[tokio::test]
async fn a_privileged_container_has_the_machine() {
    if !may_run() {
        return;
    }
    let bed = Bed::new().await;
    let sandbox = bed.sandbox(|_| {}).await;
    let script = "mount -t tmpfs x /tmp && echo mounted; echo 1 > /proc/sys/net/ipv4/ip_forward && echo set; ls /dev/kmsg";
    let id = bed
        .start(&sandbox, script, |config| config.security.privileged = true)
        .await
        .unwrap();
    let output = text(&bed.end_of(&id).await.log);
    assert_eq!(
        output,
        "stdout F mounted\nstdout F set\nstdout F /dev/kmsg\n"
    );
    bed.end().await;
}

#[tokio::test]
async fn the_nodes_processes_and_memory_are_shared_if_the_pod_says_so() {
    if !may_run() {
        return;
    }
    let bed = Bed::new().await;
    let sandbox = bed
        .sandbox(|config| {
            config.host_pid = true;
            config.host_ipc = true;
        })
        .await;
    let own = std::process::id();
    let name = format!("/dev/shm/weft-test-{own}-{:x}", fastrand::u32(..));
    fs::write(&name, "shared\n").unwrap();
    // What it leaves behind writes for ever, and ends with it.
    let script = format!(
        "cat {name}; test -d /proc/{own} && echo seen; yes > /dev/null & (yes weft-test-{own} & exit 0); exit 0"
    );
    let id = bed.start(&sandbox, &script, |_| {}).await.unwrap();
    let status = bed.end_of(&id).await;
    fs::remove_file(&name).unwrap();
    assert_eq!(status.exit_code, Some(0));
    let output = text(&status.log);
    assert!(
        output.contains("shared") || status.log.with_extension("log.1").exists(),
        "{output}"
    );
    assert!(
        leaks::of(bed.path(), &bed.config().cgroup)
            .iter()
            .all(|line| !line.contains(": yes")),
        "it has left processes"
    );
    bed.end().await;
}
