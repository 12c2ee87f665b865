//! Names and labels as operators' dashboards have them.

use super::*;

#[test]
fn all_names_and_labels_of_kube_proxy_are_there() {
    let metrics = Metrics::new().unwrap();
    let at = UNIX_EPOCH + Duration::from_millis(1_500);
    metrics.queued(Family::V4, at);
    metrics.synced(Family::V4, true, Duration::from_millis(3), at, true);
    metrics.synced(Family::V4, false, Duration::from_millis(1), at, true);
    metrics.programmed(Family::V4, at, at + Duration::from_secs(2));
    metrics.changes(2, 3);
    metrics.pending(4, 5);
    metrics.no_local_endpoints(Family::V6, TrafficPolicy::External, 6);
    metrics.iptables_restore_failed(Family::V4, false);
    metrics.iptables_restore_failed(Family::V4, true);
    metrics.iptables_rules(Family::V4, Table::Nat, 7, 8);
    metrics.nftables_failed(Family::V4, false);
    metrics.nftables_failed(Family::V4, true);
    metrics.conntrack(Family::V4, Duration::from_millis(1), 9);
    metrics.healthz(200);
    metrics.livez(503);
    metrics.invalid_dropped(10);
    metrics.localhost_accepted(11);
    let text = metrics.render().unwrap();
    for line in [
        r#"sync_proxy_rules_duration_seconds_count{ip_family="IPv4"} 2"#,
        r#"sync_full_proxy_rules_duration_seconds_bucket{ip_family="IPv4",le="0.002"} 0"#,
        r#"sync_full_proxy_rules_duration_seconds_bucket{ip_family="IPv4",le="0.004"} 1"#,
        r#"sync_partial_proxy_rules_duration_seconds_count{ip_family="IPv4"} 1"#,
        r#"sync_proxy_rules_last_timestamp_seconds{ip_family="IPv4"} 1.5"#,
        r#"sync_proxy_rules_last_queued_timestamp_seconds{ip_family="IPv4"} 1.5"#,
        r#"network_programming_duration_seconds_sum{ip_family="IPv4"} 2"#,
        "sync_proxy_rules_service_changes_total 2",
        "sync_proxy_rules_endpoint_changes_total 3",
        "sync_proxy_rules_service_changes_pending 4",
        "sync_proxy_rules_endpoint_changes_pending 5",
        r#"sync_proxy_rules_no_local_endpoints_total{ip_family="IPv6",traffic_policy="external"} 6"#,
        r#"sync_proxy_rules_iptables_restore_failures_total{ip_family="IPv4"} 1"#,
        r#"sync_proxy_rules_iptables_partial_restore_failures_total{ip_family="IPv4"} 1"#,
        r#"sync_proxy_rules_iptables_total{ip_family="IPv4",table="nat"} 7"#,
        r#"sync_proxy_rules_iptables_last{ip_family="IPv4",table="nat"} 8"#,
        r#"sync_proxy_rules_nftables_sync_failures_total{ip_family="IPv4"} 1"#,
        r#"sync_proxy_rules_nftables_cleanup_failures_total{ip_family="IPv4"} 1"#,
        r#"conntrack_reconciler_sync_duration_seconds_count{ip_family="IPv4"} 1"#,
        r#"conntrack_reconciler_deleted_entries_total{ip_family="IPv4"} 9"#,
        r#"proxy_healthz_total{code="200"} 1"#,
        r#"proxy_livez_total{code="503"} 1"#,
        "iptables_ct_state_invalid_dropped_packets_total 10",
        "iptables_localhost_nodeports_accepted_packets_total 11",
    ] {
        assert!(
            text.contains(&format!("\nkubeproxy_{line}\n")),
            "{line} in\n{text}"
        );
    }
}

#[test]
fn a_sync_with_errors_counts_and_is_not_the_last_good_one() {
    let metrics = Metrics::new().unwrap();
    let at = UNIX_EPOCH + Duration::from_secs(9);
    metrics.synced(Family::V6, true, Duration::ZERO, at, false);
    let text = metrics.render().unwrap();
    assert!(text.contains(r#"kubeproxy_sync_proxy_rules_failures_total{ip_family="IPv6"} 1"#));
    assert!(!text.contains("last_timestamp_seconds{"), "{text}");
}

#[test]
fn totals_kept_elsewhere_are_asked_for_and_never_go_down() {
    let metrics = Metrics::new().unwrap();
    let connections = std::sync::atomic::AtomicU64::new(7);
    metrics.on_render(move |metrics| {
        let totals = UserspaceTotals {
            connections: connections.swap(5, std::sync::atomic::Ordering::Relaxed),
            errors: [("refused", 2)].into(),
            ..UserspaceTotals::default()
        };
        metrics.userspace(Family::V4, &totals);
    });
    for _ in 0..2 {
        let text = metrics.render().unwrap();
        for line in [
            r#"kubeproxy_userspace_connections_total{ip_family="IPv4"} 7"#,
            r#"kubeproxy_userspace_errors_total{ip_family="IPv4",reason="refused"} 2"#,
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}

#[test]
fn a_trigger_time_of_the_future_counts_as_at_once() {
    let metrics = Metrics::new().unwrap();
    let at = UNIX_EPOCH + Duration::from_secs(9);
    metrics.programmed(Family::V4, at + Duration::from_secs(1), at);
    let text = metrics.render().unwrap();
    assert!(
        text.contains(
            r#"network_programming_duration_seconds_bucket{ip_family="IPv4",le="0.25"} 1"#
        ),
        "{text}"
    );
}
