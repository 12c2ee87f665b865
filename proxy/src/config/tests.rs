//! Command lines and files, from both ends: what is understood, and what is refused with which words.

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

/// Flags that mean the same, and a look at what they mean.
#[test]
fn flags_are_understood_in_kube_proxys_spellings() {
    type Look = fn(&Checked) -> bool;
    let table: &[(&[&[&str]], Look)] = &[
        (
            &[&["--proxy-mode", "iptables"], &["--proxy-mode=iptables"]],
            |c| c.mode == Some(ModeName::Iptables),
        ),
        (&[&["--proxy-mode="], &["--proxy-mode", "auto"]], |c| {
            c.mode.is_none()
        }),
        (&[&["--proxy-mode=userspace"]], |c| {
            c.mode == Some(ModeName::Userspace)
        }),
        (
            &[
                &["--masquerade-all"],
                &["--masquerade-all=true"],
                &["--masquerade-all=T"],
                &["--masquerade-all=1"],
                // The last one counts.
                &["--masquerade-all=false", "--masquerade-all"],
            ],
            |c| c.masquerade_all,
        ),
        (&[&["--masquerade-all=false"]], |c| !c.masquerade_all),
        (&[&["--iptables-masquerade-bit", "31"]], |c| {
            c.masquerade_mark == 1 << 31
        }),
        (&[&["--cluster-cidr", "10.244.0.0/16,fd00:1::/56"]], |c| {
            let nets = vec![net("10.244.0.0/16"), net("fd00:1::/56")];
            c.detect_local == DetectLocal::ClusterCidr(nets)
        }),
        (&[&["--cluster-cidr=10.244.3.4/16"]], |c| {
            c.detect_local == DetectLocal::ClusterCidr(vec![net("10.244.0.0/16")])
        }),
        (&[&["--cluster-cidr="]], |c| {
            c.detect_local == DetectLocal::ClusterCidr(vec![])
        }),
        (&[&["--detect-local-mode=NodeCIDR"]], |c| {
            c.detect_local == DetectLocal::NodeCidr
        }),
        (
            &[&[
                "--detect-local-mode=BridgeInterface",
                "--pod-bridge-interface=cni0",
            ]],
            |c| c.detect_local == DetectLocal::Interface("cni0".to_owned()),
        ),
        (
            &[&[
                "--detect-local-mode=InterfaceNamePrefix",
                "--pod-interface-name-prefix=veth",
            ]],
            |c| c.detect_local == DetectLocal::InterfacePrefix("veth".to_owned()),
        ),
        (
            &[
                &["--nodeport-addresses=primary,192.0.2.0/24"],
                &[
                    "--nodeport-addresses",
                    "primary",
                    "--nodeport-addresses=192.0.2.9/24",
                ],
            ],
            |c| {
                let net = NodePortAddress::Net(net("192.0.2.0/24"));
                c.node_port_list == [NodePortAddress::Primary, net]
            },
        ),
        (&[&["--nodeport-addresses=localhost"]], |c| {
            let nets = ["127.0.0.0/8", "::1/128"].map(|text| NodePortAddress::Net(net(text)));
            c.node_port_list == nets
        }),
        (&[&["--hostname-override=  Other.Example "]], |c| {
            &*c.node == "other.example"
        }),
        (&[&["--hostname-override="]], |c| &*c.node == "node-a"),
        (
            &[
                &[
                    "--iptables-sync-period=1m0s",
                    "--iptables-min-sync-period",
                    "250ms",
                ],
                &[
                    "--iptables-sync-period=60s",
                    "--iptables-min-sync-period=0.25s",
                ],
            ],
            |c| {
                c.sync_period == MINUTE
                    && c.min_sync_period(ModeName::Nftables) == Duration::from_millis(250)
            },
        ),
        (&[&["--iptables-min-sync-period=0"]], |c| {
            c.min_sync_period(ModeName::Iptables).is_zero()
        }),
        (&[&["--iptables-localhost-nodeports=false"]], |c| {
            !c.iptables_localhost_node_ports
        }),
        (
            &[&["--conntrack-max-per-core=0", "--conntrack-min=5"]],
            |c| c.conntrack.max_per_core == 0 && c.conntrack.min == 5,
        ),
        (
            &[&[
                "--conntrack-tcp-timeout-established=0",
                "--conntrack-udp-timeout=30s",
            ]],
            |c| c.conntrack.tcp_established.is_zero() && c.conntrack.udp == MINUTE / 2,
        ),
        (&[&["--conntrack-tcp-be-liberal"]], |c| {
            c.conntrack.tcp_be_liberal
        }),
        (
            &[
                &["--metrics-bind-address=0.0.0.0:1"],
                &["--metrics-bind-address", "0.0.0.0:1"],
            ],
            |c| c.metrics == Listen::At("0.0.0.0:1".parse().unwrap()),
        ),
        (
            &[
                &["--metrics-bind-address=[::]"],
                &["--metrics-bind-address=::"],
            ],
            |c| c.metrics == Listen::At("[::]:10249".parse().unwrap()),
        ),
        (
            &[&["--metrics-bind-address="], &["--metrics-port=0"]],
            |c| c.metrics == Listen::Off,
        ),
        (
            &[&["--healthz-bind-address=0.0.0.0", "--healthz-port=99"]],
            |c| c.healthz == Listen::At("0.0.0.0:99".parse().unwrap()),
        ),
        (&[&["--healthz-port=99"]], |c| c.healthz == Listen::Node(99)),
        (&[&["--bind-address=::1"]], |c| {
            c.metrics == Listen::At("[::1]:10249".parse().unwrap()) && c.bind_address.is_some()
        }),
        (&[&["--bind-address=0.0.0.0"]], |c| c.bind_address.is_none()),
        (&[&["--bind-address-hard-fail"]], |c| {
            c.bind_address_hard_fail
        }),
        (
            &[&["--oom-score-adj", "-5"], &["--oom-score-adj=-5"]],
            |c| c.oom_score_adj == -5,
        ),
        (
            &[&["-v", "4"], &["-v4"], &["-v=4"], &["--v=4"], &["--v", "4"]],
            |c| c.verbosity == 4,
        ),
        (&[&["--kubeconfig=/k", "--master=https://x"]], |c| {
            c.source
                == Source::Kube {
                    kubeconfig: Some("/k".into()),
                    master: Some("https://x".to_owned()),
                }
        }),
        (&[&["--source=dir:/srv/a:b"]], |c| {
            c.source == Source::Folder("/srv/a:b".into())
        }),
        (&[&["--session-affinity=hash"]], |c| c.affinity_by_hash),
        (&[&["--service-cidr=10.96.0.0/12"]], |c| {
            c.service_cidrs == [net("10.96.0.0/12")]
        }),
        (&[&["--iptables-variant=legacy"]], |c| {
            c.iptables_variant == IptablesVariant::Legacy
        }),
        (
            &[&[
                "--dry-run",
                "--once",
                "--init-only",
                "--localhost-nodeports",
            ]],
            |c| c.dry_run && c.once && c.init_only && c.localhost_node_ports,
        ),
        (&[&["--graceful-timeout=10s"]], |c| {
            c.graceful_timeout == MINUTE / 6
        }),
    ];
    for (spellings, look) in table {
        for args in *spellings {
            let checked = checked(args);
            assert!(look(&checked), "{args:?}: {checked:?}");
            // The same before and after a verb.
            let mut after = vec!["show"];
            after.extend(*args);
            assert!(look(&self::checked(&after)), "{after:?}");
        }
    }
}

#[test]
fn bad_values_are_refused_with_flag_value_and_remedy() {
    let table: &[(&[&str], &[&str])] = &[
        (
            &["--proxy-mode=ipvs"],
            &["--proxy-mode", "'ipvs'", "use nftables"],
        ),
        (
            &["--proxy-mode=ebpf"],
            &["'ebpf'", "auto, nftables, iptables or userspace"],
        ),
        (
            &["--cluster-cidr=10.244.0.0"],
            &["--cluster-cidr", "10.244.0.0", "like 10.244.0.0/16"],
        ),
        (
            &["--cluster-cidr=10.0.0.0/8,11.0.0.0/8"],
            &["--cluster-cidr", "one for each family"],
        ),
        (
            &["--nodeport-addresses=eth0"],
            &["--nodeport-addresses", "eth0", "primary"],
        ),
        (
            &["--masquerade-all=yes"],
            &["--masquerade-all", "'yes'", "true or false"],
        ),
        (
            &["--iptables-masquerade-bit=32"],
            &["--iptables-masquerade-bit", "32", "0..=31"],
        ),
        (
            &["--iptables-sync-period=0"],
            &["--iptables-sync-period", "greater than 0"],
        ),
        (
            &["--iptables-sync-period=30"],
            &["--iptables-sync-period", "'30'", "such as 30s"],
        ),
        (
            &["--iptables-min-sync-period=-1s"],
            &["--iptables-min-sync-period", "negative"],
        ),
        (
            &["--iptables-min-sync-period=1m"],
            &["--iptables-min-sync-period", "1m0s", "30s", "shorter"],
        ),
        (
            &["--config-sync-period=0s"],
            &["--config-sync-period", "greater than 0"],
        ),
        (&["--conntrack-min=-1"], &["--conntrack-min", "-1"]),
        (
            &["--oom-score-adj=1001"],
            &["--oom-score-adj", "1001", "-1000..=1000"],
        ),
        (
            &["--detect-local-mode=Magic"],
            &["--detect-local-mode", "Magic", "NodeCIDR"],
        ),
        (
            &["--detect-local-mode=BridgeInterface"],
            &["--detect-local-mode", "--pod-bridge-interface"],
        ),
        (
            &[
                "--detect-local-mode=InterfaceNamePrefix",
                "--pod-interface-name-prefix=",
            ],
            &["--pod-interface-name-prefix"],
        ),
        (
            &["--pod-bridge-interface=a\"b"],
            &["--pod-bridge-interface", "interface name"],
        ),
        (
            &["--pod-bridge-interface=../x"],
            &["--pod-bridge-interface", "interface name"],
        ),
        (
            &["--metrics-bind-address=:10249"],
            &["--metrics-bind-address", "127.0.0.1:10249"],
        ),
        (
            &["--metrics-bind-address=1.2.3.4:0"],
            &["--metrics-bind-address", "1 to 65535"],
        ),
        (
            &["--healthz-bind-address=1.2.3.4:70000"],
            &["--healthz-bind-address", "IP:PORT"],
        ),
        (
            &["--bind-address=host"],
            &["--bind-address", "'host'", "192.0.2.1"],
        ),
        (
            &["--feature-gates=A"],
            &["--feature-gates", "A", "Name=true"],
        ),
        (
            &["--feature-gates=A=maybe"],
            &["--feature-gates", "A", "true or false"],
        ),
        (&["--source=etcd"], &["--source", "'etcd'", "dir:PATH"]),
        (&["--source=dir:"], &["--source", "dir:PATH"]),
        (
            &["--session-affinity=sticky"],
            &["--session-affinity", "table", "hash"],
        ),
        (&["--service-cidr=x"], &["--service-cidr", "10.244.0.0/16"]),
        (
            &["--iptables-variant=x"],
            &["--iptables-variant", "auto, nft or legacy"],
        ),
        (&["--hostname-override= "], &["--hostname-override"]),
        (&["--frobnicate"], &["--frobnicate"]),
        (&["dance"], &["dance"]),
        (&["--masquerade-all", "false"], &["false"]),
        (&["show", "kubernetes"], &["kubernetes", "NAMESPACE/NAME"]),
        (&["trace", "10.0.0.1"], &["DST:PORT/PROTO"]),
        (&["trace", "x", "10.0.0.1:1/tcp"], &["SRC", "IP:PORT"]),
        (&["trace", "10.0.0.1", "10.0.0.1:1"], &["IP:PORT/PROTO"]),
        (&["trace", "10.0.0.1", "10.0.0.1:0/tcp"], &["IP:PORT/PROTO"]),
        (
            &["trace", "10.0.0.1", "10.0.0.1:1/icmp"],
            &["tcp, udp or sctp"],
        ),
    ];
    for (args, words) in table {
        let text = refusal(args);
        for word in *words {
            assert!(text.contains(word), "{args:?}: {word} in {text}");
        }
    }
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
