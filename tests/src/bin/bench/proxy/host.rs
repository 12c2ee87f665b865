//! A host whose rules are measured, and the peer that its endpoints are routed to.
//!
//! ```text
//!   host 10.253.0.1 ── 10.253.0.2 peer (10.255.0.1 … 5 answer; what is for others it drops)
//! ```

use super::world::{self, LISTENERS, PODS, Service};
use ::tests::proxy::{Daemon, Mode, Proxy};
use ::tests::{Namespace, Run, process};
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// After so long a manifest is read once only.
const SETTLED: Duration = Duration::from_millis(2_500);
/// How long the kernel is given to forget a large ruleset.
const TAKING_APART: Duration = Duration::from_secs(3);

/// A host and its peer.
pub struct Host {
    pub namespace: Namespace,
    pub peer: Namespace,
    /// Manifests and log.
    pub folder: PathBuf,
    name: String,
}

impl Host {
    /// Makes both namespaces.
    pub fn new(run: &Run, name: &str) -> Result<Self> {
        let namespace = run.namespace(name)?;
        let peer = run.namespace(&format!("{name}-peer"))?;
        namespace.ip_batch(&format!(
            "link add eth0 type veth peer name eth0 netns {peer}
             address add 10.253.0.1/30 dev eth0
             link set eth0 up",
            peer = peer.name()
        ))?;
        let mut lines = "address add 10.253.0.2/30 dev eth0\nlink set eth0 up\n".to_owned();
        for ip in LISTENERS {
            lines += &format!("address add {ip}/32 dev lo\n");
        }
        peer.ip_batch(&lines)?;
        // Packets for addresses that it lacks end here, without a word.
        peer.set_sysctl("net/ipv4/ip_forward", "0")?;
        namespace.ip_batch(&format!(
            "route add {PODS} via 10.253.0.2\nroute add default via 10.253.0.2"
        ))?;
        Ok(Self {
            namespace,
            peer,
            folder: run.subfolder(name)?,
            name: name.to_owned(),
        })
    }

    /// Removes both namespaces, with all the rules.
    pub fn remove(self, run: &Run) -> Result<()> {
        run.remove(&self.namespace)?;
        run.remove(&self.peer)?;
        std::fs::remove_dir_all(&self.folder)
            .with_context(|| format!("remove {}", self.folder.display()))?;
        // The kernel takes the rules of a namespace apart behind our back, on the same two cores.
        std::thread::sleep(TAKING_APART);
        Ok(())
    }

    /// Loads a ruleset by a program that reads it from its standard input, a file; how long that
    /// took.
    pub fn load(&self, words: &[&str], text: &str) -> Result<Duration> {
        let path = self.folder.join("rules");
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        let (program, args) = words.split_first().context("no program")?;
        self.namespace.run(|| {
            let file = File::open(&path)?;
            let mut command = Command::new(program);
            command.args(args).stdin(Stdio::from(file));
            let started = Instant::now();
            let output = command
                .output()
                .with_context(|| format!("start {program}"))?;
            let spent = started.elapsed();
            ensure!(
                output.status.success(),
                "{program}: {}: {:.500}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
            Ok(spent)
        })
    }

    /// Where the manifests of this host's proxy are.
    pub fn manifests(&self) -> PathBuf {
        self.folder.join("manifests")
    }

    /// Starts our proxy on these Services, the slices of those `apart` in files of their own, and
    /// waits until it has synced.
    pub fn serve(
        &self,
        mode: Mode,
        services: &[Service],
        apart: impl Fn(&Service) -> bool,
    ) -> Result<Served> {
        let manifests = self.manifests();
        world::write(&manifests, services, apart)?;
        // A file that was written just now is read once more a second later, in the middle of what is
        // measured.
        std::thread::sleep(SETTLED);
        self.start(mode, &manifests)
    }

    fn start(&self, mode: Mode, manifests: &Path) -> Result<Served> {
        let log = self.folder.join("weft-proxy.log");
        let proxy = Proxy::new(&self.namespace, &self.name, manifests, log)
            .mode(mode)
            .flag(format!("--cluster-cidr={PODS}"));
        let daemon = proxy.start_within(Duration::from_secs(60))?;
        Ok(Served { proxy, daemon })
    }

    /// Connection tracking forgets everything.
    pub fn forget_flows(&self) -> Result<()> {
        self.namespace.run(|| {
            process::run(Command::new("conntrack").arg("-F"))?;
            Ok(())
        })
    }
}

/// A running proxy of a host.
pub struct Served {
    pub proxy: Proxy,
    pub daemon: Daemon,
}

impl Served {
    /// Seconds that the first, full sync of IPv4 took, objects in memory to all in the kernel, by the
    /// proxy's own clock.
    pub fn first_sync(&self) -> Result<f64> {
        let name = "kubeproxy_sync_full_proxy_rules_duration_seconds";
        let of = |suffix: &str| -> Result<f64> {
            let series = self.proxy.series(&format!("{name}_{suffix}"))?;
            let v4 = series
                .iter()
                .find(|(labels, _)| labels.contains("ip_family=\"IPv4\""));
            let v4 = v4.with_context(|| format!("no {name}_{suffix} of IPv4 in {series:?}"))?;
            Ok(v4.1)
        };
        let count = of("count")?;
        ensure!(count >= 1.0, "{name} has no observation");
        // Later full syncs, if any, wrote nothing: the first is at most the sum.
        of("sum")
    }
}
