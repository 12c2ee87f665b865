//! Node settings: what the kernel lets us set in a namespace of our own, and what it does not.

use std::collections::BTreeMap;
use std::time::Duration;

use proxy::config::Conntrack;
use proxy::settings::{self, Setting, Value};

use crate::in_namespace;

const ESTABLISHED: &str = "net.netfilter.nf_conntrack_tcp_timeout_established";
const MAX: &str = "net.netfilter.nf_conntrack_max";

/// Without the limits, which belong to the host, and without our own oom_score_adj, which would
/// outlive the test.
fn wanted(conntrack: &Conntrack) -> BTreeMap<Setting, Value> {
    let mut wanted = settings::wanted(conntrack, 2, true, 0);
    wanted.remove(&Setting::OomScoreAdj);
    wanted
}

fn times() -> Conntrack {
    Conntrack {
        max_per_core: 0,
        min: 0,
        tcp_established: Duration::from_secs(86_400),
        tcp_close_wait: Duration::from_secs(3_600),
        tcp_be_liberal: true,
        udp: Duration::from_secs(31),
        udp_stream: Duration::from_secs(121),
    }
}

#[test]
fn times_are_set_once_and_stay() {
    in_namespace("times", || {
        // Sets up connection tracking in the namespace.
        if kernel::sysctl::read(ESTABLISHED).is_err() {
            return crate::skip(format_args!("needs the module nf_conntrack"));
        }
        let wanted = wanted(&times());
        let changes = settings::plan(&wanted, &settings::observe(&wanted).0);
        assert!(changes.len() >= 5, "{changes:?}");
        assert!(!settings::conntrack_is_liberal());
        let problems = settings::apply(&changes);
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(kernel::sysctl::read(ESTABLISHED).unwrap(), "86400");
        let route_localnet = kernel::sysctl::read("net.ipv4.conf.all.route_localnet");
        assert_eq!(route_localnet.unwrap(), "1");
        assert!(settings::conntrack_is_liberal());
        let again = settings::plan(&wanted, &settings::observe(&wanted).0);
        assert_eq!(again, []);
    });
}

#[test]
fn a_limit_that_is_the_hosts_is_read_only_and_said_so() {
    in_namespace("limit", || {
        let Ok(limit) = kernel::sysctl::read(MAX) else {
            return crate::skip(format_args!("needs the module nf_conntrack"));
        };
        let limit: i64 = limit.parse().unwrap();
        let wanted = BTreeMap::from([(Setting::Sysctl(MAX), Value::AtLeast(limit + 1))]);
        let changes = settings::plan(&wanted, &settings::observe(&wanted).0);
        assert_eq!(changes.len(), 1);
        let problems = settings::apply(&changes);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].is_refused(), "{}", problems[0]);
        let text = problems[0].to_string();
        assert!(
            text.starts_with(&format!("set {MAX} to {}: ", limit + 1)),
            "{text}"
        );
        assert_eq!(kernel::sysctl::read(MAX).unwrap(), limit.to_string());
    });
}
