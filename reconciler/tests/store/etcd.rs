//! What only etcd can do to a store: go away, be shared, be full, ask who one is.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::sys::signal::Signal;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reconciler::store::etcd::{Access, Etcd, Secret};
use reconciler::store::{self, Credentials, Error, Range, Store};

use super::fixture::{self, batch, events, silent};
use super::process;

const PODS: &str = "/registry/pods/";
const WEB: &str = "/registry/pods/default/web";

fn connect(etcd: &process::Etcd) -> Arc<dyn Store> {
    fixture::Etcd::connect(etcd)
}

fn access(etcd: &process::Etcd) -> Access {
    Access {
        endpoints: vec![etcd.url()],
        ..Access::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_outlives_etcd() {
    let mut etcd = process::Etcd::start(&[]).await;
    let store = connect(&etcd);
    let mut last = store.create(WEB, Bytes::new()).await.unwrap();
    let mut watch = store.watch(PODS, 0).await.unwrap();
    assert_eq!(events(&mut watch, 1).await[0].revision, last);
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        etcd.stop(signal);
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(etcd.resume().await);
        // Another handle may write before this one has found etcd again.
        let other = connect(&etcd);
        last = other
            .update(WEB, Bytes::from_static(b"x"), last)
            .await
            .unwrap();
        let event = events(&mut watch, 1).await.remove(0);
        assert_eq!(event.revision, last);
        silent(&mut watch).await;
        assert_eq!(store.get(WEB).await.unwrap().unwrap().revision, last);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_has_no_gap_when_etcd_compacts_while_away() {
    let mut etcd = process::Etcd::start(&[]).await;
    let store = connect(&etcd);
    let mut last = store.create(WEB, Bytes::new()).await.unwrap();
    let mut watch = store.watch(PODS, last).await.unwrap();
    etcd.stop(Signal::SIGKILL);
    // Long enough for the watch to look only now and then.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(etcd.resume().await);
    let other = connect(&etcd);
    let begin = last;
    for _ in 0..5 {
        last = other.update(WEB, Bytes::new(), last).await.unwrap();
    }
    other.compact(last).await.unwrap();
    let mut seen = begin;
    while seen < last {
        match watch.recv().await.expect("it goes on or says why not") {
            Ok(events) => {
                for event in events {
                    assert_eq!(event.revision, seen + 1, "a gap");
                    seen = event.revision;
                }
            }
            Err(Error::Compacted { asked, oldest }) => {
                assert_eq!((asked, oldest), (seen, last));
                break;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_etcd_an_answer_comes_in_time() {
    let mut etcd = process::Etcd::start(&[]).await;
    let store = connect(&etcd);
    let revision = store.create(WEB, Bytes::new()).await.unwrap();
    for stopped in [false, true] {
        if stopped {
            etcd.stop(Signal::SIGKILL);
        } else {
            // Nothing is refused, nothing is answered.
            etcd.signal(Signal::SIGSTOP);
        }
        let begin = Instant::now();
        let errors = tokio::join!(
            async { store.get(WEB).await.unwrap_err() },
            async { store.update(WEB, Bytes::new(), revision).await.unwrap_err() },
            async { store.list(Range::default()).await.unwrap_err() },
            async { store.watch(PODS, 0).await.unwrap_err() },
        );
        for error in [errors.0, errors.1, errors.2, errors.3] {
            let Error::Away(text) = error else {
                panic!("{error:?}");
            };
            assert!(text.contains(&etcd.url()), "{text}");
        }
        assert!(
            begin.elapsed() < Duration::from_secs(8),
            "{:?}",
            begin.elapsed()
        );
    }
    assert!(etcd.resume().await);
    let now = store.get(WEB).await.unwrap().unwrap();
    store.delete(WEB, now.revision).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_share_one_etcd_with_strangers() {
    let etcd = process::Etcd::start(&[]).await;
    let (one, two) = (connect(&etcd), connect(&etcd));
    let mut watch = two
        .watch(PODS, one.revision().await.unwrap())
        .await
        .unwrap();
    let first = one.create(WEB, Bytes::from_static(b"one")).await.unwrap();
    let refused = two
        .create(WEB, Bytes::from_static(b"two"))
        .await
        .unwrap_err();
    assert!(matches!(refused, Error::Exists(_)), "{refused:?}");
    // Another program, and a key that is no text.
    let mut stranger = etcd_client::Client::connect([etcd.url()], None)
        .await
        .unwrap();
    stranger.put("elsewhere", "x", None).await.unwrap();
    stranger
        .put(b"/registry/odd/\xff".to_vec(), "x", None)
        .await
        .unwrap();
    let second = two
        .update(WEB, Bytes::from_static(b"two"), first)
        .await
        .unwrap();
    assert_eq!(second, first + 3);
    let stale = one.update(WEB, Bytes::new(), first).await.unwrap_err();
    assert!(matches!(stale, Error::Changed { now: Some(now), .. } if now.revision == second));
    let seen: Vec<_> = events(&mut watch, 2)
        .await
        .iter()
        .map(|event| event.revision)
        .collect();
    assert_eq!(seen, [first, second]);
    let odd = Range {
        prefix: "/registry/odd/".to_owned(),
        ..Range::default()
    };
    let error = one.list(odd).await.unwrap_err();
    assert!(
        matches!(&error, Error::Broken(text) if text.contains("etcdctl del")),
        "{error:?}"
    );
    // Two keys in one transaction have one revision, and come in one batch.
    let puts =
        ["a", "b"].map(|name| etcd_client::TxnOp::put(format!("{PODS}default/{name}"), "x", None));
    stranger
        .txn(etcd_client::Txn::new().and_then(puts))
        .await
        .unwrap();
    let both = batch(&mut watch).await;
    assert_eq!(both.len(), 2);
    assert_eq!(both[0].revision, both[1].revision);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_endpoint_is_passed_over() {
    let etcd = process::Etcd::start(&[]).await;
    let dead = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let spec = format!("etcd://{dead},{}", etcd.address());
    let none = Path::new("/nonexistent");
    let store = store::open(&spec, none, Credentials::default()).unwrap();
    // A write, which is not tried twice if it may have arrived.
    let revision = store.create(WEB, Bytes::new()).await.unwrap();
    assert_eq!(store.get(WEB).await.unwrap().unwrap().revision, revision);
    let Err(error) = store::open("etcd:/nothing", none, Credentials::default()) else {
        panic!("it opens");
    };
    assert!(error.to_string().contains("etcd://HOST:PORT"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_has_a_quota() {
    let etcd = process::Etcd::start(&["--quota-backend-bytes=6000000"]).await;
    let store = connect(&etcd);
    // etcd's limit for a request, and gRPC's.
    for size in [1_600_000, 2 << 20] {
        let large = Bytes::from(vec![0; size]);
        let error = store.create(WEB, large).await.unwrap_err();
        assert!(
            matches!(&error, Error::Full(text) if text.contains(WEB)),
            "{error:?}"
        );
    }
    for n in 0..50 {
        match store
            .create(
                &format!("{PODS}default/p{n}"),
                Bytes::from(vec![0; 1 << 20]),
            )
            .await
        {
            Ok(_) => {}
            Err(Error::Full(text)) => {
                assert!(text.contains("quota"), "{text}");
                assert!(
                    store
                        .get(&format!("{PODS}default/p0"))
                        .await
                        .unwrap()
                        .is_some()
                );
                return;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    panic!("no quota");
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_asks_for_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let issuer = || {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    };
    let (ca, stranger) = (issuer(), issuer());
    let signed = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let cert = params.signed_by(&key, &ca).unwrap();
        (cert.pem(), key.serialize_pem())
    };
    let (server, server_key) = signed("127.0.0.1");
    let (client, client_key) = signed("weft");
    let ca_file = write("ca.crt", ca.pem());
    let option = |name: &str, path: &Path| format!("--{name}={}", path.display());
    let options = [
        option("cert-file", &write("server.crt", server)),
        option("key-file", &write("server.key", server_key)),
        option("trusted-ca-file", &ca_file),
        "--client-cert-auth".to_owned(),
    ];
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let etcd = process::Etcd::start(&options).await;
    let spec = format!("etcds://{}", etcd.address());
    let good = Credentials {
        ca_file: Some(ca_file.clone()),
        cert_file: Some(write("client.crt", client)),
        key_file: Some(write("client.key", client_key)),
        user: None,
    };
    let open = |credentials| store::open(&spec, folder.path(), credentials);
    let store = open(good.clone()).unwrap();
    let mut watch = store.watch(PODS, 0).await.unwrap();
    let revision = store.create(WEB, Bytes::new()).await.unwrap();
    assert_eq!(events(&mut watch, 1).await[0].revision, revision);

    let wrong = write("other.crt", stranger.pem());
    let wrong = open(Credentials {
        ca_file: Some(wrong),
        ..good.clone()
    })
    .unwrap();
    let error = wrong.get(WEB).await.unwrap_err();
    assert!(
        matches!(&error, Error::Away(text) if text.contains("certificate")),
        "{error:?}"
    );
    let bare = open(Credentials {
        ca_file: Some(ca_file),
        ..Credentials::default()
    })
    .unwrap();
    let error = bare.get(WEB).await.unwrap_err();
    assert!(matches!(&error, Error::Away(_)), "{error:?}");
    let missing = folder.path().join("none.crt");
    let missing = open(Credentials {
        ca_file: Some(missing),
        ..good.clone()
    })
    .unwrap();
    let error = missing.get(WEB).await.unwrap_err();
    assert!(
        matches!(&error, Error::Broken(text) if text.contains("none.crt")),
        "{error:?}"
    );
    assert!(
        open(Credentials {
            key_file: None,
            ..good
        })
        .is_err()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_asks_for_a_user() {
    let etcd = process::Etcd::start(&[]).await;
    let mut admin = etcd_client::Client::connect([etcd.url()], None)
        .await
        .unwrap();
    admin.user_add("root", "sesame", None).await.unwrap();
    admin.user_grant_role("root", "root").await.unwrap();
    admin.auth_enable().await.unwrap();
    let user = |password: &str| {
        let user = Some(("root".to_owned(), Secret::new(password)));
        Etcd::new(Access {
            user,
            ..access(&etcd)
        })
        .unwrap()
    };
    let store = user("sesame");
    let mut watch = store.watch(PODS, 0).await.unwrap();
    let revision = store.create(WEB, Bytes::new()).await.unwrap();
    assert_eq!(events(&mut watch, 1).await[0].revision, revision);
    for wrong in [user("open"), Etcd::new(access(&etcd)).unwrap()] {
        let error = wrong.get(WEB).await.unwrap_err();
        assert!(
            matches!(&error, Error::Broken(text) if text.contains("user")),
            "{error:?}"
        );
        assert!(!error.to_string().contains("sesame"), "{error}");
    }
    assert!(
        !format!(
            "{:?}",
            Access {
                user: Some((String::new(), Secret::new("sesame"))),
                ..access(&etcd)
            }
        )
        .contains("sesame")
    );
}
