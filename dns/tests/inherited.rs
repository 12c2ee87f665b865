//! Sockets that a supervisor passes on (sd_listen_fds(3)) serve one run of weft-dns after the other, and lose no query.

use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};

const PATIENCE: Duration = Duration::from_secs(60);

const SERVICE: &str = "apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  clusterIP: 10.96.0.20
  clusterIPs: [10.96.0.20]
  ports: [{name: http, port: 80}]
";

/// A weft-dns; ended when dropped.
struct Run(Child);

impl Run {
    /// Starts it as systemd would: the sockets are files 3 and 4.
    fn start(folder: &Path, udp: &UdpSocket, tcp: &TcpListener) -> Self {
        let script = "exec 3<&0 4<&1 0</dev/null 1>&2; LISTEN_PID=$$ LISTEN_FDS=2; \
                      export LISTEN_PID LISTEN_FDS; exec \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_weft-dns")]);
        command
            .arg("--source")
            .arg(format!("dir:{}", folder.display()));
        command.args(["--listen", &udp.local_addr().unwrap().to_string()]);
        command.args(["--metrics-bind-address", "", "--resolv-conf", "/dev/null"]);
        command.stdin(Stdio::from(OwnedFd::from(udp.try_clone().unwrap())));
        command.stdout(Stdio::from(OwnedFd::from(tcp.try_clone().unwrap())));
        Self(command.spawn().unwrap())
    }

    /// Ends it as systemd would.
    fn end(mut self) {
        let told = Command::new("kill")
            .args(["-TERM", &self.0.id().to_string()])
            .status();
        assert!(told.unwrap().success());
        let start = Instant::now();
        while self.0.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn query(id: u16) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    let name = Name::from_ascii("web.shop.svc.cluster.local.").unwrap();
    message.queries.push(Query::query(name, RecordType::A));
    message.to_vec().unwrap()
}

fn receive(client: &UdpSocket) -> Message {
    let mut answer = [0; 512];
    let size = client.recv(&mut answer).expect("an answer");
    Message::from_vec(&answer[..size]).unwrap()
}

/// Asks until the Services are known.
fn wait_until_known(client: &UdpSocket) {
    let start = Instant::now();
    loop {
        client.send(&query(0)).unwrap();
        if receive(client).metadata.response_code == ResponseCode::NoError {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "the Services are never known");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn sockets_passed_on_lose_no_query_between_two_runs() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("web.yaml"), SERVICE).unwrap();
    // Without SO_REUSEPORT: a program that opened its own would fail.
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address: SocketAddr = udp.local_addr().unwrap();
        if let Ok(tcp) = TcpListener::bind(address) {
            break (udp, tcp);
        }
    };
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(udp.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();

    let run = Run::start(folder.path(), &udp, &tcp);
    wait_until_known(&client);
    run.end();
    for id in 1..=50 {
        client.send(&query(id)).unwrap();
    }
    let run = Run::start(folder.path(), &udp, &tcp);
    for id in 1..=50 {
        assert_eq!(receive(&client).metadata.id, id);
    }
    run.end();
}
