//! The node's side of CNI with real plugins: ours, and the reference ones where they are installed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use node::cni::{Attachment, Cni, Config};
use node::runtime::{PodRef, PortMapping, SandboxConfig};
use serde_json::json;
use tests::subject::{self, Subject};
use tests::{Namespace, Run, requirement};

const PODS: usize = 6;

/// What there is in a node's namespace, and the addresses that are handed out.
fn inventory(node: &Namespace, addresses: &Path) -> Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for link in node.sh("ip -o link show")?.lines() {
        let name = link.split(": ").nth(1).unwrap_or_default();
        all.insert(name.split('@').next().unwrap_or_default().to_owned());
    }
    if let Ok(files) = std::fs::read_dir(addresses) {
        for file in files {
            let name = file?.file_name().to_string_lossy().into_owned();
            // host-local keeps its lock and where it goes on.
            if name != "lock" && !name.starts_with("last_reserved_ip") {
                all.insert(name);
            }
        }
    }
    Ok(all)
}

/// Runs in a node's namespace: its plugins are children of this thread.
fn on<T: Send>(node: &Namespace, job: impl Future<Output = Result<T>> + Send) -> Result<T> {
    node.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(job)
    })
}

fn sandbox(name: &str, host_port: u16) -> SandboxConfig {
    SandboxConfig {
        pod: PodRef {
            namespace: "default".to_owned(),
            name: name.to_owned(),
            uid: format!("uid-of-{name}"),
        },
        port_mappings: vec![PortMapping {
            host_port,
            container_port: 80,
            protocol: "TCP".to_owned(),
            host_ip: String::new(),
        }],
        ..SandboxConfig::default()
    }
}

fn lives(subject: Subject, plugins: PathBuf) -> Result<()> {
    let run = Run::new()?;
    let folder = run.subfolder("cni")?;
    let conf = folder.join("net.d");
    std::fs::create_dir(&conf)?;
    let addresses = folder.join("addresses");
    let node = run.namespace("node")?;
    let pods = (0..PODS)
        .map(|number| run.namespace(&format!("p{number}")))
        .collect::<Result<Vec<_>>>()?;
    // Of Debian's reference plugins: none knows STATUS and GC, and portmap's CHECK misses IPv6 chains that its ADD
    // of IPv4 never made.
    let (version, second) = match subject {
        Subject::Ours => (
            "1.1.0",
            json!({"type": "portmap", "capabilities": {"portMappings": true}}),
        ),
        Subject::Reference => (
            "0.4.0",
            json!({"type": "tuning", "sysctl": {"net.ipv4.conf.all.log_martians": "1"}}),
        ),
    };
    std::fs::write(
        conf.join("10-test.conflist"),
        json!({"name": "testnet", "cniVersion": version, "plugins": [
            {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipam": {
                "type": "host-local", "dataDir": addresses,
                "ranges": [[{"subnet": "10.77.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}],
            }},
            second,
        ]})
        .to_string(),
    )?;
    let config = Config {
        conf_dir: conf.clone(),
        bin_dirs: vec![plugins],
        cache_dir: folder.join("cache"),
        timeout: Duration::from_secs(20),
    };
    let held = addresses.join("testnet");
    let before = inventory(&node, &held)?;
    let cni = Cni::new(config.clone());
    let attachment = |number: usize| -> Result<Attachment> {
        let pod = pods.get(number).context("no such Pod")?;
        let port = u16::try_from(8000 + number)?;
        let config = sandbox(&format!("p{number}"), port);
        Ok(Attachment::of(&format!("s{number}"), pod.path(), &config))
    };
    let attachments = (0..PODS).map(attachment).collect::<Result<Vec<_>>>()?;

    // All at once.
    let added = on(&node, async {
        let unready = cni.unready().await;
        ensure!(unready.is_none(), "{unready:?}");
        let adds = attachments.iter().map(|one| cni.add(one));
        Ok(futures_util::future::try_join_all(adds).await?)
    })?;
    let ips: BTreeSet<_> = added.iter().flat_map(|one| one.ips.clone()).collect();
    ensure!(ips.len() == PODS, "{ips:?}");
    let (from, to) = (&pods[0], &added[1].ips[0]);
    from.sh(&format!("ping -c 1 -W 5 {to}"))?;
    let rules = node.sh("nft list ruleset")?;
    let mapped = rules.contains("8003");
    ensure!(mapped == (subject == Subject::Ours), "{rules}");

    // Another process later, with another list on disk: what is known is on disk.
    std::fs::remove_file(conf.join("10-test.conflist"))?;
    let cni = Cni::new(config);
    on(&node, async {
        for number in 0..PODS {
            cni.check(&format!("s{number}"), "eth0").await?;
        }
        cni.del("s0", "eth0").await?;
        let gone = cni.check("s0", "eth0").await;
        ensure!(gone.is_err(), "CHECK of what was deleted");
        Ok(())
    })?;
    // A Pod's link is taken away behind our back.
    pods[1].sh("ip link del eth0")?;
    on(&node, async {
        let error = cni.check("s1", "eth0").await;
        let error = error.err().context("CHECK of a Pod without eth0")?;
        ensure!(error.to_string().contains(r#"name="testnet""#), "{error}");
        cni.del("s1", "eth0").await?;
        cni.gc(|id| id == "s2").await?;
        ensure!(cni.check("s3", "eth0").await.is_err());
        cni.check("s2", "eth0").await?;
        cni.del("s2", "eth0").await?;
        Ok(())
    })?;
    let mut after = inventory(&node, &held)?;
    // The bridge is the network's, not a Pod's.
    ensure!(after.remove("cni0"), "{after:?}");
    ensure!(after == before, "{before:?} before, {after:?} after");
    let rules = node.sh("nft list ruleset")?;
    ensure!(!rules.contains("dport 800"), "left behind: {rules}");
    let cached = std::fs::read_dir(folder.join("cache/results"))?.count();
    ensure!(cached == 0, "{cached} attachments are still remembered");
    Ok(())
}

#[test]
fn pods_come_and_go_with_our_plugins() -> Result<()> {
    if !requirement::is_root() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let plugins = subject::plugin_folder(Subject::Ours, folder.path())?;
    lives(Subject::Ours, plugins)
}

#[test]
fn pods_come_and_go_with_the_reference_plugins() -> Result<()> {
    if !requirement::is_root() {
        return Ok(());
    }
    let places = ["/opt/cni/bin", "/usr/lib/cni"].map(PathBuf::from);
    let Some(plugins) = places.iter().find(|place| place.join("bridge").is_file()) else {
        requirement::skip(
            "needs the reference plugins (apt-get install containernetworking-plugins)",
        );
        return Ok(());
    };
    lives(Subject::Reference, plugins.clone())
}
