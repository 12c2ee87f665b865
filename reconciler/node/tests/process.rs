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
#[path = "process/rights.rs"]
mod rights;
#[path = "process/talk.rs"]
mod talk;

use std::fs;
use std::time::{Duration, Instant};

use bed::{Bed, may_run, shell, text};
use node::runtime::{ContainerState, Error, Event, Mount, Runtime as _};

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
        before.elapsed() > Duration::from_millis(300) && before.elapsed() < Duration::from_secs(60)
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
    let script = "until busybox nc 127.0.0.1 8080; do sleep 0.05; done; cat /dev/shm/file; hostname; set -- /proc/[0-9]*; echo $#";
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
                "stdout F 1"
            ]
        )
    );
    assert_eq!(bed.end_of(&server).await.exit_code, Some(0));
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
