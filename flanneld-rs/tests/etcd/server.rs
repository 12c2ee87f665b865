//! One etcd server for one test.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use etcd_client::Client;
use flanneld_rs::lease::store::etcd::{Access, EtcdStore};
use flanneld_rs::lease::{Lease, LeaseAttrs, key};

/// The prefix all tests use.
pub const PREFIX: &str = "/weft/network";

/// Killed and its data removed when dropped; it also dies with the test's thread.
pub struct Etcd {
    child: Option<Child>,
    dir: tempfile::TempDir,
    client_port: u16,
    peer_port: u16,
    extra: Vec<String>,
    scheme: &'static str,
}

impl Etcd {
    /// Starts one and waits until it answers.
    pub async fn start() -> Self {
        let etcd = Self::start_with("http", &[]);
        etcd.wait().await;
        etcd
    }

    /// Starts one with more options; the caller knows how to reach it.
    pub fn start_with(scheme: &'static str, extra: &[String]) -> Self {
        let mut etcd = Self {
            child: None,
            dir: tempfile::tempdir().unwrap(),
            client_port: free_port(),
            peer_port: free_port(),
            extra: extra.to_vec(),
            scheme,
        };
        etcd.resume();
        etcd
    }

    /// Starts it again on the same ports and data.
    pub fn resume(&mut self) {
        let client = self.endpoint();
        let peer = format!("http://127.0.0.1:{}", self.peer_port);
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        let child = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "etcd",
                "--name",
                "test",
                "--data-dir",
            ])
            .arg(self.dir.path().join("data"))
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args(["--initial-cluster", &format!("test={peer}")])
            .args([
                "--heartbeat-interval",
                "40",
                "--election-timeout",
                "200",
                "--logger",
                "zap",
            ])
            .args(&self.extra)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("start etcd: install etcd-server and util-linux");
        self.child = Some(child);
    }

    /// Kills it; the data stays.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            child.wait().unwrap();
        }
    }

    /// Throws the data away, as after a disk failure.
    pub fn wipe(&mut self) {
        self.stop();
        std::fs::remove_dir_all(self.dir.path().join("data")).unwrap();
    }

    /// From the next start it listens elsewhere; returns the port it had.
    pub fn move_to_free_port(&mut self) -> u16 {
        std::mem::replace(&mut self.client_port, free_port())
    }

    /// From the next start it listens there.
    pub fn move_to(&mut self, port: u16) {
        self.client_port = port;
    }

    pub fn endpoint(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.client_port)
    }

    /// How flanneld reaches it.
    pub fn access(&self) -> Access {
        Access {
            endpoints: vec![self.endpoint()],
            prefix: PREFIX.to_owned(),
            ..Access::default()
        }
    }

    pub fn store(&self) -> EtcdStore {
        EtcdStore::new(self.access(), Arc::default())
    }

    /// A client that knows nothing of flannel.
    pub async fn client(&self) -> Client {
        Client::connect([self.endpoint()], None).await.unwrap()
    }

    /// Waits until it has a leader.
    pub async fn wait(&self) {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            if let Ok(mut client) = Client::connect([self.endpoint()], None).await
                && tokio::time::timeout(Duration::from_secs(1), client.get("x", None))
                    .await
                    .is_ok_and(|r| r.is_ok())
            {
                return;
            }
            let log = || std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < until, "etcd does not answer:\n{}", log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn put(&self, key: &str, value: &str) {
        self.client()
            .await
            .put(format!("{PREFIX}/{key}"), value, None)
            .await
            .unwrap();
    }

    pub async fn delete(&self, key: &str) {
        self.client()
            .await
            .delete(format!("{PREFIX}/{key}"), None)
            .await
            .unwrap();
    }

    /// Value and lease number of a key.
    pub async fn get(&self, key: &str) -> Option<(String, i64)> {
        let response = self
            .client()
            .await
            .get(format!("{PREFIX}/{key}"), None)
            .await
            .unwrap();
        response
            .kvs()
            .first()
            .map(|kv| (kv.value_str().unwrap().to_owned(), kv.lease()))
    }

    /// Compacts all history away.
    pub async fn compact(&self) {
        let mut client = self.client().await;
        let now = client
            .get("x", None)
            .await
            .unwrap()
            .header()
            .unwrap()
            .revision();
        client.compact(now, None).await.unwrap();
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.stop();
    }
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A vxlan lease of the node 192.168.66.`last`.
pub fn lease(name: &str, last: u8) -> Lease {
    Lease {
        subnet: key::parse(name).unwrap(),
        attrs: attrs(last),
    }
}

/// Its attributes.
pub fn attrs(last: u8) -> LeaseAttrs {
    LeaseAttrs {
        public_ip: Some([192, 168, 66, last].into()),
        backend_type: "vxlan".to_owned(),
        ..LeaseAttrs::default()
    }
}
