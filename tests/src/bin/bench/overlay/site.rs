//! One subject's two nodes, its daemons, and the proof that they do what the subject is called.

use super::lab::{Lab, UNDERLAY};
use super::subject::Subject;
use super::traffic::Iperf;
use ::tests::flanneld::{Daemon, Flanneld};
use ::tests::traffic::Ping;
use ::tests::{Namespace, eventually};
use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

/// Gives the daemon a BPF file system of its own: what it pins there goes with it, however it ends.
const OWN_PINS: &str = r#"mount -t bpf bpf /sys/fs/bpf 2>/dev/null; exec "$@""#;

/// A node: its namespace, its address in the overlay and its daemon (none for raw veth).
#[derive(Debug)]
pub struct Node {
    pub namespace: Namespace,
    pub address: Ipv4Addr,
    pub daemon: Option<Daemon>,
    pub flanneld: Flanneld,
}

/// A subject that may still be coming up.
#[derive(Debug)]
pub struct Site {
    pub subject: Subject,
    pub nodes: [Node; 2],
    /// The key prefix in etcd.
    pub prefix: String,
}

/// A subject that is ready to be measured.
#[derive(Debug)]
pub struct Ready {
    pub site: Site,
    pub iperf: Iperf,
    /// The data paths in use, as the nodes tell them.
    pub paths: String,
}

impl Site {
    /// Makes the nodes and starts the daemons; does not wait for them. `network` is the IPv4 network.
    pub fn start(lab: &Lab, subject: Subject, number: usize, network: &str) -> Result<Self> {
        let word = subject.word();
        let prefix = format!("/bench/{word}");
        let [first, second] = lab.nodes(&word, number)?;
        if let Some(backend) = subject.backend() {
            let config = json!({ "Network": network, "SubnetLen": 24, "Backend": backend });
            lab.configure(&prefix, &config)?;
        }
        let node = |namespace: Namespace, number: u8| -> Result<Node> {
            let public = UNDERLAY[usize::from(number) - 1];
            let mut flags = vec![
                format!("--etcd-endpoints={}", lab.endpoint()),
                format!("--etcd-prefix={prefix}"),
                "--iface=eth0".to_owned(),
                format!("--public-ip={public}"),
            ];
            flags.extend(subject.flags(number).iter().map(|flag| (*flag).to_owned()));
            let folder = lab.folder(&format!("{word}-{number}"))?;
            let flanneld = Flanneld::new(&namespace, folder.clone(), flags);
            let daemon = match subject.backend() {
                Some(_) => {
                    let log = folder.join("flanneld.log");
                    let mut command = command(&flanneld, subject)?;
                    Some(namespace.spawn("flanneld", &mut command, &log)?)
                }
                None => None,
            };
            Ok(Node {
                namespace,
                address: public,
                daemon,
                flanneld,
            })
        };
        Ok(Self {
            subject,
            nodes: [node(first, 1)?, node(second, 2)?],
            prefix,
        })
    }

    /// Waits until the nodes reach each other, and makes sure that they do it the way they should.
    pub fn ready(mut self, lab: &Lab) -> Result<Ready> {
        let mut paths = Vec::new();
        for (node, number) in self.nodes.iter_mut().zip([1, 2]) {
            if let Some(daemon) = &mut node.daemon {
                wait_ready(&node.flanneld, daemon)?;
                node.address = gateway(&node.flanneld)?;
                let address = format!("ip address add {}/32 dev lo", node.address);
                node.namespace.sh(&address)?;
            }
            let path = self
                .subject
                .proof(number)
                .check(node)
                .with_context(|| format!("node {number}"))?;
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        let [first, second] = &self.nodes;
        eventually("node 1 reaches node 2", Duration::from_secs(10), || {
            Ping::new(second.address.into())
                .count(1)
                .run(&first.namespace)
        })?;
        let iperf = Iperf::start(
            (&first.namespace, first.address),
            (&second.namespace, second.address),
            &lab.congestion,
            &lab.folder(&self.subject.word())?,
        )?;
        Ok(Ready {
            iperf,
            paths: paths.join(", "),
            site: self,
        })
    }

    /// Fails when a daemon has ended, with the end of its log.
    pub fn ensure_alive(&mut self) -> Result<()> {
        self.nodes
            .iter_mut()
            .filter_map(|node| node.daemon.as_mut())
            .try_for_each(Daemon::ensure_alive)
    }

    /// The larger of the two daemons' resident memories, in bytes; `None` where none runs.
    pub fn resident_bytes(&self) -> Result<Option<u64>> {
        let mut largest = None;
        for daemon in self.nodes.iter().filter_map(|node| node.daemon.as_ref()) {
            largest = largest.max(Some(daemon.resident_bytes()?));
        }
        Ok(largest)
    }
}

impl Ready {
    /// After measuring: fails when what was measured was not what the subject is called.
    pub fn ensure_honest(&mut self) -> Result<()> {
        self.site.ensure_alive()?;
        for (node, number) in self.site.nodes.iter().zip([1, 2]) {
            self.site
                .subject
                .proof(number)
                .check_carried(node)
                .with_context(|| format!("node {number}, in the end"))?;
        }
        Ok(())
    }
}

/// Waits until the daemon is ready; one that ends instead is not waited for, and its last words are
/// the error.
fn wait_ready(flanneld: &Flanneld, daemon: &mut Daemon) -> Result<()> {
    let limit = Duration::from_secs(20);
    let came_up = eventually("the daemon is ready", limit, || {
        if daemon.ensure_alive().is_err() {
            return Ok(false);
        }
        let (status, body) = flanneld.health("readyz")?;
        ensure!(status == 200, "/readyz says {status} {}", body.trim());
        Ok(true)
    });
    let came_up = came_up.with_context(|| {
        let log = daemon.log_tail();
        format!(
            "the daemon says: {}",
            log.lines().last().unwrap_or("nothing")
        )
    })?;
    if !came_up {
        bail!("the daemon ended: {}", last_words(&daemon.log()?));
    }
    Ok(())
}

/// The line of a log that tells the error best: the last that mentions one, else the first.
fn last_words(log: &str) -> &str {
    let tells = |line: &&str| line.contains("ERROR") || line.to_lowercase().starts_with("error");
    let line = log.lines().rev().find(tells).or(log.lines().next());
    let line = line.unwrap_or("it said nothing").trim();
    // Without the time.
    line.split_once(" ERROR ").map_or(line, |(_, rest)| rest)
}

/// The daemon's command line in a mount namespace of its own, so with the same process id.
fn command(flanneld: &Flanneld, subject: Subject) -> Result<Command> {
    let plain = flanneld.command()?;
    let program = subject.program();
    let program = program
        .as_deref()
        .map_or(plain.get_program(), |path| path.as_os_str());
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            OWN_PINS,
            "sh",
        ])
        .arg(program)
        .args(plain.get_args())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default());
    Ok(command)
}

/// The first address of the node's subnet, which `FLANNEL_SUBNET` is written with.
fn gateway(flanneld: &Flanneld) -> Result<Ipv4Addr> {
    let subnet = flanneld.subnet_env("FLANNEL_SUBNET")?;
    let (address, _) = subnet
        .split_once('/')
        .with_context(|| format!("FLANNEL_SUBNET={subnet}"))?;
    Ok(address.parse()?)
}

#[cfg(test)]
mod tests {
    use super::last_words;

    #[test]
    fn last_words_are_the_error_or_the_first_line() {
        let usage =
            "flag provided but not defined: -data-path\nUsage: flanneld-rs\n  -error value\n";
        assert_eq!(
            last_words(usage),
            "flag provided but not defined: -data-path"
        );
        assert_eq!(
            last_words("starting\nError: no device\nbye\n"),
            "Error: no device"
        );
        assert_eq!(
            last_words("2026-11-21T11:41:46Z ERROR --data-path: no\n"),
            "--data-path: no"
        );
        assert_eq!(last_words(""), "it said nothing");
    }
}
