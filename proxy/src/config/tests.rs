//! Command lines and files, from both ends: what is understood, and what is refused with which words.

mod accepted;
mod refused;

use std::time::Duration;

use super::*;
use crate::model::{ObjectName, Protocol};

fn parse_with(args: &[&str], file: &str) -> Result<Parsed, Error> {
    let args = std::iter::once("weft-proxy").chain(args.iter().copied());
    parse(args.map(OsString::from), "Node-A", |path| {
        assert_eq!(path, Path::new("/etc/proxy.yaml"));
        Ok(file.as_bytes().to_vec())
    })
}

fn checked(args: &[&str]) -> Checked {
    checked_with(args, "")
}

fn checked_with(args: &[&str], file: &str) -> Checked {
    match parse_with(args, file) {
        Ok(Parsed::Do(checked, _)) => *checked,
        other => panic!("{args:?}: {other:?}"),
    }
}

fn verb(args: &[&str]) -> Verb {
    match parse_with(args, "") {
        Ok(Parsed::Do(_, verb)) => verb,
        other => panic!("{args:?}: {other:?}"),
    }
}

fn refusal(args: &[&str]) -> String {
    match parse_with(args, "") {
        Err(error) => error.to_string(),
        other => panic!("{args:?}: {other:?}"),
    }
}

fn net(text: &str) -> ipnet::IpNet {
    text.parse().unwrap()
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn defaults_are_kube_proxys_but_for_the_addresses() {
    let checked = checked(&[]);
    assert_eq!(checked.mode, None);
    assert_eq!(&*checked.node, "node-a", "host names are lower case");
    let source = Source::Kube {
        kubeconfig: None,
        master: None,
    };
    assert_eq!(checked.source, source);
    assert_eq!(checked.detect_local, DetectLocal::ClusterCidr(Vec::new()));
    assert_eq!(checked.masquerade_mark, 0x4000);
    assert!(!checked.masquerade_all && checked.iptables_localhost_node_ports);
    assert_eq!(checked.sync_period, MINUTE / 2);
    assert_eq!(checked.config_sync_period, 15 * MINUTE);
    assert_eq!(checked.oom_score_adj, -999);
    assert_eq!(checked.healthz, Listen::Node(10256));
    assert_eq!(
        checked.healthz.resolve(None).unwrap().to_string(),
        "127.0.0.1:10256"
    );
    let node = Some("192.0.2.7".parse().unwrap());
    assert_eq!(
        checked.healthz.resolve(node).unwrap().to_string(),
        "192.0.2.7:10256"
    );
    assert_eq!(
        checked.metrics.resolve(node).unwrap().to_string(),
        "127.0.0.1:10249"
    );
    let conntrack = Conntrack {
        max_per_core: 32_768,
        min: 131_072,
        tcp_established: 24 * 60 * MINUTE,
        tcp_close_wait: 60 * MINUTE,
        tcp_be_liberal: false,
        udp: Duration::ZERO,
        udp_stream: Duration::ZERO,
    };
    assert_eq!(checked.conntrack, conntrack);
    assert_eq!(checked.notes, [""; 0]);
}

#[test]
fn verbs() {
    assert_eq!(verb(&[]), Verb::Run);
    assert_eq!(verb(&["--cleanup"]), Verb::Cleanup { kube_proxy: false });
    assert_eq!(verb(&["--cleanup=false"]), Verb::Run);
    assert_eq!(
        verb(&["cleanup", "--kube-proxy"]),
        Verb::Cleanup { kube_proxy: true }
    );
    assert_eq!(
        verb(&["--write-config-to", "/x"]),
        Verb::WriteConfig("/x".into())
    );
    assert_eq!(verb(&["show"]), Verb::Show { service: None });
    let service = Some(ObjectName::new("a", "b"));
    assert_eq!(
        verb(&["--dry-run", "show", "a/b", "--source=dir:x"]),
        Verb::Show { service }
    );
    let trace = Trace {
        from: TraceFrom {
            ip: "fd00::5".parse().unwrap(),
            port: Some(4000),
        },
        to: TraceTo {
            ip: "fd00::a".parse().unwrap(),
            port: 53,
            protocol: Protocol::Udp,
        },
        interface: Some("eth0".to_owned()),
    };
    let args = [
        "trace",
        "[fd00::5]:4000",
        "[fd00::a]:53/UDP",
        "--from-interface",
        "eth0",
    ];
    assert_eq!(verb(&args), Verb::Trace(trace));
    for from in ["10.1.2.3", "fd00::5", "[fd00::5]"] {
        assert!(matches!(
            verb(&["trace", from, "10.96.0.1:443/tcp"]),
            Verb::Trace(Trace {
                from: TraceFrom { port: None, .. },
                ..
            })
        ));
    }
}

#[test]
fn help_and_version_are_printed() {
    for (arg, word) in [
        ("--help", "--nodeport-addresses"),
        ("-h", "trace"),
        ("--version", env!("CARGO_PKG_VERSION")),
        ("--version=raw", "weft-proxy"),
    ] {
        match parse_with(&[arg], "") {
            Ok(Parsed::Print(text)) => assert!(text.contains(word), "{arg}: {text}"),
            other => panic!("{arg}: {other:?}"),
        }
    }
    assert!(matches!(
        parse_with(&["--version=false"], ""),
        Ok(Parsed::Do(..))
    ));
}

#[test]
fn flags_without_meaning_are_accepted_with_a_note() {
    let args = [
        "--profiling",
        "--ipvs-scheduler=rr",
        "--kube-api-qps",
        "5",
        "--vmodule=x=2",
        "--feature-gates=Foo=true,Bar=false",
        "--show-hidden-metrics-for-version=",
    ];
    let checked = checked(&args);
    let notes = checked.notes.join("\n");
    for word in [
        "--profiling",
        "--ipvs-scheduler",
        "--kube-api-qps",
        "--vmodule",
        "Bar, Foo",
        "--show-hidden-metrics-for-version",
    ] {
        assert!(notes.contains(word), "{word} in {notes}");
    }
    assert!(
        checked
            .flags
            .contains(&("kube-api-qps".to_owned(), "5".to_owned()))
    );
    assert_eq!(checked.flags.len(), args.len() - 1);
}

#[test]
fn a_file_goes_before_flags_but_for_a_few() {
    let file = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n\
                mode: iptables\nhostnameOverride: from-file\nlogging: {verbosity: 3}\n\
                clientConnection: {kubeconfig: /f}\nhealthzBindAddress: 0.0.0.0\n";
    let args = [
        "--config=/etc/proxy.yaml",
        "--proxy-mode=nftables",
        "--healthz-port=0",
    ];
    let checked = checked_with(&args, file);
    assert_eq!(checked.mode, Some(ModeName::Iptables));
    assert_eq!(
        checked.healthz,
        Listen::At("0.0.0.0:10256".parse().unwrap())
    );
    assert_eq!((&*checked.node, checked.verbosity), ("from-file", 3));
    assert!(
        checked.notes[0].contains("--proxy-mode: ignored"),
        "{:?}",
        checked.notes
    );
    let args = [
        "--config=/etc/proxy.yaml",
        "--hostname-override=flag",
        "--master=https://m",
        "-v=5",
        "--dry-run",
    ];
    let checked = checked_with(&args, file);
    assert_eq!((&*checked.node, checked.verbosity), ("flag", 5));
    let source = Source::Kube {
        kubeconfig: Some("/f".into()),
        master: Some("https://m".to_owned()),
    };
    assert!(checked.dry_run && checked.source == source);
    assert_eq!(checked.notes, [""; 0]);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let args = ["weft-proxy", "--config", "/no/such"].map(OsString::from);
    let error = parse(args, "n", |_| Err(io::ErrorKind::NotFound.into())).unwrap_err();
    assert!(
        error.to_string().starts_with("read /no/such (--config): "),
        "{error}"
    );
}

/// What `--write-config-to` writes is read back as the same.
#[test]
fn the_configuration_in_force_can_be_read_back() {
    let args = [
        "--proxy-mode=nftables",
        "--cluster-cidr=10.244.0.0/16,fd00::/56",
        "--nodeport-addresses=primary,192.0.2.0/24",
        "--masquerade-all",
        "--iptables-masquerade-bit=3",
        "--iptables-sync-period=1m",
        "--iptables-min-sync-period=5s",
        "--iptables-localhost-nodeports=false",
        "--conntrack-max-per-core=7",
        "--conntrack-tcp-timeout-close-wait=1m1s",
        "--conntrack-udp-timeout-stream=3m",
        "--metrics-bind-address=[::1]:9",
        "--bind-address=192.0.2.1",
        "--kubeconfig=/k",
        "--oom-score-adj=5",
        "-v=3",
    ];
    let first = checked(&args);
    let second = checked_with(
        &["--config", "/etc/proxy.yaml"],
        &first.as_configuration().to_string(),
    );
    let expected = Checked {
        flags: second.flags.clone(),
        ..first
    };
    assert_eq!(second, expected);
}

#[test]
fn remarks_of_a_mode() {
    let checked = checked(&["--localhost-nodeports"]);
    assert_eq!(checked.remarks(ModeName::Nftables).len(), 1);
    let remarks = checked.remarks(ModeName::Iptables);
    assert_eq!(remarks.len(), 3, "{remarks:?}");
    assert!(remarks[0].contains("--nodeport-addresses primary"));
}
