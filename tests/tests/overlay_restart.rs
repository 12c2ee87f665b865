//! The udp overlay with programs in the kernel: the daemon dies, comes back, changes its data path,
//! and no packet is lost that need not be.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::cluster::{Node, Stack};
use tests::flanneld::terminate;
use tests::pod::{Family, Pod};
use tests::process::{self, Process};
use tests::traffic::{Stream, TcpServer, bulk};
use tests::{Cluster, Options, eventually, requirement};

const BPFFS: &str = "/sys/fs/bpf";

fn options(data_path: &str) -> Options {
    let mut options = Options::new("udp");
    options.backend = json!({ "Type": "udp", "DataPath": data_path });
    options
}

fn can_run() -> bool {
    requirement::is_root() && requirement::has_programs(&["etcd", "etcdctl", "ping", "bpftool"])
}

/// Two nodes with a Pod each, connected; `None` when the host cannot, said loudly.
fn connected(options: &Options) -> Result<Option<(Cluster, Pod, Pod)>> {
    if !can_run() {
        return Ok(None);
    }
    let cluster = Cluster::start(options)?;
    let (a, b) = (cluster.pod(0, "a")?, cluster.pod(1, "b")?);
    cluster.wait_connected(&[&a, &b], options.stack)?;
    Ok(Some((cluster, a, b)))
}

/// The same where programs carry the packets; skipped loudly where this kernel or build has none.
fn connected_by_programs(options: &Options) -> Result<Option<(Cluster, Pod, Pod)>> {
    let Some((cluster, a, b)) = connected(options)? else {
        return Ok(None);
    };
    let page = metrics(&cluster.nodes[0])?;
    if !page.contains("data_path=\"ebpf\"") {
        let log = cluster.nodes[0].daemon.as_ref().map(Process::log_tail);
        let log = log.unwrap_or_default();
        let why = log.lines().find(|line| line.contains("data path:"));
        requirement::skip(&format!("no eBPF data path here: {why:?}"));
        return Ok(None);
    }
    Ok(Some((cluster, a, b)))
}

fn metrics(node: &Node) -> Result<String> {
    let (status, page) = node.flanneld.health("metrics")?;
    ensure!(status == 200, "/metrics answers {status}");
    Ok(page)
}

/// The value of one series.
fn value(node: &Node, series: &str) -> Result<u64> {
    let page = metrics(node)?;
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix("flanneld_")?.strip_prefix(series))
        .with_context(|| format!("no {series} in\n{page}"))?;
    Ok(line.trim().parse()?)
}

/// A ping every 10 ms until told to end.
struct Pings(Process);

impl Pings {
    fn start(cluster: &Cluster, from: &Pod, to: &Pod) -> Result<Self> {
        let log = cluster.run.folder().join(format!("ping.{}", from.name));
        let mut command = Command::new("ping");
        command.args(["-n", "-q", "-i", "0.01", &to.ip(Family::V4)?.to_string()]);
        let process = from.namespace.spawn("ping", &mut command, &log)?;
        Ok(Self(process))
    }

    /// Packets sent and answered.
    fn finish(mut self) -> Result<(u64, u64)> {
        self.0.signal(nix::sys::signal::Signal::SIGINT)?;
        self.0.wait(Duration::from_secs(5))?;
        let log = self.0.log()?;
        let line = log
            .lines()
            .find(|line| line.contains("packets transmitted"));
        let line = line.with_context(|| format!("ping says {log:?}"))?;
        let mut numbers = line.split(|c: char| !c.is_ascii_digit());
        let mut number = || numbers.find_map(|word| word.parse().ok());
        number().zip(number()).with_context(|| line.to_owned())
    }
}

/// Both daemons are killed in turn, stay away for a while, and come back: traffic goes on without
/// them, and no packet is lost when they come back.
#[test]
fn killed_daemons_are_not_missed() -> Result<()> {
    let Some((mut cluster, a, b)) = connected_by_programs(&options("ebpf"))? else {
        return Ok(());
    };
    let server = TcpServer::start(&b.namespace, b.ip(Family::V4)?, 0)?;
    let mut before = lost_segments(&a, &b)?;
    let pings = Pings::start(&cluster, &a, &b)?;
    let stream = Stream::start(&a.namespace, server.address)?;
    for index in 0..2 {
        let mut daemon = cluster.nodes[index].take_daemon()?;
        daemon.kill()?;
        std::thread::sleep(Duration::from_secs(1));
        // A new connection too, without a daemon. What it fills up and sends again does not count.
        let by_bulk = lost_segments(&a, &b)?;
        bulk(&a.namespace, server.address, 16 << 20)?;
        before += lost_segments(&a, &b)? - by_bulk;
        cluster.nodes[index].start_daemon()?;
        std::thread::sleep(Duration::from_secs(1));
        let page = metrics(&cluster.nodes[index])?;
        ensure!(page.contains("data_path=\"ebpf\""), "{page}");
    }
    let report = stream.finish().with_context(|| cluster.state())?;
    let (sent, answered) = pings.finish()?;
    ensure!(sent > 200, "only {sent} pings");
    // The last one may still have been under way.
    ensure!(
        answered + 1 >= sent,
        "{} of {sent} pings were lost; {report:?}",
        sent - answered
    );
    let lost = lost_segments(&a, &b)? - before;
    ensure!(lost <= 0, "{lost} segments were lost; {report:?}");
    Ok(())
}

/// Segments sent again, but for those that arrived twice: on a loaded machine an answer may come too late
/// for TCP's patience (200 ms), and the receiver says that it had the segment already (D-SACK, RFC 2883).
fn lost_segments(a: &Pod, b: &Pod) -> Result<i64> {
    let mut lost = 0;
    for pod in [&a.namespace, &b.namespace] {
        let resent = pod.snmp("Tcp", "RetransSegs")?;
        let in_vain = pod.snmp("TcpExt", "TCPDSACKRecv")?;
        lost += resent.cast_signed() - in_vain.cast_signed();
    }
    Ok(lost)
}

/// From one data path to the other between two lives: each removes what the former one left.
#[test]
fn the_data_path_changes_between_two_lives() -> Result<()> {
    let Some((mut cluster, a, b)) = connected_by_programs(&options("auto"))? else {
        return Ok(());
    };
    let index = |node: &Node| node.namespace.sh("ip -oneline link show flannel0");
    let before = index(&cluster.nodes[0])?;
    for data_path in ["plain", "ebpf", "offload", "auto"] {
        let node = &mut cluster.nodes[0];
        node.take_daemon()?.kill()?;
        let flags = node.flanneld.flags_mut();
        flags.retain(|flag| !flag.starts_with("--data-path="));
        flags.push(format!("--data-path={data_path}"));
        node.start_daemon()?;
        let wanted = match data_path {
            "auto" => "ebpf",
            other => other,
        };
        let page = metrics(node)?;
        let info = format!("data_path=\"{wanted}\"");
        ensure!(page.contains(&info), "no {info} in\n{page}");
        let programs = programs(node)?;
        ensure!(
            programs.is_empty() == (wanted != "ebpf"),
            "with {data_path} there are {programs:?}"
        );
        cluster.wait_connected(&[&a, &b], Stack::V4)?;
    }
    let number = |text: &str| text.split(':').next().map(str::to_owned);
    let after = index(&cluster.nodes[0])?;
    ensure!(
        number(&before) == number(&after),
        "the device was made anew:\n{before}{after}"
    );
    Ok(())
}

/// Somebody removes the programs: user space goes on, and the next look puts them back.
#[test]
fn removed_programs_come_back() -> Result<()> {
    let Some((cluster, a, b)) = connected_by_programs(&options("auto"))? else {
        return Ok(());
    };
    let n1 = &cluster.nodes[0];
    let attached = "reconcile_changes_total{part=\"backend\",kind=\"attach ebpf\"}";
    let before = value(n1, attached)?;
    for program in programs(n1)? {
        program.remove(n1)?;
    }
    let sent = "tunnel_packets_total{direction=\"sent\",path=\"user\"}";
    let by_hand = value(n1, sent)?;
    // The kernel lets go of a tcx link some moments after its pin; and some event may have made the daemon look already.
    eventually("user space carries", Duration::from_secs(10), || {
        cluster.wait_connected(&[&a, &b], Stack::V4)?;
        ensure!(
            value(n1, sent)? > by_hand || value(n1, attached)? > before,
            "user space carried nothing"
        );
        Ok(())
    })?;
    // Any loss of ours is a reason to look at all.
    n1.namespace.sh("ip route del 10.5.0.0/16 dev flannel0")?;
    eventually("programs are back", Duration::from_secs(10), || {
        ensure!(programs(n1)?.len() == 2, "{:?}", programs(n1)?);
        Ok(())
    })?;
    eventually("the change is counted", Duration::from_secs(5), || {
        ensure!(value(n1, attached)? == before + 1);
        Ok(())
    })?;
    cluster.wait_connected(&[&a, &b], Stack::V4)
}

/// Without the right to load programs there is one line, and offload.
#[test]
fn refused_programs_are_one_line_and_user_space() -> Result<()> {
    if !can_run() || !requirement::has_programs(&["setpriv"]) {
        return Ok(());
    }
    for (data_path, level) in [("auto", "INFO"), ("ebpf", "WARN")] {
        let mut cluster = Cluster::prepare(&options(data_path))?;
        for node in &mut cluster.nodes {
            let plain = node.flanneld.command()?;
            let mut command = Command::new("setpriv");
            command
                .arg("--bounding-set=-bpf,-sys_admin")
                .arg(plain.get_program())
                .args(plain.get_args());
            let log = cluster.run.folder().join(format!("n{}.log", node.number));
            let mut daemon = node.namespace.spawn("flanneld", &mut command, &log)?;
            node.flanneld.wait_ready(&mut daemon)?;
            let text = daemon.log()?;
            let lines: Vec<_> = text.lines().filter(|line| line.contains("ebpf")).collect();
            ensure!(
                matches!(lines[..], [line] if line.contains("udp data path: offload on flannel0 (ebpf refused: ")
                    && line.contains(level)),
                "{text}"
            );
            node.daemon = Some(daemon);
        }
        let (a, b) = (cluster.pod(0, "a")?, cluster.pod(1, "b")?);
        cluster.wait_connected(&[&a, &b], Stack::V4)?;
        ensure!(metrics(&cluster.nodes[0])?.contains("data_path=\"offload\""));
    }
    Ok(())
}

/// An orderly stop, and `cleanup` after a kill, leave neither device nor program.
#[test]
fn nothing_is_left() -> Result<()> {
    let Some((mut cluster, ..)) = connected_by_programs(&options("ebpf"))? else {
        return Ok(());
    };
    let daemon = cluster.nodes[0].take_daemon()?;
    let status = terminate(daemon)?;
    ensure!(status.success(), "SIGTERM: flanneld ended with {status}");
    let n2 = &mut cluster.nodes[1];
    n2.take_daemon()?.kill()?;
    ensure!(programs(n2)?.len() == 2, "kill -9 left {:?}", programs(n2)?);
    let mut command = n2.flanneld.command()?;
    command.arg("cleanup");
    let n2 = &cluster.nodes[1];
    n2.namespace.run(|| process::run(&mut command))?;
    for node in &cluster.nodes {
        let left = programs(node)?;
        ensure!(left.is_empty(), "n{}: {left:?}", node.number);
        let rest = node
            .namespace
            .exec("sh", &["-c", "ip -brief link; tc qdisc show"])?;
        ensure!(
            !rest.contains("flannel0") && !rest.contains("clsact"),
            "n{}: {rest}",
            node.number
        );
    }
    Ok(())
}

/// What holds a program of ours.
#[derive(Debug)]
enum Holder {
    /// A filter: device and direction.
    Filter(String, String),
    /// A pinned link.
    Pin(PathBuf),
}

impl Holder {
    /// As an operator would.
    fn remove(&self, node: &Node) -> Result<()> {
        match self {
            Self::Filter(device, direction) => {
                let line = format!("tc filter del dev {device} {direction}");
                node.namespace.sh(&line).map(drop)
            }
            Self::Pin(path) => Ok(fs::remove_file(path)?),
        }
    }
}

/// The filters that bpftool sees on the node's links, and the links pinned for its namespace, which
/// Debian's bpftool does not know.
fn programs(node: &Node) -> Result<Vec<Holder>> {
    let text = node.namespace.sh("bpftool -j net show")?;
    let all: serde_json::Value = serde_json::from_str(&text)?;
    let filters = all[0]["tc"].as_array().cloned().unwrap_or_default();
    let mut holders = Vec::new();
    for filter in filters {
        let word = |key: &str| filter[key].as_str().map(str::to_owned);
        let (device, kind) = word("devname").zip(word("kind")).context(text.clone())?;
        if let Some(direction) = kind.strip_prefix("clsact/") {
            holders.push(Holder::Filter(device, direction.to_owned()));
        }
    }
    let namespace = fs::metadata(node.namespace.path())?.ino();
    let pins = Path::new(BPFFS).join(format!("weft-flannel0-{namespace}"));
    if pins.exists() {
        for pin in fs::read_dir(&pins)? {
            holders.push(Holder::Pin(pin?.path()));
        }
    }
    Ok(holders)
}

/// All of the above once more in the other half of the world: with a bpffs if the host has none, where
/// programs hang on pinned links, else without one, where filters hold them.
#[test]
fn the_same_with_and_without_a_bpffs() -> Result<()> {
    const AGAIN: &str = "WEFT_OTHER_BPFFS";
    if std::env::var_os(AGAIN).is_some() || !can_run() {
        return Ok(());
    }
    let change = match fs::read_to_string("/proc/mounts")?.contains(&format!(" {BPFFS} bpf ")) {
        true => format!("umount -l {BPFFS}"),
        false => format!("mount -t bpf bpf {BPFFS}"),
    };
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c"])
        .arg(format!("{change} && exec \"$0\""))
        .arg(std::env::current_exe()?)
        .env(AGAIN, "1")
        // Its skips are said there; what fails, on the other output.
        .stderr(Stdio::inherit());
    process::run(&mut command).map(drop)
}
