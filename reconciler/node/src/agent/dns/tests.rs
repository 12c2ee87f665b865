//! Names in Pods.

use std::net::IpAddr;

use serde_json::json;

use super::{Site, hostname, hosts, resolv_conf};
use crate::agent::plan::tests::world::pod;

const NODE: &str = "search example.org\nnameserver 192.0.2.1\noptions edns0\n";

fn conf(spec: serde_json::Value, servers: &[IpAddr]) -> (String, Vec<(&'static str, String)>) {
    let site = Site {
        servers,
        domain: "cluster.local",
        resolv_conf: NODE,
    };
    resolv_conf(&pod(spec), site)
}

fn dns() -> [IpAddr; 1] {
    ["10.96.0.10".parse().unwrap()]
}

#[test]
fn policies() {
    let cluster = "search default.svc.cluster.local svc.cluster.local cluster.local example.org\nnameserver 10.96.0.10\noptions ndots:5\n";
    for (spec, wanted) in [
        (json!({"containers": []}), cluster),
        (json!({"containers": [], "hostNetwork": true}), NODE),
        (
            json!({"containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}),
            cluster,
        ),
        (json!({"containers": [], "dnsPolicy": "Default"}), NODE),
        (
            json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["x"], "options": [{"name": "ndots", "value": "2"}, {"name": "rotate"}]}}),
            "search x\nnameserver 1.1.1.1\noptions ndots:2 rotate\n",
        ),
    ] {
        assert_eq!(conf(spec.clone(), &dns()).0, wanted, "{spec}");
    }
}

#[test]
fn config_adds_and_its_options_win() {
    let spec = json!({"containers": [], "dnsConfig": {"nameservers": ["1.1.1.1", "10.96.0.10"], "options": [{"name": "ndots", "value": "1"}]}});
    let (text, complaints) = conf(spec, &dns());
    assert!(
        text.contains("nameserver 10.96.0.10\nnameserver 1.1.1.1\noptions ndots:1\n"),
        "{text}"
    );
    assert!(complaints.is_empty());
}

#[test]
fn limits_are_told() {
    let spec = json!({"containers": [], "dnsConfig": {"nameservers": ["1.1.1.1", "1.1.1.2", "1.1.1.3"], "searches": (0..40).map(|n| format!("s{n}")).collect::<Vec<_>>()}});
    let (text, complaints) = conf(spec, &dns());
    assert_eq!(text.matches("nameserver").count(), 3);
    assert_eq!(text.lines().next().unwrap().split(' ').count(), 33);
    assert_eq!(
        complaints
            .iter()
            .map(|(reason, _)| *reason)
            .collect::<Vec<_>>(),
        ["DNSConfigForming"; 2]
    );
    let (text, complaints) = conf(json!({"containers": []}), &[]);
    assert_eq!(text, NODE);
    assert!(complaints.is_empty());
}

#[test]
fn host_names() {
    let name = |spec: serde_json::Value| hostname(&pod(spec), "cluster.local");
    assert_eq!(
        name(json!({"containers": []})),
        Ok(("web".to_owned(), None))
    );
    let full = "h.sub.default.svc.cluster.local".to_owned();
    assert_eq!(
        name(json!({"containers": [], "hostname": "h", "subdomain": "sub"})),
        Ok(("h".to_owned(), Some(full.clone())))
    );
    assert_eq!(
        name(
            json!({"containers": [], "hostname": "h", "subdomain": "sub", "setHostnameAsFQDN": true})
        ),
        Ok((full, None))
    );
    let long = "x".repeat(60);
    assert!(name(json!({"containers": [], "hostname": long, "subdomain": "sub", "setHostnameAsFQDN": true})).is_err());
    let mut long = pod(json!({"containers": []}));
    long.metadata.name = Some(format!("{}-.tail", "x".repeat(61)));
    assert_eq!(hostname(&long, "c").unwrap().0, "x".repeat(61));
}

#[test]
fn hosts_files() {
    let pod = pod(
        json!({"containers": [], "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a", "b"]}]}),
    );
    let text = hosts(&pod, None);
    assert!(
        text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"),
        "{text}"
    );
    assert!(
        text.ends_with("# Entries added by HostAliases.\n10.0.0.1\ta\tb\n"),
        "{text}"
    );
    assert!(hosts(&pod, Some("127.0.0.1 me\n")).contains("127.0.0.1 me\n"));
}
