//! Sandboxes on a network that CNI makes, by the reference plugins, in a network namespace of the test's own.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use node::cni;
use node::runtime::{Error, Runtime as _, SandboxConfig};

use crate::bed::{Bed, may_run, wait};
use crate::restart::stage;

const PLUGINS: &str = "/usr/lib/cni";

/// Runs a test on a thread that is in a namespace of its own; what it starts is there too.
fn in_own_network<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    if !may_run() {
        return;
    }
    assert!(
        Path::new(PLUGINS).join("ptp").exists(),
        "apt-get install containernetworking-plugins"
    );
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let tokio = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        tokio.block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn conflist(folder: &Path, plugin: &str) {
    fs::create_dir_all(folder.join("net.d")).unwrap();
    let text = format!(
        r#"{{"cniVersion":"1.0.0","name":"net","plugins":[{{"type":"ptp","ipam":{{"type":"host-local",
        "subnet":"10.77.0.0/24","dataDir":"{}"}}}}{plugin}]}}"#,
        folder.join("ipam").display()
    );
    fs::write(folder.join("net.d/10-net.conflist"), text).unwrap();
}

async fn bed() -> Bed {
    let bed = Bed::with(|config| {
        let folder: PathBuf = config.root.parent().unwrap().into();
        config.cni = Some(cni::Config {
            conf_dir: folder.join("net.d"),
            bin_dirs: vec![PLUGINS.into()],
            cache_dir: folder.join("cni"),
            timeout: Duration::from_secs(20),
        });
    })
    .await;
    conflist(bed.path(), "");
    bed
}

/// Addresses that the plugin has given out.
fn leases(bed: &Bed) -> usize {
    let entries = fs::read_dir(bed.path().join("ipam/net"))
        .into_iter()
        .flatten()
        .flatten();
    entries
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .parse::<IpAddr>()
                .is_ok()
        })
        .count()
}

/// Devices besides lo in the test's namespace.
fn devices() -> usize {
    kernel::Netlink::open().unwrap().links().unwrap().len() - 1
}

#[test]
fn pods_have_addresses_and_lose_them() {
    in_own_network(async || {
        let bed = bed().await;
        let first = bed.sandbox(|_| {}).await;
        let second = bed
            .sandbox(|config| config.hostname = "second".into())
            .await;
        let all = bed.runtime().sandboxes().await.unwrap();
        let ip = |id: &str| all.iter().find(|one| one.id == id).unwrap().ips[0];
        assert_ne!(ip(&first), ip(&second));
        assert_eq!((leases(&bed), devices()), (2, 2));
        let (_, output) = bed.run(&second, "cat /etc/hosts").await;
        assert!(
            output.contains(&format!("{}\tsecond", ip(&second))),
            "{output}"
        );
        let script = format!("exec busybox nc -ll -p 80 -e echo hello {}", ip(&first));
        bed.start(&first, &script, |_| {}).await.unwrap();
        let (_, output) = bed
            .run(
                &second,
                &format!("until busybox nc {} 80; do sleep 0.05; done", ip(&first)),
            )
            .await;
        assert!(output.contains("hello"), "{output}");
        assert!(bed.runtime().check_networks().await.is_empty());
        // A pause process that dies takes nothing with it that is not given back.
        let pause = stage(&bed, "pause").into_iter().next().unwrap();
        kill(Pid::from_raw(pause), Signal::SIGKILL).unwrap();
        wait(async || {
            let all = bed.runtime().sandboxes().await.unwrap();
            all.iter().any(|one| !one.ready).then_some(())
        })
        .await;
        bed.runtime().remove_sandbox(&first).await.unwrap();
        bed.runtime().remove_sandbox(&second).await.unwrap();
        assert_eq!(leases(&bed), 0);
        wait(async || (devices() == 0).then_some(())).await;
        bed.end().await;
    });
}

#[test]
fn a_network_that_cannot_be_made_leaves_no_sandbox() {
    in_own_network(async || {
        let bed = bed().await;
        assert_eq!(bed.runtime().network_unready().await, None);
        conflist(bed.path(), r#",{"type":"no-such-plugin"}"#);
        let config = SandboxConfig {
            pod: node::runtime::PodRef {
                namespace: "a".into(),
                name: "b".into(),
                uid: "c".into(),
            },
            ..SandboxConfig::default()
        };
        let error = bed.runtime().run_sandbox(&config).await.unwrap_err();
        assert!(
            matches!(&error, Error::Network(text) if text.contains("no-such-plugin")),
            "{error:?}"
        );
        assert!(bed.runtime().sandboxes().await.unwrap().is_empty());
        assert_eq!(leases(&bed), 0);
        wait(async || (devices() == 0).then_some(())).await;
        assert!(stage(&bed, "pause").is_empty());
        conflist(bed.path(), "");
        let host = bed.sandbox(|config| config.host_network = true).await;
        assert_eq!(leases(&bed), 0);
        let (_, output) = bed.run(&host, "ls /sys/class/net | wc -l").await;
        assert!(output.contains("F 1"), "{output}");
        bed.end().await;
    });
}
