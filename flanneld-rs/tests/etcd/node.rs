//! A namespace that plays a host, and the daemon in it as a process.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use flanneld_rs::subnet_env::SubnetEnv;
use kernel::{Address, Change, Netlink, Netns, NewLink, NewLinkKind, Route, RouteFilter};

use crate::server::{Etcd, PREFIX};

const PORT: u16 = 8081;

/// Runs a test inside a fresh namespace with lo and eth0 (192.168.66.11/24, default route).
pub fn in_a_node<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    struct Remove(String);
    impl Drop for Remove {
        fn drop(&mut self) {
            let _ = Netns::delete(&self.0);
        }
    }
    let name = format!(
        "weft-fl-{}-{}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    );
    let netns = Netns::create(&name).expect("create a network namespace: run as root");
    let _remove = Remove(name);
    let run = || {
        let mut netlink = Netlink::open().unwrap();
        let lo = netlink.expect_link("lo").unwrap();
        netlink.ensure_up(&lo).unwrap();
        let kind = NewLinkKind::Bridge {
            vlan_filtering: None,
        };
        netlink
            .apply(&Change::AddLink(NewLink {
                up: true,
                ..NewLink::new("eth0", kind)
            }))
            .unwrap();
        let eth0 = netlink.expect_link("eth0").unwrap().index;
        netlink
            .apply(&Change::AddAddress(Address::new(
                eth0,
                "192.168.66.11/24".parse().unwrap(),
            )))
            .unwrap();
        let via = Some([192, 168, 66, 1].into());
        let default = Route {
            via,
            dev: Some(eth0),
            ..Route::new("0.0.0.0/0".parse().unwrap())
        };
        netlink.apply(&Change::AddRoute(default)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test());
    };
    netns.run(run).unwrap();
}

/// flanneld-rs, running; killed when dropped.
pub struct Daemon {
    pub child: Child,
    pub dir: tempfile::TempDir,
    pub endpoint: String,
}

impl Daemon {
    pub fn start(etcd: &Etcd, extra: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let child = Self::spawn(&dir, &etcd.endpoint(), extra);
        Self {
            child,
            dir,
            endpoint: etcd.endpoint(),
        }
    }

    pub fn command(dir: &tempfile::TempDir, endpoint: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flanneld-rs"));
        command.args([
            "--etcd-prefix",
            PREFIX,
            "--etcd-endpoints",
            endpoint,
            "--healthz-port=8081",
            "--subnet-file",
        ]);
        command.arg(dir.path().join("run/subnet.env"));
        command
    }

    pub fn spawn(dir: &tempfile::TempDir, endpoint: &str, extra: &[&str]) -> Child {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(dir.path().join("log"))
            .unwrap();
        let mut command = Self::command(dir, endpoint);
        command
            .args(extra)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        command.env("NOTIFY_SOCKET", dir.path().join("notify"));
        command.spawn().unwrap()
    }

    /// Kills it and starts it again.
    pub fn restart(&mut self, extra: &[&str]) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = Self::spawn(&self.dir, &self.endpoint, extra);
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub fn subnet_file(&self) -> PathBuf {
        self.dir.path().join("run/subnet.env")
    }

    pub fn env(&self) -> Option<SubnetEnv> {
        SubnetEnv::read(&self.subnet_file()).unwrap()
    }

    /// Waits for something to become true.
    pub async fn until(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let until = Instant::now() + Duration::from_secs(20);
        while !holds().await {
            assert!(
                Instant::now() < until,
                "{what} did not happen; the log:\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn logged(&self, text: &str) {
        self.until(text, async || self.log().contains(text)).await;
    }

    pub async fn ready(&self) {
        self.until("ready", async || {
            get("/readyz").ends_with("flanneld is ready")
        })
        .await;
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn get(path: &str) -> String {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", PORT)) else {
        return String::new();
    };
    let mut text = String::new();
    let _ = stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes());
    let _ = stream.read_to_string(&mut text);
    text
}

pub fn terminate(child: &mut Child) -> i32 {
    let status = Command::new("kill")
        .arg(child.id().to_string())
        .status()
        .unwrap();
    assert!(status.success());
    child.wait().unwrap().code().expect("ended by a signal")
}

pub fn routes_of(dev: u32) -> Vec<String> {
    let filter = RouteFilter {
        dev: Some(dev),
        table: Some(Route::TABLE_MAIN),
        ipv6: Some(false),
        ..RouteFilter::default()
    };
    Netlink::open()
        .unwrap()
        .routes(filter)
        .unwrap()
        .iter()
        .map(|route| route.dst.to_string())
        .collect()
}
