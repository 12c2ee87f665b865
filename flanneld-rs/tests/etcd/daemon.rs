//! The daemon as a process, in a network namespace of its own together with its etcd. Needs root.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use kernel::{Address, Change, Netlink, RouteFilter, SetLink};

use crate::node::{Daemon, get, in_a_node, routes_of, terminate};
use crate::server::{Etcd, lease};

const ALLOC: &str = r#"{"Network":"10.3.0.0/16","Backend":{"Type":"alloc"}}"#;
const VXLAN: &str = r#"{"Network":"10.3.0.0/16","Backend":{"Type":"vxlan"}}"#;
#[test]
fn it_waits_for_etcd_and_for_a_usable_config_and_says_so_once_each() {
    in_a_node(|| async {
        let mut etcd = Etcd::start().await;
        etcd.stop();
        let daemon = Daemon::start(&etcd, &[]);
        daemon.logged("the lease store does not answer").await;
        assert!(get("/healthz").ends_with("flanneld is running"));
        assert!(
            get("/readyz").starts_with("HTTP/1.0 503"),
            "{}",
            get("/readyz")
        );
        tokio::time::sleep(Duration::from_millis(2500)).await;
        etcd.resume();
        etcd.wait().await;
        daemon.logged("no network configuration").await;
        etcd.put("config", r#"{"Network":"10.3.0.0/29"}"#).await;
        daemon.logged("Minimum useful network prefix is /28").await;
        assert_eq!(daemon.log().lines().count(), 3, "{}", daemon.log());
        assert_eq!(daemon.env(), None);
        etcd.put("config", ALLOC).await;
        daemon.ready().await;
        assert!(daemon.env().unwrap().subnet.is_some());
    });
}

#[test]
fn it_tells_systemd_keeps_its_subnet_over_a_kill_and_ends_with_0_leaving_everything() {
    in_a_node(|| async {
        let etcd = Etcd::start().await;
        etcd.put("config", ALLOC).await;
        let mut daemon = Daemon::start(&etcd, &["--ip-masq"]);
        let notify = UnixDatagram::bind(daemon.dir.path().join("notify")).unwrap();
        notify
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut buffer = [0; 64];
        let n = notify
            .recv(&mut buffer)
            .unwrap_or_else(|e| panic!("no readiness: {e}\n{}", daemon.log()));
        assert_eq!(&buffer[..n], b"READY=1");
        daemon.ready().await;
        let env = daemon.env().unwrap();
        assert!(env.masquerade && env.mtu == Some(1500), "{env:?}");

        daemon.restart(&["--ip-masq"]);
        daemon.ready().await;
        assert_eq!(daemon.env().unwrap(), env);
        assert!(
            get("/metrics").contains("\nflanneld_leases 1\n"),
            "{}",
            get("/metrics")
        );

        assert_eq!(terminate(&mut daemon.child), 0);
        assert_eq!(daemon.env().unwrap(), env);
        let net = env.subnet.unwrap().v4.unwrap();
        assert!(
            etcd.get(&format!("subnets/{}-24", net.addr()))
                .await
                .is_some()
        );
    });
}

#[test]
fn it_goes_on_through_a_changed_config_a_stopped_etcd_and_lost_data() {
    in_a_node(|| async {
        let mut etcd = Etcd::start().await;
        etcd.put("config", ALLOC).await;
        let daemon = Daemon::start(&etcd, &[]);
        daemon.ready().await;
        let env = daemon.env().unwrap();
        let key = format!("subnets/{}-24", env.subnet.unwrap().v4.unwrap().addr());

        etcd.put("config", "garbage").await;
        daemon
            .logged("running on with the configuration read at start")
            .await;
        etcd.put("config", VXLAN).await;
        daemon
            .logged("takes effect when this daemon is restarted")
            .await;
        etcd.delete("config").await;
        daemon.logged("gone from the store").await;
        assert!(get("/readyz").ends_with("flanneld is ready"));

        etcd.stop();
        daemon
            .until("not ready without etcd", async || {
                get("/readyz").contains("Store:")
            })
            .await;
        etcd.resume();
        etcd.wait().await;
        daemon.ready().await;

        etcd.wipe();
        etcd.resume();
        etcd.wait().await;
        daemon.logged("has lost data").await;
        let back = async || etcd.get(&key).await.is_some();
        daemon.until("lease written again", back).await;
        daemon.ready().await;
        assert_eq!(daemon.env().unwrap(), env);
    });
}

#[test]
fn vxlan_peers_are_served_beside_garbage_and_what_is_deleted_comes_back() {
    in_a_node(|| async {
        let etcd = Etcd::start().await;
        etcd.put("config", VXLAN).await;
        let peer = |last: u8, mac: &str| {
            let data = format!(r#""BackendData":{{"VNI":1,"VtepMAC":"{mac}"}}}}"#);
            lease("10.3.250.0-24", last)
                .attrs
                .to_json()
                .replace('}', ",")
                + &data
        };
        etcd.put("subnets/10.3.250.0-24", &peer(12, "aa:bb:cc:dd:ee:01"))
            .await;
        etcd.put("subnets/10.3.251.0-24", "{garbage").await;
        let daemon = Daemon::start(&etcd, &[]);
        daemon.ready().await;
        let mut netlink = Netlink::open().unwrap();
        let device = |netlink: &mut Netlink| netlink.link("flannel.1").unwrap();
        let index = device(&mut netlink).unwrap().index;
        assert_eq!(routes_of(index), ["10.3.250.0/24"]);
        assert_eq!(
            daemon
                .log()
                .matches("lease 10.3.251.0-24 is ignored")
                .count(),
            1,
            "{}",
            daemon.log()
        );
        assert!(get("/metrics").contains("\nflanneld_ignored_leases 1\n"));

        let route = netlink
            .routes(RouteFilter {
                dev: Some(index),
                ..RouteFilter::default()
            })
            .unwrap();
        let route = route
            .into_iter()
            .find(|route| route.dst.to_string() == "10.3.250.0/24")
            .unwrap();
        netlink.apply(&Change::DeleteRoute(route)).unwrap();
        daemon
            .until("route healed", async || {
                routes_of(index) == ["10.3.250.0/24"]
            })
            .await;

        let mac = device(&mut netlink).unwrap().mac;
        netlink
            .apply(&Change::DeleteLink {
                index,
                name: "flannel.1".to_owned(),
            })
            .unwrap();
        let healed = async || {
            device(&mut Netlink::open().unwrap())
                .is_some_and(|d| d.mac == mac && routes_of(d.index).len() == 1)
        };
        daemon.until("device healed", healed).await;

        etcd.put(
            "subnets/10.3.252.0-24",
            &peer(13, "aa:bb:cc:dd:ee:02").replace("250", "252"),
        )
        .await;
        let two = async || {
            device(&mut Netlink::open().unwrap()).is_some_and(|d| routes_of(d.index).len() == 2)
        };
        daemon.until("second peer", two).await;
        let looks = || {
            let page = get("/metrics");
            let wanted = |line: &&str| line.contains("trigger=\"event\"");
            page.lines().find(wanted).unwrap().to_owned()
        };
        // The looks that the changes above have caused come to their end, IPv6's duplicate address
        // detection on new devices included.
        let mut before = looks();
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let now = looks();
            if std::mem::replace(&mut before, now) == before {
                break;
            }
        }
        etcd.delete("subnets/10.3.250.0-24").await;
        let one = async || {
            device(&mut Netlink::open().unwrap())
                .is_some_and(|d| routes_of(d.index) == ["10.3.252.0/24"])
        };
        daemon.until("first peer gone", one).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(looks(), before, "our own deletions came back to us");

        let clean = Daemon::command(&daemon.dir, &daemon.endpoint)
            .arg("cleanup")
            .output()
            .unwrap();
        assert!(clean.status.success(), "{clean:?}");
        drop(daemon);
    });
}

#[test]
fn a_changed_address_and_mtu_are_followed_and_the_subnet_is_kept() {
    in_a_node(|| async {
        let etcd = Etcd::start().await;
        etcd.put("config", VXLAN).await;
        let mut daemon = Daemon::start(&etcd, &["--iface=eth0"]);
        daemon.ready().await;
        let env = daemon.env().unwrap();
        let key = format!("subnets/{}-24", env.subnet.unwrap().v4.unwrap().addr());
        let mut netlink = Netlink::open().unwrap();
        let eth0 = netlink.expect_link("eth0").unwrap().index;
        let address =
            |last: u8| Address::new(eth0, format!("192.168.66.{last}/24").parse().unwrap());
        netlink.apply(&Change::DeleteAddress(address(11))).unwrap();
        netlink.apply(&Change::AddAddress(address(99))).unwrap();
        let published = async || {
            etcd.get(&key)
                .await
                .is_some_and(|(value, _)| value.contains("192.168.66.99"))
        };
        daemon.until("new address published", published).await;

        netlink
            .apply(&Change::SetLink(SetLink {
                mtu: Some(1400),
                index: eth0,
                ..SetLink::default()
            }))
            .unwrap();
        daemon
            .until("new MTU", async || {
                daemon.env().is_some_and(|env| env.mtu == Some(1350))
            })
            .await;
        assert_eq!(daemon.env().unwrap().subnet, env.subnet);

        // Down while the address changes once more: the record tells that the lease is ours.
        daemon.child.kill().unwrap();
        daemon.child.wait().unwrap();
        netlink.apply(&Change::DeleteAddress(address(99))).unwrap();
        netlink.apply(&Change::AddAddress(address(77))).unwrap();
        daemon.child = Daemon::spawn(&daemon.dir, &daemon.endpoint, &["--iface=eth0"]);
        let published = async || {
            etcd.get(&key)
                .await
                .is_some_and(|(value, _)| value.contains("192.168.66.77"))
        };
        daemon.until("address after restart", published).await;
    });
}

#[test]
fn a_dry_run_changes_nothing_and_cleanup_leaves_nothing() {
    in_a_node(|| async {
        let etcd = Etcd::start().await;
        etcd.put("config", VXLAN).await;
        let dir = tempfile::tempdir().unwrap();
        let run = |argument: &str| {
            Daemon::command(&dir, &etcd.endpoint())
                .arg(argument)
                .output()
                .unwrap()
        };
        let plan = run("--dry-run");
        let text = String::from_utf8_lossy(&plan.stdout);
        assert!(plan.status.success(), "{plan:?}");
        for wanted in [
            "etcd create /weft/network/subnets/10.3.1.0-24",
            "flannel.1",
            "FLANNEL_SUBNET=10.3.1.1/24",
        ] {
            assert!(text.contains(wanted), "{wanted} is missing in\n{text}");
        }
        assert_eq!(etcd.get("subnets/10.3.1.0-24").await, None);
        assert_eq!(Netlink::open().unwrap().link("flannel.1").unwrap(), None);
        assert!(!dir.path().join("run").exists());

        let mut daemon = Daemon::start(&etcd, &["--ip-masq", "--ip-blackhole-route"]);
        daemon.ready().await;
        let blackholes = || {
            let all = Netlink::open()
                .unwrap()
                .routes(RouteFilter::default())
                .unwrap();
            all.into_iter()
                .filter(|route| route.kind == kernel::RouteKind::Blackhole)
                .count()
        };
        assert_eq!(blackholes(), 1);
        assert_eq!(terminate(&mut daemon.child), 0);
        let clean = Daemon::command(&daemon.dir, &daemon.endpoint)
            .arg("cleanup")
            .output()
            .unwrap();
        assert!(clean.status.success(), "{clean:?}");
        assert_eq!(Netlink::open().unwrap().link("flannel.1").unwrap(), None);
        assert_eq!(blackholes(), 0);
        assert_eq!(
            std::fs::read_dir(daemon.dir.path().join("run"))
                .unwrap()
                .count(),
            0
        );
    });
}

#[test]
fn another_backend_after_a_restart_finds_no_trace_of_the_old_one() {
    in_a_node(|| async {
        let etcd = Etcd::start().await;
        etcd.put("config", VXLAN).await;
        let mut daemon = Daemon::start(&etcd, &[]);
        daemon.ready().await;
        assert!(
            Netlink::open()
                .unwrap()
                .link("flannel.1")
                .unwrap()
                .is_some()
        );
        let env = daemon.env().unwrap();
        etcd.put("config", &VXLAN.replace("vxlan", "host-gw")).await;
        daemon.restart(&[]);
        daemon
            .until("MTU of host-gw", async || {
                daemon.env().is_some_and(|env| env.mtu == Some(1500))
            })
            .await;
        assert_eq!(Netlink::open().unwrap().link("flannel.1").unwrap(), None);
        assert_eq!(daemon.env().unwrap().subnet, env.subnet);
    });
}

#[test]
fn an_operators_command_that_hangs_does_not_keep_the_daemon_from_ending() {
    in_a_node(|| async {
        let etcd = Etcd::start().await;
        let config = r#"{"Network":"10.3.0.0/16","Backend":{"Type":"extension","PreStartupCommand":"echo hello",
            "SubnetAddCommand":"sleep 20"}}"#;
        etcd.put("config", config).await;
        let mut daemon = Daemon::start(&etcd, &[]);
        daemon.ready().await;
        let net = daemon.env().unwrap().subnet.unwrap().v4.unwrap();
        let (value, _) = etcd
            .get(&format!("subnets/{}-24", net.addr()))
            .await
            .unwrap();
        assert!(
            value.ends_with(r#""BackendType":"extension","BackendData":"hello"}"#),
            "{value}"
        );
        etcd.put(
            "subnets/10.3.250.0-24",
            r#"{"PublicIP":"192.168.66.12","BackendType":"extension"}"#,
        )
        .await;
        daemon.logged("peer added").await;
        let started = std::time::Instant::now();
        assert_eq!(terminate(&mut daemon.child), 0);
        assert!(started.elapsed() < Duration::from_secs(15));
        daemon.logged("still busy").await;
    });
}

#[test]
fn a_family_switched_off_leaves_neither_its_device_nor_its_rules() {
    in_a_node(|| async {
        let etcd = Etcd::start().await;
        let dual = r#"{"Network":"10.3.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:42::/48",
            "EnableNFTables":true,"Backend":{"Type":"vxlan"}}"#;
        etcd.put("config", dual).await;
        let eth0 = Netlink::open().unwrap().expect_link("eth0").unwrap().index;
        let v6 = Address::new(eth0, "fd66::11/64".parse().unwrap());
        Netlink::open()
            .unwrap()
            .apply(&Change::AddAddress(v6))
            .unwrap();
        let options = ["--iface=eth0", "--ip-masq", "--ip-blackhole-route"];
        let mut daemon = Daemon::start(&etcd, &options);
        daemon.ready().await;
        let index = |name: &str| {
            let link = Netlink::open().unwrap().link(name).unwrap();
            link.map(|link| link.index)
        };
        let rules = |family: &str, table: &str| kernel::nft::list_table(family, table).unwrap();
        let kept = index("flannel.1").unwrap();
        assert!(index("flannel-v6.1").is_some() && rules("ip6", "flannel-ipv6").is_some());

        etcd.put("config", &dual.replace("true,\"IPv6", "false,\"IPv6"))
            .await;
        daemon.restart(&options);
        daemon.ready().await;
        assert_eq!(index("flannel.1"), Some(kept), "made anew");
        assert_eq!(index("flannel-v6.1"), None);
        assert_eq!(rules("ip6", "flannel-ipv6"), None);
        assert!(rules("ip", "flannel-ipv4").is_some());
        let filter = RouteFilter {
            ipv6: Some(true),
            ..RouteFilter::default()
        };
        let routes = Netlink::open().unwrap().routes(filter).unwrap();
        assert!(
            !routes
                .iter()
                .any(|route| route.kind == kernel::RouteKind::Blackhole),
            "{routes:?}"
        );
    });
}
