//! Who a container runs as, what it may, what it shares, and what it is limited to.

use std::fs;
use std::time::Duration;

use node::runtime::{Limits, Runtime as _};

use crate::bed::{Bed, may_run, text};
use crate::leaks;

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
