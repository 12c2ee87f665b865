//! The registrar: claiming, keeping and losing a lease.

use std::sync::Arc;
use std::time::Duration;

use flanneld_rs::config::NetworkConfig;
use flanneld_rs::daemon::registrar::{News, Registrar, Terms};
use flanneld_rs::lease::store::Event;
use flanneld_rs::lease::{Lease, LeaseAttrs, key};
use tokio::sync::{mpsc, watch};

use crate::server::{Etcd, attrs, lease};

const V4: &str = r#"{"Network":"10.3.0.0/16","Backend":{"Type":"vxlan"}}"#;

/// One node's registrar, running.
struct Claimer {
    news: mpsc::Receiver<News>,
    wanted: watch::Sender<LeaseAttrs>,
    task: tokio::task::JoinHandle<()>,
}

fn terms(config: &str) -> Terms {
    Terms {
        config: Arc::new(NetworkConfig::parse(config).unwrap()),
        margin: Duration::from_secs(3600),
        ttl: Duration::from_secs(24 * 3600),
        previous: None,
        published: None,
        metrics: Arc::default(),
    }
}

impl Claimer {
    fn start(etcd: &Etcd, terms: Terms, last: u8) -> Self {
        let (wanted, receiver) = watch::channel(attrs(last));
        let (sender, news) = mpsc::channel(64);
        let task = tokio::spawn(Registrar::new(etcd.store(), terms, receiver, sender).run());
        Self { news, wanted, task }
    }

    async fn next(&mut self) -> News {
        tokio::time::timeout(Duration::from_secs(30), self.news.recv())
            .await
            .expect("no news for 30 s")
            .unwrap()
    }

    /// Skips news until `pick` takes one.
    async fn until<T>(&mut self, pick: impl Fn(&News) -> Option<T>) -> T {
        loop {
            let news = self.next().await;
            if let Some(picked) = pick(&news) {
                return picked;
            }
        }
    }

    async fn own(&mut self) -> Lease {
        self.until(|news| {
            if let News::Own(lease) = news {
                Some(lease.clone())
            } else {
                None
            }
        })
        .await
    }

    async fn lost(&mut self) -> String {
        self.until(|news| {
            if let News::Lost(why) = news {
                Some(why.clone())
            } else {
                None
            }
        })
        .await
    }

    /// Names of the leases in the next listing, and whether data was lost.
    async fn listed(&mut self) -> (Vec<String>, bool) {
        let pick = |news: &News| match news {
            News::Listed { entries, reset } => Some((
                entries
                    .iter()
                    .map(|entry| entry.key.clone())
                    .collect::<Vec<_>>(),
                *reset,
            )),
            _ => None,
        };
        self.until(pick).await
    }

    async fn put_of(&mut self, name: &str) {
        let has = |news: &News| match news {
            News::Changed(events) => events
                .iter()
                .any(|event| matches!(event, Event::Put(entry) if entry.key == name))
                .then_some(()),
            News::Listed { .. } => panic!("listed again"),
            _ => None,
        };
        self.until(has).await;
    }
}

impl Drop for Claimer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn name(lease: &Lease) -> String {
    key::render(&lease.subnet)
}

#[tokio::test]
async fn a_node_gets_a_subnet_and_gets_it_again_after_a_restart() {
    let etcd = Etcd::start().await;
    etcd.put("config", V4).await;
    let mut first = Claimer::start(&etcd, terms(V4), 11);
    let own = first.own().await;
    assert_eq!(own.attrs, attrs(11));
    assert!(
        etcd.get(&format!("subnets/{}", name(&own)))
            .await
            .unwrap()
            .1
            != 0
    );
    assert_eq!(first.listed().await, (vec![], false));
    drop(first);
    let mut again = Claimer::start(&etcd, terms(V4), 11);
    assert_eq!(again.own().await, own);
    assert_eq!(again.listed().await, (vec![name(&own)], false));
}

#[tokio::test]
async fn the_previous_subnet_is_taken_when_the_store_has_forgotten_us() {
    let etcd = Etcd::start().await;
    let previous = key::parse("10.3.200.0-24");
    let mut claimer = Claimer::start(
        &etcd,
        Terms {
            previous,
            ..terms(V4)
        },
        11,
    );
    assert_eq!(Some(claimer.own().await.subnet), previous);
}

#[tokio::test]
async fn two_nodes_racing_for_the_last_two_subnets_always_get_one_each() {
    let etcd = Etcd::start().await;
    let two = r#"{"Network":"10.3.0.0/16","SubnetMax":"10.3.2.0"}"#;
    for round in 0..20 {
        let mut one = Claimer::start(&etcd, terms(two), 11);
        let mut other = Claimer::start(&etcd, terms(two), 12);
        let (one, other) = tokio::join!(one.own(), other.own());
        let mut names = [name(&one), name(&other)];
        names.sort();
        assert_eq!(names, ["10.3.1.0-24", "10.3.2.0-24"], "round {round}");
        for taken in names {
            etcd.delete(&format!("subnets/{taken}")).await;
        }
    }
}

#[tokio::test]
async fn dual_stack_nodes_never_share_a_subnet_of_one_family() {
    let etcd = Etcd::start().await;
    let dual = r#"{"Network":"10.3.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:42::/48","IPv6SubnetMax":"fd00:42:0:2::"}"#;
    for round in 0..10 {
        let mut one = Claimer::start(&etcd, terms(dual), 11);
        let mut other = Claimer::start(&etcd, terms(dual), 12);
        let (a, b) = tokio::join!(one.own(), other.own());
        assert!(
            !a.subnet.overlaps(&b.subnet),
            "round {round}: {} and {}",
            a.subnet,
            b.subnet
        );
        for taken in [a, b] {
            etcd.delete(&format!("subnets/{}", name(&taken))).await;
        }
    }
}

#[tokio::test]
async fn a_lease_is_renewed_before_it_expires() {
    let etcd = Etcd::start().await;
    let ttl = Duration::from_secs(4);
    let mut claimer = Claimer::start(&etcd, Terms { ttl, ..terms(V4) }, 11);
    let own = claimer.own().await;
    let key = format!("subnets/{}", name(&own));
    let first = etcd.get(&key).await.unwrap().1;
    for _ in 0..3 {
        assert_eq!(claimer.own().await, own);
    }
    let now = etcd.get(&key).await.expect("the lease has expired").1;
    assert_ne!(first, now);
}

#[tokio::test]
async fn a_deleted_lease_is_claimed_again_with_the_same_subnet() {
    let etcd = Etcd::start().await;
    let mut claimer = Claimer::start(&etcd, terms(V4), 11);
    let own = claimer.own().await;
    claimer.listed().await;
    etcd.delete(&format!("subnets/{}", name(&own))).await;
    assert!(claimer.lost().await.contains("deleted or has expired"));
    assert_eq!(claimer.own().await, own);
}

#[tokio::test]
async fn a_subnet_that_another_node_has_seized_is_left_to_it() {
    let etcd = Etcd::start().await;
    let mut claimer = Claimer::start(&etcd, terms(V4), 11);
    let own = claimer.own().await;
    claimer.listed().await;
    let seized = format!("subnets/{}", name(&own));
    etcd.put(&seized, r#"{"PublicIP":"192.168.66.77"}"#).await;
    assert!(claimer.lost().await.contains("rewritten"));
    let now = claimer.own().await;
    assert_ne!(now.subnet, own.subnet);
    assert_eq!(
        etcd.get(&seized).await.unwrap().0,
        r#"{"PublicIP":"192.168.66.77"}"#
    );
}

#[tokio::test]
async fn a_reservation_is_used_by_its_node_and_stays_one() {
    let etcd = Etcd::start().await;
    etcd.put("subnets/10.3.9.0-24", r#"{"PublicIP":"192.168.66.11"}"#)
        .await;
    let mut claimer = Claimer::start(&etcd, terms(V4), 11);
    assert_eq!(name(&claimer.own().await), "10.3.9.0-24");
    let (value, id) = etcd.get("subnets/10.3.9.0-24").await.unwrap();
    assert!(value.contains("vxlan"), "{value}");
    assert_eq!(id, 0, "the reservation got an expiry");
}

#[tokio::test]
async fn a_new_address_is_published_under_the_same_key() {
    let etcd = Etcd::start().await;
    let mut claimer = Claimer::start(&etcd, terms(V4), 11);
    let own = claimer.own().await;
    claimer.listed().await;
    claimer.wanted.send_replace(attrs(99));
    let now = claimer.own().await;
    assert_eq!((now.subnet, now.attrs), (own.subnet, attrs(99)));
    drop(claimer);
    // And after a restart with yet another address, thanks to the value remembered.
    let terms = Terms {
        previous: Some(own.subnet),
        published: Some(attrs(99)),
        ..terms(V4)
    };
    let mut again = Claimer::start(&etcd, terms, 55);
    assert_eq!(
        again.own().await,
        Lease {
            subnet: own.subnet,
            attrs: attrs(55)
        }
    );
}

#[tokio::test]
async fn a_full_network_is_waited_for() {
    let etcd = Etcd::start().await;
    let one = r#"{"Network":"10.3.0.0/16","SubnetMax":"10.3.1.0"}"#;
    etcd.put("subnets/10.3.1.0-24", r#"{"PublicIP":"192.168.66.77"}"#)
        .await;
    let mut claimer = Claimer::start(&etcd, terms(one), 11);
    assert!(
        claimer
            .lost()
            .await
            .contains("no free subnet is left in 10.3.0.0/16")
    );
    etcd.delete("subnets/10.3.1.0-24").await;
    assert_eq!(name(&claimer.own().await), "10.3.1.0-24");
}

#[tokio::test]
async fn etcd_may_stop_and_start_without_a_new_listing_or_a_lost_lease() {
    let mut etcd = Etcd::start().await;
    let mut claimer = Claimer::start(&etcd, terms(V4), 11);
    let own = claimer.own().await;
    claimer.listed().await;
    etcd.stop();
    claimer
        .until(|news| matches!(news, News::Store(Err(_))).then_some(()))
        .await;
    etcd.resume();
    etcd.wait().await;
    etcd.put("subnets/10.3.250.0-24", r#"{"PublicIP":"192.168.66.12"}"#)
        .await;
    claimer
        .until(|news| matches!(news, News::Store(Ok(()))).then_some(()))
        .await;
    claimer.put_of("10.3.250.0-24").await;
    assert!(etcd.get(&format!("subnets/{}", name(&own))).await.is_some());
}

#[tokio::test]
async fn history_compacted_while_away_is_made_up_for_by_a_listing() {
    let mut etcd = Etcd::start().await;
    let mut claimer = Claimer::start(&etcd, terms(V4), 11);
    let own = claimer.own().await;
    claimer.listed().await;
    // While these happen, etcd answers at a port that the claimer does not know.
    etcd.stop();
    let known = etcd.move_to_free_port();
    etcd.resume();
    etcd.wait().await;
    for last in [12, 13] {
        etcd.put(
            "subnets/10.3.250.0-24",
            &lease("10.3.250.0-24", last).attrs.to_json(),
        )
        .await;
    }
    etcd.compact().await;
    etcd.stop();
    etcd.move_to(known);
    etcd.resume();
    etcd.wait().await;
    let (names, reset) = claimer.listed().await;
    assert!(
        names.contains(&"10.3.250.0-24".to_owned()) && names.contains(&name(&own)),
        "{names:?}"
    );
    assert!(!reset);
}

#[tokio::test]
async fn a_store_back_without_its_data_gets_our_lease_again_and_says_that_data_was_lost() {
    let mut etcd = Etcd::start().await;
    for i in 0..5 {
        etcd.put("config", &format!("{i}")).await;
    }
    let mut claimer = Claimer::start(&etcd, terms(V4), 11);
    let own = claimer.own().await;
    claimer.listed().await;
    etcd.wipe();
    etcd.resume();
    etcd.wait().await;
    assert!(claimer.lost().await.contains("no longer in the store"));
    assert_eq!(claimer.own().await, own);
    assert!(claimer.listed().await.1, "the loss was not noticed");
    assert!(etcd.get(&format!("subnets/{}", name(&own))).await.is_some());
}

#[tokio::test]
async fn a_store_that_was_away_has_not_lost_data_because_we_hold_no_lease() {
    let mut etcd = Etcd::start().await;
    let one = r#"{"Network":"10.3.0.0/16","SubnetMax":"10.3.1.0"}"#;
    etcd.put("subnets/10.3.1.0-24", r#"{"PublicIP":"192.168.66.77"}"#)
        .await;
    let mut claimer = Claimer::start(&etcd, terms(one), 11);
    assert!(!claimer.listed().await.1);
    etcd.stop();
    claimer
        .until(|news| matches!(news, News::Store(Err(_))).then_some(()))
        .await;
    etcd.resume();
    etcd.wait().await;
    assert_eq!(
        claimer.listed().await,
        (vec!["10.3.1.0-24".to_owned()], false)
    );
}

#[tokio::test]
async fn an_expiry_while_writes_are_refused_is_told_and_counted_once() {
    let etcd = Etcd::start_with("http", &["--quota-backend-bytes=16777216".to_owned()]);
    etcd.wait().await;
    let ttl = Duration::from_secs(4);
    let terms = Terms { ttl, ..terms(V4) };
    let metrics = Arc::clone(&terms.metrics);
    let mut claimer = Claimer::start(&etcd, terms, 11);
    claimer.own().await;
    claimer.listed().await;
    let mut client = etcd.client().await;
    for _ in 0..64 {
        if client.put("big", vec![0; 1 << 20], None).await.is_err() {
            break;
        }
    }
    let why = claimer.lost().await;
    assert!(why.contains("expired"), "{why}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(
        metrics
            .lease_lost
            .load(std::sync::atomic::Ordering::Relaxed),
        1
    );
}
