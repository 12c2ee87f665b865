//! The test bed itself: what it says of the network is so, and nothing stays behind.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tests::container::Room;
use tests::etcd::Etcd;
use tests::topology::{OUTSIDE, OUTSIDE6, Underlay, node_addresses};
use tests::traffic::{Ping, Stream, TcpServer, UdpServer, bulk, fragments, seen_as, seen_as_udp};
use tests::{Namespace, Run, eventually, requirement, sweep};

#[test]
fn nodes_reach_each_other_and_the_outside() -> Result<()> {
    if !requirement::is_root() {
        return Ok(());
    }
    let run = Run::new()?;
    let underlay = Underlay::new(&run)?;
    let n1 = underlay.join(&run, 1)?;
    let n2 = underlay.join(&run, 2)?;
    let (v4, v6) = node_addresses(2);
    for ip in [IpAddr::from(v4), v6.into(), OUTSIDE.into(), OUTSIDE6.into()] {
        Ping::new(ip).run(&n1)?;
    }
    let too_large = Ping::new(v4.into()).payload(1473).run(&n1);
    ensure!(
        too_large.is_err(),
        "a packet larger than the MTU got through whole"
    );

    let server = TcpServer::start(&n2, v4.into(), 0)?;
    let own: IpAddr = node_addresses(1).0.into();
    ensure!(seen_as(&n1, server.address)?.ip() == own);
    let datagrams = UdpServer::start(&n2, v6.into(), 0)?;
    let own: IpAddr = node_addresses(1).1.into();
    ensure!(seen_as_udp(&n1, datagrams.address)?.ip() == own);

    let stream = Stream::start(&n1, server.address)?;
    bulk(&n1, server.address, 20_000_000)?;
    ensure!(stream.finish()?.beats > 0);
    ensure!(fragments([&n1, &n2])? == 0);
    Ok(())
}

#[test]
fn a_broken_stream_is_noticed() -> Result<()> {
    if !requirement::is_root() {
        return Ok(());
    }
    let run = Run::new()?;
    let underlay = Underlay::new(&run)?;
    let n1 = underlay.join(&run, 1)?;
    let n2 = underlay.join(&run, 2)?;
    let server = TcpServer::start(&n2, node_addresses(2).0.into(), 0)?;
    let stream = Stream::start(&n1, server.address)?;
    std::thread::sleep(Duration::from_millis(100));
    // Gone with its address, the peer answers nothing; ss -K closes the socket under the stream.
    n1.sh("ip address flush dev eth0")?;
    n1.sh("ip link set eth0 down")?;
    n1.sh(&format!("ss -K dst {}", node_addresses(2).0))?;
    ensure!(
        stream.finish().is_err(),
        "the stream lives on without a network"
    );
    Ok(())
}

#[test]
fn etcd_forgets_only_what_is_wiped() -> Result<()> {
    if !requirement::is_root() || !requirement::has_programs(&["etcd", "etcdctl"]) {
        return Ok(());
    }
    let run = Run::new()?;
    let namespace = run.namespace("store")?;
    let mut etcd = Etcd::start(&namespace, &[], &run.subfolder("etcd")?)?;
    let json = r#"{"Network":"10.5.0.0/16"}"#;
    etcd.put("/a/config", json)?;
    let lease = etcd.grant(600)?;
    etcd.put_all(&lease, [("/a/x", json), ("/a/y", "two words")])?;
    etcd.stop()?;
    etcd.resume()?;
    ensure!(etcd.get("/a/config")?.as_deref() == Some(json));
    ensure!(etcd.get("/a/x")?.as_deref() == Some(json));
    ensure!(etcd.get("/a/y")?.as_deref() == Some("two words"));
    ensure!(etcd.keys("/a")?.len() == 3);
    etcd.compact()?;
    etcd.delete("/a/x")?;
    ensure!(etcd.get("/a/x")?.is_none());
    etcd.stop()?;
    etcd.wipe()?;
    etcd.resume()?;
    ensure!(etcd.keys("/a")?.is_empty());
    Ok(())
}

#[test]
fn a_run_leaves_nothing() -> Result<()> {
    if !requirement::is_root() {
        return Ok(());
    }
    let run = Run::new()?;
    let prefix = run.prefix().to_owned();
    let namespace = run.namespace("a")?;
    let log = run.folder().join("sleep.log");
    let sleeper = namespace.spawn("sleep", Command::new("sleep").arg("600"), &log)?;
    ensure!(!leftovers(&prefix)?.is_empty());
    let pid = sleeper.id();
    let room = settle(&run, &namespace)?;
    let all = leftovers(&prefix)?;
    for kind in ["/proc/", "/run/netns/", "/sys/fs/cgroup/"] {
        let is_there = all.iter().any(|path| path.starts_with(kind));
        ensure!(is_there, "nothing below {kind} in {all:?}");
    }
    drop(room);
    drop(run);
    ensure!(
        leftovers(&prefix)?.is_empty(),
        "left: {:?}",
        leftovers(&prefix)?
    );
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    ensure!(
        stat.contains(" Z "),
        "the process in the namespace still runs: {stat}"
    );
    Ok(())
}

/// The janitor's part: the process of the run is killed and cannot clean up.
#[test]
fn a_killed_run_leaves_nothing() -> Result<()> {
    if !requirement::is_root() {
        return Ok(());
    }
    if std::env::var_os("WEFT_TESTBED_VICTIM").is_some() {
        let run = Run::new()?;
        let namespace = run.namespace("victim")?;
        let log = run.folder().join("sleep.log");
        let _sleeper = namespace.spawn("sleep", Command::new("sleep").arg("600"), &log)?;
        let _room = settle(&run, &namespace)?;
        std::fs::write(std::env::var("WEFT_TESTBED_VICTIM")?, run.prefix())?;
        std::thread::sleep(Duration::from_secs(60));
        return Ok(());
    }
    let note = tempfile::NamedTempFile::new()?;
    let mut victim = Command::new(std::env::current_exe()?)
        .args(["--exact", "a_killed_run_leaves_nothing"])
        .env("WEFT_TESTBED_VICTIM", note.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let prefix = eventually("the victim runs", Duration::from_secs(10), || {
        let prefix = std::fs::read_to_string(note.path())?;
        ensure!(!prefix.is_empty(), "no prefix yet");
        Ok(prefix)
    })?;
    ensure!(!leftovers(&prefix)?.is_empty());
    ensure!(
        !sweep::sweep()?.iter().any(|name| name.contains(&prefix)),
        "a living run was swept"
    );
    victim.kill()?;
    victim.wait()?;
    eventually(
        "the janitor has cleaned up",
        Duration::from_secs(10),
        || {
            let left = leftovers(&prefix)?;
            ensure!(left.is_empty(), "left: {left:?}");
            Ok(())
        },
    )
}

/// A room with a process that has left the run's namespaces and sits in cgroups of its own, as a
/// container's does.
fn settle(run: &Run, node: &Namespace) -> Result<Room> {
    let plugins = run.subfolder("plugins")?;
    let room = Room::new(run, node, &plugins, &json!({}), &plugins.join("subnet.env"))?;
    let name = format!("{}contained", run.prefix());
    // cgroup v1 has a folder for each controller, v2 is one; below each its own children.
    let settle = format!(
        "for top in /sys/fs/cgroup /sys/fs/cgroup/pids; do
            [ -e $top/cgroup.procs ] || continue
            mkdir -p $top/{name}/below && echo $$ >$top/{name}/below/cgroup.procs || exit
        done
        : >{}
        sleep 600; : {name}",
        room.folder().join("settled").display()
    );
    let log = room.folder().join("settle.log");
    let client = room.spawn("unshare", &["--net", "sh", "-c", &settle], &log)?;
    eventually("a process has settled", Duration::from_secs(10), || {
        let settled = room.folder().join("settled").exists();
        ensure!(settled, "its log: {}", client.log_tail());
        Ok(())
    })?;
    Ok(room)
}

/// What of a run is still there: namespaces, files, cgroups, processes that name it.
fn leftovers(prefix: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let places = ["/run/netns", "/sys/fs/cgroup", "/sys/fs/cgroup/pids"];
    let places = places.map(PathBuf::from);
    for folder in places.into_iter().chain([std::env::temp_dir()]) {
        for path in paths_in(&folder)? {
            if path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
            {
                found.push(path.display().to_string());
            }
        }
    }
    for process in paths_in(Path::new("/proc"))? {
        // What is no process, or has just ended, has no command line.
        let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(prefix) {
            found.push(process.display().to_string());
        }
    }
    Ok(found)
}

fn paths_in(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}
