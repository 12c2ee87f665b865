//! `weft-dns` as a program: asked by `dig`, restarted under load, told other settings, and thrown rubbish at.

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tests::process::{self, Process};
use tests::{ApiServer, Run, eventually, requirement, subject};

const WAIT: Duration = Duration::from_secs(30);

/// A server of a folder of manifests, on sockets that the test keeps.
struct Server {
    folder: TempDir,
    udp: UdpSocket,
    tcp: TcpListener,
    flags: Vec<String>,
    process: Option<Process>,
}

impl Server {
    /// Of these manifests, with these further flags.
    fn start(manifests: &str, flags: &[&str]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("weft-dns").tempdir()?;
        std::fs::create_dir(folder.path().join("manifests"))?;
        std::fs::write(folder.path().join("manifests/all.yaml"), manifests)?;
        let (udp, tcp) = sockets()?;
        let mut server = Self {
            folder,
            udp,
            tcp,
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
            process: None,
        };
        server.resume()?;
        Ok(server)
    }

    fn address(&self) -> Result<SocketAddr> {
        Ok(self.udp.local_addr()?)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the program on the sockets, as systemd passes them on (sd_listen_fds(3)).
    fn resume(&mut self) -> Result<()> {
        let address = self.address()?;
        let mut command = Command::new("sh");
        command
            .args([
                "-c",
                "exec 3<&0 4<&1 0</dev/null 1>&2; LISTEN_PID=$$ LISTEN_FDS=2 exec \"$@\"",
                "sh",
            ])
            .arg(subject::program("weft-dns")?)
            .arg(format!("--source=dir:{}", self.file("manifests").display()))
            .arg(format!("--snapshot={}", self.file("snapshot").display()))
            .arg(format!("--listen={address}"))
            .arg("--metrics-bind-address=")
            .args(&self.flags);
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.file("log"))?;
        command
            .stdin(Stdio::from(OwnedFd::from(self.udp.try_clone()?)))
            .stdout(Stdio::from(OwnedFd::from(self.tcp.try_clone()?)))
            .stderr(log);
        self.process = Some(Process::keep("weft-dns", &mut command, &self.file("log"))?);
        Ok(())
    }

    fn stop(&mut self, signal: Signal) -> Result<()> {
        let mut process = self.process.take().context("it does not run")?;
        process.signal(signal)?;
        process.wait(WAIT).map(drop)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        self.process
            .as_ref()
            .context("it does not run")?
            .signal(signal)
    }

    fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.file("log"))?)
    }

    /// All that `dig` prints.
    fn dig(&self, words: &str) -> Result<String> {
        let address = self.address()?;
        let mut command = Command::new("dig");
        command
            .arg(format!("@{}", address.ip()))
            .args(["-p", &address.port().to_string(), "+time=5", "+tries=2"])
            .args(words.split_whitespace());
        process::run(&mut command)
    }

    /// The records of an answer, sorted.
    fn short(&self, words: &str) -> Result<Vec<String>> {
        let text = self.dig(&format!("+short {words}"))?;
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        Ok(lines)
    }
}

/// A datagram socket and a listener of one port.
fn sockets() -> Result<(UdpSocket, TcpListener)> {
    for _ in 0..50 {
        let udp = UdpSocket::bind("127.0.0.1:0")?;
        if let Ok(tcp) = TcpListener::bind(udp.local_addr()?) {
            return Ok((udp, tcp));
        }
    }
    bail!("no port is free for both UDP and TCP")
}

const WEB: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {clusterIP: 10.96.0.5, clusterIPs: [10.96.0.5], ports: [{name: http, port: 80}]}
"#;

fn ready() -> bool {
    requirement::has_programs(&["dig"])
}

/// A query for the address of `web` (RFC 1035, 4.1).
fn query(id: u16, name: &str) -> Vec<u8> {
    let mut packet = id.to_be_bytes().to_vec();
    packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        packet.push(label.len() as u8);
        packet.extend(label.as_bytes());
    }
    packet.extend([0, 0, 1, 0, 1]);
    packet
}

#[test]
fn a_restart_loses_no_answer() -> Result<()> {
    if !ready() {
        return Ok(());
    }
    let mut server = Server::start(WEB, &[])?;
    let address = server.address()?;
    eventually("it answers", WAIT, || {
        ensure!(server.short("web.default.svc.cluster.local")? == ["10.96.0.5"]);
        Ok(())
    })?;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let client = std::thread::spawn(move || -> Result<(u16, BTreeSet<u16>)> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(address)?;
        socket.set_read_timeout(Some(Duration::from_millis(2)))?;
        let (mut sent, mut open) = (0, BTreeSet::new());
        let mut buffer = [0; 1500];
        let mut last = Instant::now();
        loop {
            if !stopped.load(Ordering::Relaxed) && sent < u16::MAX {
                socket.send(&query(sent, "web.default.svc.cluster.local"))?;
                open.insert(sent);
                sent += 1;
                last = Instant::now();
            } else if open.is_empty() || last.elapsed() > Duration::from_secs(10) {
                return Ok((sent, open));
            }
            while let Ok(length) = socket.recv(&mut buffer) {
                ensure!(
                    length > 12 && buffer[3] & 15 == 0 && buffer[7] == 1,
                    "not the answer: {:?}",
                    &buffer[..length]
                );
                open.remove(&u16::from_be_bytes([buffer[0], buffer[1]]));
            }
        }
    });
    for signal in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGTERM] {
        std::thread::sleep(Duration::from_millis(300));
        server.stop(signal)?;
        server.resume()?;
        eventually("it answers again", WAIT, || {
            ensure!(server.short("web.default.svc.cluster.local")? == ["10.96.0.5"]);
            Ok(())
        })?;
    }
    stop.store(true, Ordering::Relaxed);
    let (sent, open) = client
        .join()
        .map_err(|_| anyhow::anyhow!("the client panicked"))??;
    // A query that was taken from the socket by a server that was then killed is lost; one at most was being answered.
    ensure!(
        sent > 100 && open.len() <= 1,
        "of {sent} queries {} were lost: {open:?}",
        open.len()
    );
    Ok(())
}

#[test]
fn a_snapshot_answers_while_the_source_is_away() -> Result<()> {
    if !ready() {
        return Ok(());
    }
    let mut server = Server::start(WEB, &[])?;
    eventually("it answers, and has a snapshot", WAIT, || {
        ensure!(server.short("web.default.svc.cluster.local")? == ["10.96.0.5"]);
        ensure!(server.file("snapshot").exists());
        Ok(())
    })?;
    server.stop(Signal::SIGTERM)?;
    std::fs::rename(server.file("manifests"), server.file("elsewhere"))?;
    server.resume()?;
    eventually("the snapshot answers", WAIT, || {
        ensure!(server.short("web.default.svc.cluster.local")? == ["10.96.0.5"]);
        Ok(())
    })?;
    // Without it nothing is known, and nothing is denied.
    server.stop(Signal::SIGTERM)?;
    std::fs::write(server.file("snapshot"), "rubbish")?;
    server.resume()?;
    eventually("it says that it does not know yet", WAIT, || {
        let text = server.dig("web.default.svc.cluster.local")?;
        ensure!(text.contains("SERVFAIL"), "{text}");
        Ok(())
    })?;
    ensure!(
        server.log()?.contains("snapshot"),
        "the damaged snapshot is not told of"
    );
    std::fs::rename(server.file("elsewhere"), server.file("manifests"))?;
    eventually("the source is there", WAIT, || {
        ensure!(server.short("web.default.svc.cluster.local")? == ["10.96.0.5"]);
        Ok(())
    })
}

#[test]
fn other_names_are_asked_of_whom_the_settings_name() -> Result<()> {
    if !ready() {
        return Ok(());
    }
    let corp = WEB.replace("10.96.0.5", "10.1.1.1");
    let mut first = Server::start(&corp, &["--cluster-domain=corp.example", "--ttl=1"])?;
    let second = Server::start(
        &corp.replace("10.1.1.1", "10.2.2.2"),
        &["--cluster-domain=corp.example"],
    )?;
    let name = "web.default.svc.corp.example";
    let settings = |path: &Path, upstream: SocketAddr| -> Result<()> {
        Ok(std::fs::write(path, format!("upstream: ['{upstream}']\n"))?)
    };
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("dns.yaml");
    settings(&file, first.address()?)?;
    let server = Server::start(WEB, &["--config", &file.display().to_string()])?;
    eventually("the first upstream's answer", WAIT, || {
        let found = server.short(name)?;
        ensure!(found == ["10.1.1.1"], "{found:?}");
        Ok(())
    })?;
    // Gone, and the answer past its time: better than none.
    first.stop(Signal::SIGTERM)?;
    std::thread::sleep(Duration::from_millis(1500));
    ensure!(server.short(name)? == ["10.1.1.1"], "no stale answer");
    // Rubbish is refused, and all stays as it was.
    std::fs::write(&file, "upstreams: [10.0.0.1]\n")?;
    server.signal(Signal::SIGHUP)?;
    eventually("the complaint is in the log", WAIT, || {
        ensure!(server.log()?.contains("upstreams"), "{}", server.log()?);
        Ok(())
    })?;
    settings(&file, second.address()?)?;
    server.signal(Signal::SIGHUP)?;
    eventually("the second upstream's answer", WAIT, || {
        let found = server.short(name)?;
        ensure!(found == ["10.2.2.2"], "{found:?}");
        Ok(())
    })?;
    // Names of the cluster are never asked of others.
    let text = server.dig("nobody.default.svc.cluster.local")?;
    ensure!(text.contains("NXDOMAIN"), "{text}");
    server.signal(Signal::SIGUSR1)?;
    eventually("the query is in the log", WAIT, || {
        server.dig("logged.default.svc.cluster.local")?;
        ensure!(server.log()?.contains("logged.default.svc.cluster.local"));
        Ok(())
    })
}

#[test]
fn rubbish_is_answered_as_it_deserves() -> Result<()> {
    if !ready() {
        return Ok(());
    }
    let server = Server::start(WEB, &[])?;
    let name = "web.default.svc.cluster.local";
    eventually("it answers", WAIT, || {
        ensure!(server.short(name)? == ["10.96.0.5"]);
        Ok(())
    })?;
    let transfer = server.dig("cluster.local AXFR")?;
    ensure!(transfer.contains("Transfer failed"), "{transfer}");
    for (words, wanted) in [
        ("+opcode=STATUS web.default.svc.cluster.local", "NOTIMP"),
        ("+opcode=UPDATE web.default.svc.cluster.local", "NOTIMP"),
        (
            "+edns=1 +noednsnegotiation web.default.svc.cluster.local",
            "BADVERS",
        ),
        ("-c CH -t TXT version.bind", "weft-dns"),
        ("-c HS web.default.svc.cluster.local", "REFUSED"),
    ] {
        let text = server.dig(words)?;
        ensure!(text.contains(wanted), "{words}: {text}");
    }
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(server.address()?)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut answer = [0; 65_535];
    // Too short, an answer, rubbish, a name that points at itself, many questions: none stops it.
    let mut response = query(1, name);
    response[2] |= 0x80;
    let mut looping = query(2, "a");
    looping.truncate(12);
    looping.extend([0xc0, 12, 0, 1, 0, 1]);
    let mut many = query(3, name);
    many[4..6].copy_from_slice(&[255, 255]);
    for packet in [
        vec![],
        vec![0; 5],
        response,
        vec![255; 60_000],
        looping,
        many,
    ] {
        socket.send(&packet)?;
    }
    socket.send(&query(77, name))?;
    loop {
        let length = socket.recv(&mut answer).context("it answers no more")?;
        match answer[..2] {
            [0, 77] => {
                ensure!(length > 12 && answer[3] & 15 == 0);
                break;
            }
            // An answer is never answered.
            [0, 1] => bail!("an answer was answered"),
            // FORMERR.
            _ => ensure!(answer[3] & 15 == 1, "{:?}", &answer[..length.min(12)]),
        }
    }
    ensure!(!server.log()?.contains("panicked"));
    Ok(())
}

/// The README's commands, but that the kubeconfig and the snapshot are the test's.
#[test]
fn the_readme_s_commands() -> Result<()> {
    if !ready() || !requirement::is_root() || !requirement::has_programs(&["ip", "nft"]) {
        return Ok(());
    }
    let run = Run::new()?;
    let node = run.namespace("n1")?;
    let api = ApiServer::start_in(&node, "127.0.0.1", &[])?;
    let folder = tempfile::tempdir()?;
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md"))?;
    let line = |start: &str| -> Result<Vec<String>> {
        let line = readme.lines().find(|line| line.starts_with(start));
        let line = line.with_context(|| format!("the README has no {start}"))?;
        let line = line
            .replace(
                "/etc/kubernetes/dns.conf",
                &api.kubeconfig().display().to_string(),
            )
            .replace(
                "/var/lib/weft/dns.json",
                &folder.path().join("dns.json").display().to_string(),
            );
        Ok(line.split_whitespace().map(str::to_owned).collect())
    };
    let weft_dns = |arguments: &[String]| -> Result<Command> {
        let mut command = Command::new(subject::program("weft-dns")?);
        command.args(arguments);
        Ok(command)
    };
    let words = line("weft-dns --kubeconfig")?;
    let log = folder.path().join("log");
    let mut server = node.spawn("weft-dns", &mut weft_dns(&words[1..])?, &log)?;
    let dig = line("dig @169.254.20.10")?;
    eventually("the README's question is answered", WAIT, || {
        server.ensure_alive()?;
        let text = node.exec("dig", &dig[1..])?;
        ensure!(text.contains("10.96.0.1"), "{text}");
        Ok(())
    })?;
    ensure!(
        node.sh("nft list table inet weft-dns")?
            .contains("169.254.20.10")
    );
    ensure!(folder.path().join("dns.json").exists());
    server.signal(Signal::SIGTERM)?;
    server.wait(WAIT)?;
    // `weft-dns --cleanup` leaves nothing.
    let cleanup = ["--cleanup", "--local-address", "169.254.20.10"];
    ensure!(readme.contains(&format!("weft-dns {}", cleanup.join(" "))));
    let cleanup = cleanup.map(str::to_owned);
    node.run(|| process::run(&mut weft_dns(&cleanup)?))?;
    ensure!(!node.sh("ip address show dev lo")?.contains("169.254.20.10"));
    ensure!(node.sh("nft list table inet weft-dns").is_err());
    Ok(())
}
