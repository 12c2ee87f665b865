//! The store alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use flanneld_rs::lease::key;
use flanneld_rs::lease::store::etcd::EtcdStore;
use flanneld_rs::lease::store::{Error, Event, LeaseStore, LeaseWatch};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::server::{Etcd, attrs, lease};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn the_config_is_read_as_it_stands() {
    let etcd = Etcd::start().await;
    let store = etcd.store();
    assert_eq!(store.config().await.unwrap(), None);
    etcd.put("config", "{\"Network\":\"10.3.0.0/16\"}").await;
    assert_eq!(
        store.config().await.unwrap().as_deref(),
        Some("{\"Network\":\"10.3.0.0/16\"}")
    );
}

#[tokio::test]
async fn a_lease_is_stored_as_flannel_stores_it_and_lives_as_long_as_asked() {
    let etcd = Etcd::start().await;
    let store = etcd.store();
    let mine = lease("10.3.7.0-24&fd00:42:0:7::-64", 11);
    let written = store.create(&mine, HOUR).await.unwrap().unwrap();
    assert_eq!(written.ttl, Some(HOUR));
    let (value, id) = etcd
        .get("subnets/10.3.7.0-24&fd00:42:0:7::-64")
        .await
        .unwrap();
    assert_eq!(
        value,
        r#"{"PublicIP":"192.168.66.11","PublicIPv6":null,"BackendType":"vxlan"}"#
    );
    let ttl = etcd
        .client()
        .await
        .lease_time_to_live(id, None)
        .await
        .unwrap();
    assert_eq!(ttl.granted_ttl(), 3600);

    let listing = store.list().await.unwrap();
    assert_eq!(listing.entries.len(), 1);
    let entry = &listing.entries[0];
    assert_eq!((entry.lease.as_ref(), entry.reserved), (Ok(&mine), false));
    assert_eq!(
        (entry.revision, entry.created),
        (written.revision, written.revision)
    );
    let probe = store.probe(&mine.subnet).await.unwrap();
    assert_eq!(
        (probe.store_revision, probe.key_revision),
        (listing.revision, Some(written.revision))
    );
}

#[tokio::test]
async fn writes_are_guarded_and_a_refused_write_leaves_no_etcd_lease_behind() {
    let etcd = Etcd::start().await;
    let store = etcd.store();
    let (mine, other) = (lease("10.3.7.0-24", 11), lease("10.3.7.0-24", 12));
    let first = store.create(&mine, HOUR).await.unwrap().unwrap();
    assert_eq!(store.create(&other, HOUR).await.unwrap(), None);
    let second = store
        .replace(&mine.subnet, first.revision, &attrs(13), Some(HOUR))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        store
            .replace(&mine.subnet, first.revision, &attrs(14), Some(HOUR))
            .await
            .unwrap(),
        None
    );
    assert!(!store.delete(&mine.subnet, first.revision).await.unwrap());
    let (value, id) = etcd.get("subnets/10.3.7.0-24").await.unwrap();
    assert!(value.contains("192.168.66.13"));
    // The first write's lease is left to expire, as flannel does; the two refused ones are revoked.
    let leases = etcd.client().await.leases().await.unwrap();
    assert_eq!(leases.leases().len(), 2, "{leases:?}");
    assert!(leases.leases().iter().any(|lease| lease.id() == id));
    assert!(store.delete(&mine.subnet, second.revision).await.unwrap());
    assert_eq!(store.probe(&mine.subnet).await.unwrap().key_revision, None);
    assert_eq!(
        store
            .replace(&mine.subnet, second.revision, &attrs(14), None)
            .await
            .unwrap(),
        None
    );
}

#[tokio::test]
async fn a_reservation_is_told_and_can_be_rewritten_without_an_expiry() {
    let etcd = Etcd::start().await;
    let store = etcd.store();
    etcd.put("subnets/10.3.7.0-24", r#"{"PublicIP":"192.168.66.11"}"#)
        .await;
    let entry = store.list().await.unwrap().entries.remove(0);
    assert!(entry.reserved);
    let subnet = key::parse("10.3.7.0-24").unwrap();
    let written = store
        .replace(&subnet, entry.revision, &attrs(11), None)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(written.ttl, None);
    assert_eq!(etcd.get("subnets/10.3.7.0-24").await.unwrap().1, 0);
}

#[tokio::test]
async fn a_listing_of_many_pages_is_whole_and_garbage_is_kept_apart() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    for chunk in (0..2500u32).collect::<Vec<_>>().chunks(100) {
        let puts = chunk.iter().map(|i| {
            let (b, c) = (i / 250, i % 250);
            etcd_client::TxnOp::put(
                format!("{}/subnets/10.{b}.{c}.0-24", crate::server::PREFIX),
                r#"{"PublicIP":"1.2.3.4"}"#,
                None,
            )
        });
        client
            .txn(etcd_client::Txn::new().and_then(puts.collect::<Vec<_>>()))
            .await
            .unwrap();
    }
    etcd.put("subnets/10.77.0.0-24", "garbage").await;
    etcd.put("subnets/nonsense", r#"{"PublicIP":"1.2.3.4"}"#)
        .await;
    etcd.put("subnetsx/10.78.0.0-24", r#"{"PublicIP":"1.2.3.4"}"#)
        .await;
    let listing = etcd.store().list().await.unwrap();
    assert_eq!(listing.entries.len(), 2502);
    let bad: Vec<&str> = listing
        .entries
        .iter()
        .filter(|e| e.lease.is_err())
        .map(|e| e.key.as_str())
        .collect();
    assert_eq!(bad, ["10.77.0.0-24", "nonsense"]);
    assert!(
        listing
            .entries
            .iter()
            .find(|e| e.key == "10.77.0.0-24")
            .unwrap()
            .subnet()
            .is_some()
    );
}

#[tokio::test]
async fn a_watch_tells_everything_after_its_revision_and_nothing_before() {
    let etcd = Etcd::start().await;
    let store = etcd.store();
    etcd.put("config", "old").await;
    etcd.put("subnets/10.3.1.0-24", r#"{"PublicIP":"1.2.3.4"}"#)
        .await;
    let listing = store.list().await.unwrap();
    etcd.put("subnets/10.3.2.0-24", r#"{"PublicIP":"1.2.3.5"}"#)
        .await;
    let mut watch = store.watch(listing.revision).await.unwrap();
    etcd.delete("subnets/10.3.1.0-24").await;
    etcd.put("subnets/10.3.3.0-24", "garbage").await;
    etcd.put("config", "new").await;
    etcd.delete("config").await;
    let mut told = Vec::new();
    let mut revision = 0;
    while told.len() < 5 {
        let batch = tokio::time::timeout(Duration::from_secs(5), watch.next())
            .await
            .unwrap()
            .unwrap();
        revision = revision.max(batch.revision);
        told.extend(batch.events.into_iter().map(|event| match event {
            Event::Put(entry) => format!("put {} {}", entry.key, entry.lease.is_ok()),
            Event::Delete { key } => format!("delete {key}"),
            Event::Config(text) => format!("config {text:?}"),
        }));
    }
    // The two watches of the stream may overtake each other.
    told.sort();
    let wanted = [
        "config None",
        "config Some(\"new\")",
        "delete 10.3.1.0-24",
        "put 10.3.2.0-24 true",
        "put 10.3.3.0-24 false",
    ];
    assert_eq!(told, wanted);
    assert_eq!(revision, listing.revision + 3);
}

#[tokio::test]
async fn a_compacted_revision_is_told_apart_from_other_failures() {
    let etcd = Etcd::start().await;
    let store = etcd.store();
    let revision = store.list().await.unwrap().revision;
    for value in ["1", "2", "3"] {
        etcd.put("subnets/10.3.1.0-24", value).await;
    }
    etcd.compact().await;
    let mut watch = store.watch(revision).await.unwrap();
    let error = loop {
        match tokio::time::timeout(Duration::from_secs(5), watch.next())
            .await
            .unwrap()
        {
            Ok(batch) => assert!(batch.events.is_empty(), "{batch:?}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Compacted(_)), "{error:?}");
}

#[tokio::test]
async fn a_dead_endpoint_is_passed_over_and_named_without_its_password() {
    let etcd = Etcd::start().await;
    let mut access = etcd.access();
    access
        .endpoints
        .insert(0, "http://me:sesame@127.0.0.1:1".to_owned());
    let store = EtcdStore::new(access, Arc::default());
    assert_eq!(store.config().await.unwrap(), None);
    assert_eq!(store.config().await.unwrap(), None);

    let mut access = etcd.access();
    access.endpoints = vec![
        "http://me:sesame@127.0.0.1:1".to_owned(),
        "http://127.0.0.1:2".to_owned(),
    ];
    let store = EtcdStore::new(access, Arc::default());
    let error = store.config().await.unwrap_err().to_string();
    for wanted in ["127.0.0.1:1", "127.0.0.1:2", "refused"] {
        assert!(error.to_lowercase().contains(wanted), "{error}");
    }
    assert!(!error.contains("sesame"), "{error}");
}

/// Passes everything on, except what etcd says on a connection after a lease was written on it.
async fn forgetful_proxy(to: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&to).await.unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            let mute = Arc::new(AtomicBool::new(false));
            let muted = Arc::clone(&mute);
            tokio::spawn(async move {
                let mut buffer = vec![0; 65536];
                while let Ok(n @ 1..) = from_client.read(&mut buffer).await {
                    let written = buffer[..n].windows(8).any(|window| window == b"PublicIP");
                    mute.fetch_or(written, Relaxed);
                    to_server.write_all(&buffer[..n]).await.unwrap();
                }
            });
            tokio::spawn(async move {
                let mut buffer = vec![0; 65536];
                while let Ok(n @ 1..) = from_server.read(&mut buffer).await {
                    if !muted.load(Relaxed) && to_client.write_all(&buffer[..n]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    at
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_keeps_its_key() {
    let etcd = Etcd::start().await;
    let mut access = etcd.access();
    let to = etcd.endpoint().trim_start_matches("http://").to_owned();
    access.endpoints = vec![forgetful_proxy(to).await];
    let store = EtcdStore::new(access, Arc::default());
    let error = store
        .create(&lease("10.3.7.0-24", 11), HOUR)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    let (_, id) = etcd.get("subnets/10.3.7.0-24").await.expect("key is gone");
    assert_ne!(id, 0);
    // The endpoint answers again, so a revocation would have got through.
    assert_eq!(store.list().await.unwrap().entries.len(), 1);
}

#[tokio::test]
async fn a_full_etcd_refuses_writes_and_can_still_be_followed() {
    let etcd = Etcd::start_with("http", &["--quota-backend-bytes=16777216".to_owned()]);
    etcd.wait().await;
    let mut client = etcd.client().await;
    let big = vec![0; 1 << 20];
    for _ in 0..64 {
        if client.put("big", big.clone(), None).await.is_err() {
            break;
        }
    }
    let store = etcd.store();
    let error = store
        .create(&lease("10.3.7.0-24", 11), HOUR)
        .await
        .unwrap_err();
    assert!(
        matches!(&error, Error::Refused(why) if why.contains("space")),
        "{error:?}"
    );
    let revision = store.list().await.unwrap().revision;
    assert!(store.watch(revision).await.is_ok());
}
