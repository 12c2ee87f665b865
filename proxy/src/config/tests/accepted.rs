//! Flags that are understood, by table.

use super::*;

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
