//! The agent ends and comes back; things are killed.

use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use node::runtime::process::Process;
use node::runtime::{ContainerState, Event, Runtime as _};

use crate::bed::{Bed, may_run, wait};
use crate::leaks;

/// The stages of a bed's root.
pub fn stage(bed: &Bed, name: &str) -> Vec<i32> {
    let root = bed.path().display().to_string();
    let ids = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    ids.filter(|id: &i32| {
        let line = fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
        line.contains(&root) && line.contains(&format!("\0{name}\0"))
    })
    .collect()
}

#[test]
fn an_agent_that_comes_back_takes_over() {
    if !may_run() {
        return;
    }
    // An agent's end is that of its tokio runtime: nothing of it goes on.
    let tokio = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let first = tokio();
    let (mut bed, sandbox, lives, ends, fails) = first.block_on(async {
        let bed = Bed::new().await;
        let sandbox = bed.sandbox(|_| {}).await;
        let lives = bed
            .start(
                &sandbox,
                "trap 'echo bye; exit 8' TERM; echo up; while :; do sleep 0.05; done",
                |_| {},
            )
            .await
            .unwrap();
        let ends = bed
            .start(&sandbox, "sleep 0.3; exit 6", |_| {})
            .await
            .unwrap();
        let fails = bed.start(&sandbox, "exit 1", |_| {}).await.unwrap();
        bed.end_of(&fails).await;
        (bed, sandbox, lives, ends, fails)
    });
    drop(bed.runtime.take());
    drop(first);
    std::thread::sleep(Duration::from_millis(500));
    tokio().block_on(async {
        bed.restart().await;
        let runtime = bed.runtime();
        let sandboxes = runtime.sandboxes().await.unwrap();
        assert_eq!(
            (
                sandboxes.len(),
                sandboxes[0].ready,
                sandboxes[0].id.as_str()
            ),
            (1, true, sandbox.as_str())
        );
        let code = async |id: &str| runtime.container(id).await.unwrap().exit_code;
        assert_eq!((code(&ends).await, code(&fails).await), (Some(6), Some(1)));
        assert_eq!(
            runtime.container(&lives).await.unwrap().state,
            ContainerState::Running
        );
        let output = runtime
            .exec_sync(&lives, &["echo".into(), "x".into()], Duration::from_secs(5))
            .await
            .unwrap();
        assert_eq!(output.text, "x\n");
        runtime
            .stop_container(&lives, Duration::from_secs(5))
            .await
            .unwrap();
        let status = runtime.container(&lives).await.unwrap();
        assert_eq!(status.exit_code, Some(8));
        assert!(crate::bed::text(&status.log).ends_with("F bye\n"));
        let (code, _) = bed.run(&sandbox, "exit 2").await;
        assert_eq!(code, 2);
        bed.end().await;
    });
}

#[tokio::test]
async fn a_pause_process_that_is_killed_is_told() {
    if !may_run() {
        return;
    }
    let mut bed = Bed::new().await;
    let sandbox = bed.sandbox(|_| {}).await;
    let id = bed.start(&sandbox, "sleep 1000", |_| {}).await.unwrap();
    let pauses = stage(&bed, "pause");
    assert_eq!(pauses.len(), 1);
    kill(Pid::from_raw(pauses[0]), Signal::SIGKILL).unwrap();
    wait(async || matches!(bed.events.recv().await, Some(Event::Sandbox(_))).then_some(())).await;
    assert!(!bed.runtime().sandboxes().await.unwrap()[0].ready);
    // The container goes on until it is stopped; nothing new starts beside it.
    assert_eq!(
        bed.runtime().container(&id).await.unwrap().state,
        ContainerState::Running
    );
    assert!(bed.start(&sandbox, "true", |_| {}).await.is_err());
    bed.runtime().stop_sandbox(&sandbox).await.unwrap();
    assert_eq!(bed.end_of(&id).await.exit_code, Some(137));
    bed.end().await;
}

#[tokio::test]
async fn a_shim_that_is_killed_takes_its_container_with_it() {
    if !may_run() {
        return;
    }
    let mut bed = Bed::new().await;
    let sandbox = bed.sandbox(|_| {}).await;
    let id = bed
        .start(&sandbox, "sleep 4321 & sleep 4321", |_| {})
        .await
        .unwrap();
    assert!(matches!(bed.events.recv().await, Some(Event::Container(_))));
    kill(Pid::from_raw(stage(&bed, "shim")[0]), Signal::SIGKILL).unwrap();
    assert!(matches!(bed.events.recv().await, Some(Event::Container(_))));
    let status = bed.runtime().container(&id).await.unwrap();
    assert_eq!(
        (status.state, status.exit_code),
        (ContainerState::Unknown, Some(137))
    );
    wait(async || {
        leaks::of(bed.path(), &bed.config().cgroup)
            .iter()
            .all(|line| !line.contains("4321"))
            .then_some(())
    })
    .await;
    bed.end().await;
}

#[test]
fn everything_of_a_dead_agent_is_destroyed() {
    if !may_run() {
        return;
    }
    let tokio = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let first = tokio();
    let mut bed = first.block_on(async {
        let bed = Bed::new().await;
        for shared in [false, true] {
            let sandbox = bed.sandbox(|config| config.share_processes = shared).await;
            bed.start(&sandbox, "sleep 1000 & sleep 1000", |_| {})
                .await
                .unwrap();
            bed.start(&sandbox, "sleep 1000", |config| {
                config.name = "other".into()
            })
            .await
            .unwrap();
        }
        bed
    });
    drop(bed.runtime.take());
    drop(first);
    let config = bed.config();
    assert!(leaks::of(bed.path(), &config.cgroup).len() > 8);
    // Records that a crash has cut, and a pause process that no record knows.
    let sandboxes = bed.path().join("runtime/sandboxes");
    let one = fs::read_dir(&sandboxes)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    fs::remove_file(one.join("config.json")).unwrap();
    tokio().block_on(async {
        Process::destroy_all(config.clone()).await.unwrap();
        Process::destroy_all(config.clone()).await.unwrap();
    });
    let left = tokio().block_on(wait(async || {
        let left = leaks::of(bed.path(), &config.cgroup);
        left.is_empty().then_some(left)
    }));
    assert!(left.is_empty());
    assert!(!bed.path().join("runtime").exists());
}

/// Not a test: what the one below runs in a process of its own, and kills.
#[tokio::test]
async fn agent_that_makes_and_removes() {
    let Some(folder) = std::env::var_os("WEFT_TEST_AGENT") else {
        return;
    };
    let bed = Bed::at(folder.as_ref()).await;
    loop {
        let sandbox = bed
            .sandbox(|config| config.share_processes = fastrand::bool())
            .await;
        let id = bed
            .start(&sandbox, "sleep 1000 & sleep 1000", |_| {})
            .await
            .unwrap();
        bed.start(&sandbox, "exit 3", |config| config.name = "short".into())
            .await
            .unwrap();
        let command = ["sleep".into(), "1000".into()];
        let late = bed
            .runtime()
            .exec_sync(&id, &command, Duration::from_millis(20))
            .await;
        assert!(late.is_err());
        if fastrand::bool() {
            bed.runtime().remove_sandbox(&sandbox).await.unwrap();
        }
    }
}

#[tokio::test]
async fn an_agent_killed_at_any_moment_leaves_nothing_that_the_next_does_not_find() {
    if !may_run() {
        return;
    }
    for round in 0..10 {
        let mut bed = Bed::new().await;
        drop(bed.runtime.take());
        let mut agent = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "restart::agent_that_makes_and_removes"])
            .env("WEFT_TEST_AGENT", bed.path())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        tokio::time::sleep(Duration::from_millis(fastrand::u64(30..800))).await;
        agent.kill().unwrap();
        let status = agent.wait().unwrap();
        assert!(
            !status.success() && status.code().is_none(),
            "the agent ended by itself: {status}"
        );
        bed.restart().await;
        let runtime = bed.runtime();
        for sandbox in runtime.sandboxes().await.unwrap() {
            assert!(
                sandbox.ready,
                "round {round}: only sandboxes that are ready are taken over"
            );
        }
        for container in runtime.containers().await.unwrap() {
            if container.state == ContainerState::Running {
                let command = ["true".into()];
                let result = runtime
                    .exec_sync(&container.id, &command, Duration::from_secs(5))
                    .await;
                if result.is_err() {
                    // It may have been about to end, by itself or by the agent's last deed.
                    bed.end_of(&container.id).await;
                }
            }
        }
        bed.end().await;
    }
}
