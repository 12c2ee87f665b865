//! Flags that are refused, by table.

use super::refusal;

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
