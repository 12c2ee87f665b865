//! Plans by table, and a plan applied in a namespace of its own.

use super::*;

fn defaults() -> Conntrack {
    Conntrack {
        max_per_core: 32_768,
        min: 131_072,
        tcp_established: Duration::from_secs(86_400),
        tcp_close_wait: Duration::from_secs(3_600),
        tcp_be_liberal: false,
        udp: Duration::ZERO,
        udp_stream: Duration::ZERO,
    }
}

#[test]
fn the_limit_by_cores_floor_and_cap() {
    for (per_core, min, cores, wanted) in [
        (32_768, 131_072, 2, Some(131_072)),
        (32_768, 131_072, 8, Some(262_144)),
        (32_768, 131_072, 64, Some(1_048_576)),
        (32_768, 0, 1, Some(32_768)),
        (u32::MAX, 0, usize::MAX, Some(1_048_576)),
        // The operator's own floor is no matter of cores.
        (32_768, 2_000_000, 64, Some(2_000_000)),
        (0, 131_072, 64, None),
    ] {
        let conntrack = Conntrack {
            max_per_core: per_core,
            min,
            ..defaults()
        };
        assert_eq!(
            connections(&conntrack, cores),
            wanted,
            "{per_core} {min} {cores}"
        );
    }
}

#[test]
fn limits_are_raised_and_times_set() {
    use Setting::{Hashsize, OomScoreAdj, Sysctl};
    let max = Sysctl("net.netfilter.nf_conntrack_max");
    let established = Sysctl("net.netfilter.nf_conntrack_tcp_timeout_established");
    let close_wait = Sysctl("net.netfilter.nf_conntrack_tcp_timeout_close_wait");
    let wanted = wanted(&defaults(), 8, true, -999);
    // As found, for a machine that has the module.
    let found = BTreeMap::from([
        (max, 65_536),
        (Hashsize, 16_384),
        (established, 432_000),
        (close_wait, 3_600),
        (Sysctl("net.ipv4.conf.all.route_localnet"), 0),
        (OomScoreAdj, 0),
    ]);
    let texts: Vec<_> = plan(&wanted, &found)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        texts,
        [
            "sysctl -w net.ipv4.conf.all.route_localnet=1 # is 0",
            "sysctl -w net.netfilter.nf_conntrack_max=262144 # is 65536",
            "sysctl -w net.netfilter.nf_conntrack_tcp_timeout_established=86400 # is 432000",
            "echo 65536 > /sys/module/nf_conntrack/parameters/hashsize # is 16384",
            "echo -999 > /proc/self/oom_score_adj # is 0",
        ]
    );
    // What is larger stays, and a setting that is not there is no change.
    let found = BTreeMap::from([(max, 4_000_000), (Hashsize, 1_000_000), (OomScoreAdj, -999)]);
    assert_eq!(plan(&wanted, &found), []);
}

#[test]
fn what_is_not_asked_for_is_left_alone() {
    let conntrack = Conntrack {
        max_per_core: 0,
        tcp_established: Duration::ZERO,
        tcp_close_wait: Duration::ZERO,
        ..defaults()
    };
    let only = BTreeMap::from([(Setting::OomScoreAdj, Value::Exactly(0))]);
    assert_eq!(wanted(&conntrack, 8, false, 0), only);
    let conntrack = Conntrack {
        tcp_be_liberal: true,
        udp: Duration::from_millis(1),
        udp_stream: Duration::from_secs(u64::MAX),
        ..conntrack
    };
    let wanted = wanted(&conntrack, 8, false, 0);
    let of = |key| wanted[&Setting::Sysctl(key)];
    assert_eq!(of(LIBERAL), Value::Exactly(1));
    assert_eq!(
        of("net.netfilter.nf_conntrack_udp_timeout"),
        Value::Exactly(1)
    );
    assert_eq!(
        of("net.netfilter.nf_conntrack_udp_timeout_stream"),
        Value::Exactly(2_147_483)
    );
}
