//! TLS, users and passwords.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flanneld_rs::lease::store::etcd::{Access, EtcdStore, Secret};
use flanneld_rs::lease::store::{Error, LeaseStore};

use crate::server::{Etcd, PREFIX, lease};

/// A certificate authority in a folder of its own.
struct Authority(tempfile::TempDir);

impl Authority {
    fn new() -> Self {
        let this = Self(tempfile::tempdir().unwrap());
        this.openssl("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test-ca -keyout ca.key -out ca.crt");
        this
    }

    fn openssl(&self, args: &str) {
        let output = Command::new("openssl")
            .args(args.split(' '))
            .current_dir(self.0.path())
            .output();
        let output = output.expect("run openssl: install openssl");
        assert!(
            output.status.success(),
            "openssl {args}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn issue(&self, name: &str) {
        std::fs::write(
            self.0.path().join("ext"),
            "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n",
        )
        .unwrap();
        self.openssl(&format!(
            "req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"
        ));
        self.openssl(&format!("x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out {name}.crt"));
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Waits until `store` answers at all, be it with a refusal.
async fn answer(store: &EtcdStore) -> Result<Option<String>, Error> {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        match store.config().await {
            Err(Error::Unavailable(_)) if Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(100)).await
            }
            result => return result,
        }
    }
}

#[tokio::test]
async fn mutual_tls_works_and_neither_side_talks_to_a_stranger() {
    let (ours, strangers) = (Authority::new(), Authority::new());
    ours.issue("server");
    ours.issue("client");
    strangers.issue("client");
    let options = [
        "--client-cert-auth",
        "--trusted-ca-file",
        &text(&ours.path("ca.crt")),
        "--cert-file",
        &text(&ours.path("server.crt")),
        "--key-file",
        &text(&ours.path("server.key")),
    ];
    let etcd = Etcd::start_with("https", &options.map(str::to_owned));
    let access = |ca: &Authority, client: &Authority| Access {
        ca_file: Some(ca.path("ca.crt")),
        cert_file: Some(client.path("client.crt")),
        key_file: Some(client.path("client.key")),
        ..etcd.access()
    };
    let store = |access: Access| EtcdStore::new(access, Arc::default());
    let good = store(access(&ours, &ours));
    assert_eq!(answer(&good).await, Ok(None));
    good.create(&lease("10.3.7.0-24", 11), Duration::from_secs(60))
        .await
        .unwrap()
        .unwrap();
    let mut watch = good.watch(0).await.unwrap();
    let batch = flanneld_rs::lease::store::LeaseWatch::next(&mut watch)
        .await
        .unwrap();
    assert!(batch.events.len() <= 1);

    for (bad, what) in [
        (access(&strangers, &ours), "unknown server"),
        (access(&ours, &strangers), "unknown client"),
    ] {
        let error = store(bad).config().await.expect_err(what);
        assert!(matches!(error, Error::Unavailable(_)), "{what}: {error}");
    }
    let missing = store(Access {
        ca_file: Some("/no/such/ca".into()),
        ..access(&ours, &ours)
    });
    assert!(
        missing
            .config()
            .await
            .unwrap_err()
            .to_string()
            .contains("read /no/such/ca")
    );
}

/// An etcd that asks for a password.
async fn guarded() -> Etcd {
    let etcd = Etcd::start().await;
    etcd.put(
        "config",
        r#"{"Network":"10.3.0.0/16","Backend":{"Type":"alloc"}}"#,
    )
    .await;
    let mut client = etcd.client().await;
    client.user_add("root", "root-sesame", None).await.unwrap();
    client.role_add("root").await.unwrap();
    client.user_grant_role("root", "root").await.unwrap();
    client.role_add("flannel").await.unwrap();
    let range = etcd_client::Permission::read_write(format!("{PREFIX}/")).with_prefix();
    client
        .role_grant_permission("flannel", range)
        .await
        .unwrap();
    client
        .user_add("flannel", "open-sesame", None)
        .await
        .unwrap();
    client.user_grant_role("flannel", "flannel").await.unwrap();
    client.auth_enable().await.unwrap();
    etcd
}

#[tokio::test]
async fn a_user_with_rights_on_the_prefix_alone_can_do_everything() {
    let etcd = guarded().await;
    let access = Access {
        username: "flannel".to_owned(),
        password: Secret::new("open-sesame"),
        ..etcd.access()
    };
    let store = EtcdStore::new(access, Arc::default());
    assert!(store.config().await.unwrap().is_some());
    let mine = lease("10.3.7.0-24", 11);
    let written = store
        .create(&mine, Duration::from_secs(60))
        .await
        .unwrap()
        .unwrap();
    let written = store
        .replace(
            &mine.subnet,
            written.revision,
            &mine.attrs,
            Some(Duration::from_secs(60)),
        )
        .await
        .unwrap()
        .unwrap();
    assert_eq!(store.list().await.unwrap().entries.len(), 1);
    let mut watch = store.watch(written.revision - 1).await.unwrap();
    let seen = async {
        loop {
            let batch = flanneld_rs::lease::store::LeaseWatch::next(&mut watch)
                .await
                .unwrap();
            if !batch.events.is_empty() {
                return batch.events.len();
            }
        }
    };
    assert_eq!(
        tokio::time::timeout(Duration::from_secs(5), seen)
            .await
            .unwrap(),
        1
    );
    assert!(store.delete(&mine.subnet, written.revision).await.unwrap());

    let stranger = EtcdStore::new(etcd.access(), Arc::default());
    let error = stranger.config().await.unwrap_err();
    assert!(matches!(error, Error::Refused(_)), "{error:?}");
}

#[tokio::test]
async fn the_password_is_in_no_log_at_any_level() {
    let etcd = guarded().await;
    let dir = tempfile::tempdir().unwrap();
    for password in ["open-sesame", "wrong-sesame"] {
        let endpoints = format!("{},http://flannel:{password}@127.0.0.1:1", etcd.endpoint());
        let output = Command::new(env!("CARGO_BIN_EXE_flanneld-rs"))
            .args([
                "--dry-run",
                "-v=10",
                "--iface=lo",
                "--etcd-username=flannel",
                "--etcd-prefix",
                PREFIX,
            ])
            .args(["--etcd-endpoints", &endpoints])
            .args(["--subnet-file", &text(&dir.path().join("subnet.env"))])
            .env("FLANNELD_ETCD_PASSWORD", password)
            .output()
            .unwrap();
        let (out, log) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert_eq!(
            output.status.success(),
            password == "open-sesame",
            "{out}{log}"
        );
        assert!(
            !out.contains("sesame") && !log.contains("sesame"),
            "{out}{log}"
        );
    }
}
