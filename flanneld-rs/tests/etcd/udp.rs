//! The udp backend in the daemon: what it announces, what it prints, what it refuses. Needs root.

use kernel::{Address, Change, Netlink, NewLink, NewLinkKind};

use crate::node::{Daemon, get, in_a_node, routes_of, terminate};
use crate::server::Etcd;

const UDP: &str = r#"{"Network":"10.3.0.0/16","Backend":{"Type":"udp","DataPath":"plain"}}"#;
/// What Go flanneld writes, and an earlier release of ours wrote.
const BARE: &str = r#"{"PublicIP":"192.168.66.11","PublicIPv6":null}"#;
const OURS: &str =
    r#"{"PublicIP":"192.168.66.11","PublicIPv6":null,"BackendData":{"FinishesChecksums":true}}"#;

fn device() -> Option<kernel::Link> {
    Netlink::open().unwrap().link("flannel0").unwrap()
}

#[test]
fn a_bare_lease_of_ours_is_completed_and_those_of_others_are_served() {
    in_a_node(|| async {
        let etcd = Etcd::start().await;
        etcd.put("config", UDP).await;
        etcd.put("subnets/10.3.7.0-24", BARE).await;
        let go = BARE.replace(".11", ".12");
        etcd.put("subnets/10.3.250.0-24", &go).await;
        etcd.put("subnets/10.3.251.0-24", &OURS.replace(".11", ".13"))
            .await;
        let mut daemon = Daemon::start(&etcd, &["--iface=eth0"]);
        daemon.ready().await;
        let completed = async || {
            let lease = etcd.get("subnets/10.3.7.0-24").await;
            lease.is_some_and(|(value, _)| value == OURS)
        };
        daemon.until("lease completed", completed).await;
        assert!(get("/metrics").contains("\nflanneld_peers 2\n"));
        // The record has the new value: after a restart the lease is still known as ours.
        daemon.restart(&["--iface=eth0"]);
        daemon.ready().await;
        assert!(completed().await);
        let net = daemon.env().unwrap().subnet.unwrap().v4.unwrap();
        assert_eq!(net.to_string(), "10.3.7.0/24");
        assert_eq!(routes_of(device().unwrap().index), ["10.3.0.0/16"]);
        assert_eq!(terminate(&mut daemon.child), 0);
        assert_eq!(device(), None);
    });
}

#[test]
fn metrics_name_the_data_path_and_have_every_series_from_the_start() {
    in_a_node(|| async {
        let etcd = Etcd::start().await;
        etcd.put("config", UDP).await;
        let daemon = Daemon::start(&etcd, &["--iface=eth0", "--data-path=offload"]);
        daemon.ready().await;
        let page = get("/metrics");
        let info = r#"flanneld_tunnel_info{backend="udp",device="flannel0",data_path="offload",user="offload"} 1"#;
        for wanted in [
            info,
            r#"flanneld_tunnel_packets_total{direction="sent",path="user"} 0"#,
            r#"flanneld_tunnel_bytes_total{direction="received",path="ebpf"} 0"#,
            r#"flanneld_tunnel_dropped_total{reason="foreign_source"} 0"#,
        ] {
            assert!(page.contains(wanted), "{wanted} is missing in\n{page}");
        }
        let line = "udp data path: offload on flannel0 (as configured)";
        assert_eq!(daemon.log().matches(line).count(), 1, "{}", daemon.log());
    });
}

/// On a kernel that takes programs; elsewhere user space follows in the same way.
#[test]
fn an_interface_made_anew_gets_the_programs_and_the_old_sockets_go() {
    in_a_node(|| async {
        let etcd = Etcd::start().await;
        etcd.put("config", UDP).await;
        let daemon = Daemon::start(&etcd, &["--iface=eth0", "--data-path=auto"]);
        daemon.ready().await;
        let attached = || {
            let page = get("/metrics");
            let series = r#"flanneld_reconcile_changes_total{part="backend",kind="attach ebpf"} "#;
            let count = page.lines().find_map(|line| line.strip_prefix(series));
            count.map_or(0, |count| count.parse::<u32>().unwrap())
        };
        let with_programs = attached() == 1;
        let mut netlink = Netlink::open().unwrap();
        let index = netlink.expect_link("eth0").unwrap().index;
        let name = "eth0".to_owned();
        netlink.apply(&Change::DeleteLink { index, name }).unwrap();
        daemon.logged("keeping eth0 as it was").await;
        let kind = NewLinkKind::Bridge {
            vlan_filtering: None,
        };
        let link = NewLink {
            up: true,
            ..NewLink::new("eth0", kind)
        };
        netlink.apply(&Change::AddLink(link)).unwrap();
        let index = netlink.expect_link("eth0").unwrap().index;
        let address = Address::new(index, "192.168.66.77/24".parse().unwrap());
        netlink.apply(&Change::AddAddress(address)).unwrap();
        daemon.logged("the address is now 192.168.66.77:8285").await;
        daemon.ready().await;
        // The change is counted a moment before the page names the path.
        let moved = async || {
            let named = get("/metrics").contains(r#"data_path="ebpf""#);
            named == with_programs && (!with_programs || attached() == 2)
        };
        daemon.until("programs moved", moved).await;
    });
}

#[test]
fn a_dry_run_names_device_data_path_and_programs_and_makes_nothing() {
    in_a_node(|| async {
        let etcd = Etcd::start().await;
        etcd.put("config", UDP).await;
        let dir = tempfile::tempdir().unwrap();
        let run = |argument: &str| {
            Daemon::command(&dir, &etcd.endpoint())
                .args(["--dry-run", argument])
                .output()
                .unwrap()
        };
        let plan = run("--data-path=auto");
        let text = String::from_utf8_lossy(&plan.stdout);
        assert!(plan.status.success(), "{plan:?}");
        for wanted in [
            "add link flannel0 mtu 1472 type tun multi_queue",
            "add address 10.3.1.0/32 dev flannel0",
            "replace route 10.3.0.0/16 dev flannel0",
            "start datapath offload flannel0 on 192.168.66.11:8285",
            "attach ebpf flannel0 and eth0",
        ] {
            let found = text.lines().any(|line| line == wanted);
            assert!(found, "{wanted} is missing in\n{text}");
        }
        assert_eq!(device(), None);
        let text = String::from_utf8_lossy(&run("--data-path=plain").stdout).into_owned();
        assert!(text.contains("start datapath plain"), "{text}");
        assert!(!text.contains("ebpf"), "{text}");
    });
}

#[test]
fn what_cannot_work_ends_the_daemon_before_anything_is_made() {
    in_a_node(|| async {
        let etcd = Etcd::start().await;
        let v6_only = r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd03::/48","Backend":{"Type":"udp"}}"#;
        let host_gw = r#"{"Network":"10.3.0.0/16","Backend":{"Type":"host-gw"}}"#;
        for (config, flag, why) in [
            (
                UDP,
                "--data-path=fast",
                "--data-path: \"fast\" is none of auto, ebpf, offload, plain",
            ),
            (
                host_gw,
                "--data-path=ebpf",
                "--data-path: the host-gw backend has one data path only",
            ),
            (
                v6_only,
                "--data-path=auto",
                "cannot carry a network without IPv4",
            ),
        ] {
            etcd.put("config", config).await;
            let dir = tempfile::tempdir().unwrap();
            let output = Daemon::command(&dir, &etcd.endpoint())
                .arg(flag)
                .output()
                .unwrap();
            let log = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{log}");
            assert!(log.contains(why), "{why} is missing in\n{log}");
            assert_eq!(device(), None);
            assert!(!dir.path().join("run").exists(), "a file was written");
        }
    });
}
