//! Files as kubeadm and people write them, and broken ones.

use proptest::prelude::*;

use super::*;
use ipnet::IpNet;

const HEAD: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";

fn read_file(body: &str) -> Result<Written, Error> {
    parse(Path::new("/f"), format!("{HEAD}{body}").as_bytes())
}

/// All keys with the values that kubeadm writes for a cluster with defaults.
const KUBEADM: &str = r#"
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 0
  contentType: ""
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16
configSyncPeriod: 0s
conntrack:
  maxPerCore: null
  min: null
  tcpBeLiberal: false
  tcpCloseWaitTimeout: null
  tcpEstablishedTimeout: null
  udpStreamTimeout: 0s
  udpTimeout: 0s
detectLocal:
  bridgeInterface: ""
  interfaceNamePrefix: ""
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables:
  localhostNodePorts: null
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
ipvs:
  excludeCIDRs: null
  minSyncPeriod: 0s
  scheduler: ""
  strictARP: false
  syncPeriod: 0s
  tcpFinTimeout: 0s
  tcpTimeout: 0s
  udpTimeout: 0s
logging:
  flushFrequency: 0
  options:
    json:
      infoBufferSize: "0"
    text:
      infoBufferSize: "0"
  verbosity: 0
metricsBindAddress: ""
mode: ""
nftables:
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel:
  enableDSR: false
  forwardHealthCheckVip: false
  networkName: ""
  rootHnsEndpointName: ""
  sourceVip: ""
"#;

#[test]
fn kubeadms_file_gives_the_defaults() {
    let written = read_file(KUBEADM).unwrap();
    assert_eq!(written.unknown, [""; 0]);
    let expected = Given {
        cluster_cidr: Some(List(vec!["10.244.0.0/16".parse::<IpNet>().unwrap()])),
        bind_address: Some("0.0.0.0".parse().unwrap()),
        bind_address_hard_fail: Some(false),
        kubeconfig: Some("/var/lib/kube-proxy/kubeconfig.conf".into()),
        conntrack_tcp_be_liberal: Some(false),
        conntrack_udp_timeout: Some(Duration::ZERO),
        conntrack_udp_timeout_stream: Some(Duration::ZERO),
        masquerade_all: Some(false),
        feature_gates: vec![List(Vec::new())],
        ..Given::default()
    };
    assert_eq!(written.given, expected);
}

#[test]
fn json_is_read_too() {
    let text = format!(
        r#"{{"apiVersion": "{API_VERSION}", "kind": "{KIND}", "mode": "nftables",
            "oomScoreAdj": -7, "nodePortAddresses": ["primary", "10.0.0.0/8"],
            "featureGates": {{"Foo": true}}}}"#
    );
    let written = parse(Path::new("/f"), text.as_bytes()).unwrap();
    assert_eq!(written.given.oom_score_adj, Some(-7));
    assert_eq!(written.given.nodeport_addresses.len(), 2);
    assert_eq!(
        written.given.feature_gates,
        [List(vec![("Foo".to_owned(), true)])]
    );
}

#[test]
fn the_section_of_the_mode_counts() {
    let rules = "iptables: {masqueradeAll: true, syncPeriod: 5s}\n\
                 nftables: {masqueradeBit: 3, syncPeriod: 7s, minSyncPeriod: 2s}\n";
    for (mode, all, bit, seconds) in [
        ("iptables", Some(true), None, 5),
        ("nftables", None, Some(3), 7),
        ("", Some(true), Some(3), 7),
        ("userspace", Some(true), Some(3), 7),
    ] {
        let given = read_file(&format!("mode: \"{mode}\"\n{rules}"))
            .unwrap()
            .given;
        assert_eq!(given.masquerade_all, all, "{mode}");
        assert_eq!(given.iptables_masquerade_bit, bit, "{mode}");
        let period = Some(Duration::from_secs(seconds));
        assert_eq!(given.iptables_sync_period, period, "{mode}");
    }
}

#[test]
fn unknown_keys_are_named_with_those_above_them() {
    let written = read_file("color: red\nconntrack: {min: 3, max: 4}\niptables: {x: null}\n");
    let written = written.unwrap();
    assert_eq!(written.given.conntrack_min, Some(3));
    assert_eq!(written.unknown, ["conntrack.max", "iptables.x", "color"]);
}

#[test]
fn wrong_values_are_refused_by_key() {
    for (body, words) in [
        ("mode: 7", &["mode", "a text", "7"][..]),
        ("mode: ipvs", &["mode", "\"ipvs\"", "use nftables"]),
        ("clusterCIDR: [a]", &["clusterCIDR", "a text", "a list"]),
        (
            "clusterCIDR: ten",
            &["clusterCIDR", "ten", "like 10.244.0.0/16"],
        ),
        ("conntrack: 5", &["conntrack", "an object", "5"]),
        (
            "conntrack: {min: many}",
            &["conntrack.min", "a whole number", "many"],
        ),
        ("conntrack: {min: 1.5}", &["conntrack.min", "1.5"]),
        (
            "conntrack: {maxPerCore: -1}",
            &["conntrack.maxPerCore", "-1", "0 to"],
        ),
        (
            "conntrack: {udpTimeout: 5}",
            &["conntrack.udpTimeout", "a text", "5"],
        ),
        (
            "conntrack: {udpTimeout: -5s}",
            &["conntrack.udpTimeout", "negative"],
        ),
        (
            "iptables: {masqueradeBit: 32}",
            &["iptables.masqueradeBit", "32", "0 to 31"],
        ),
        (
            "nftables: {masqueradeAll: \"yes\"}",
            &["nftables.masqueradeAll", "true or false"],
        ),
        (
            "oomScoreAdj: 2000",
            &["oomScoreAdj", "2000", "-1000 to 1000"],
        ),
        (
            "nodePortAddresses: primary",
            &["nodePortAddresses", "a list"],
        ),
        (
            "nodePortAddresses: [eth0]",
            &["nodePortAddresses", "eth0", "primary"],
        ),
        (
            "nodePortAddresses: [1]",
            &["nodePortAddresses", "a list of texts"],
        ),
        ("featureGates: {A: 1}", &["featureGates.A", "true or false"]),
        ("metricsBindAddress: x", &["metricsBindAddress", "IP:PORT"]),
        (
            "detectLocal: {bridgeInterface: \"a b\"}",
            &["detectLocal.bridgeInterface"],
        ),
        ("logging: {verbosity: x}", &["logging.verbosity"]),
    ] {
        let text = read_file(body).unwrap_err().to_string();
        assert!(text.starts_with("/f (--config): "), "{text}");
        for word in words {
            assert!(text.contains(word), "{body}: {word} in {text}");
        }
    }
}

#[test]
fn what_is_no_configuration_is_refused() {
    for (text, words) in [
        ("", &["apiVersion and kind"][..]),
        ("- a", &["apiVersion and kind"]),
        ("{", &["no YAML", "line 1"]),
        ("a: b\n---\nc: d\n", &["more than one document"]),
        ("\u{0}", &["/f"]),
        ("kind: KubeProxyConfiguration", &["apiVersion", "missing"]),
        (
            "apiVersion: kubeproxy.config.k8s.io/v1beta9\nkind: KubeProxyConfiguration",
            &["apiVersion", "v1beta9", API_VERSION],
        ),
        (
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: Pod",
            &["kind", "Pod", KIND],
        ),
    ] {
        let error = parse(Path::new("/f"), text.as_bytes())
            .unwrap_err()
            .to_string();
        assert_eq!(error.lines().count(), 1, "{error}");
        for word in words {
            assert!(error.contains(word), "{text:?}: {word} in {error}");
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse(Path::new("/f"), &bytes);
    }

    #[test]
    fn no_yaml_panics(
        keys in proptest::collection::vec(("[a-zA-Z]{1,12}", "[ -~]{0,20}"), 0..6),
        section in "(conntrack|iptables|logging|detectLocal|featureGates|mode|nodePortAddresses)",
        value in "[ -~\n]{0,60}",
    ) {
        let keys: String = keys.iter().map(|(key, value)| format!("{key}: {value}\n")).collect();
        let _ = read_file(&format!("{keys}{section}: {value}"));
    }
}
