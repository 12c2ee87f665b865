//! The series of a tunnel of our own.

use tunnel::DropReason;

use super::{head, line};
use crate::backend::traffic::Traffic;

/// Reads the counters as of now. Every reason has its series from the start, so that a rate over it
/// is 0 and not absent.
pub fn render(traffic: &Traffic, out: &mut String) {
    let labels: Vec<String> = traffic
        .info
        .iter()
        .map(|(key, value)| format!("{key}=\"{value}\""))
        .collect();
    head(out, "tunnel_info", "gauge", "What carries the packets.");
    line(out, "tunnel_info", &labels.join(","), 1);
    let sums: Vec<_> = traffic
        .paths
        .iter()
        .map(|(path, counts)| (*path, counts.sums()))
        .collect();
    let flows = sums.iter().flat_map(|(path, sums)| {
        [("sent", sums.sent), ("received", sums.received)]
            .map(|(direction, flow)| (format!("direction=\"{direction}\",path=\"{path}\""), flow))
    });
    let flows: Vec<_> = flows.collect();
    let name = "tunnel_packets_total";
    head(out, name, "counter", "Packets carried.");
    for (labels, (packets, _)) in &flows {
        line(out, name, labels, packets);
    }
    let name = "tunnel_bytes_total";
    head(out, name, "counter", "Bytes of these, inner IP header on.");
    for (labels, (_, bytes)) in &flows {
        line(out, name, labels, bytes);
    }
    let name = "tunnel_dropped_total";
    head(
        out,
        name,
        "counter",
        "Packets that went nowhere, by reason.",
    );
    for (at, reason) in DropReason::ALL.into_iter().enumerate() {
        let dropped: u64 = sums.iter().map(|(_, sums)| sums.dropped[at]).sum();
        line(out, name, &format!("reason=\"{}\"", reason.name()), dropped);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tunnel::Counters;

    use super::*;

    #[test]
    fn counters_are_read_when_the_page_is_asked_for() {
        let (user, ebpf) = (Arc::<Counters>::default(), Arc::<Counters>::default());
        let traffic = Traffic {
            info: vec![
                ("data_path", "ebpf".to_owned()),
                ("device", "flannel0".to_owned()),
            ],
            paths: vec![("user", user.clone()), ("ebpf", ebpf.clone())],
        };
        let page = || {
            let mut out = String::new();
            render(&traffic, &mut out);
            out
        };
        assert!(page().contains("flanneld_tunnel_dropped_total{reason=\"no_peer\"} 0\n"));
        ebpf.count_sent(2, 3000);
        user.count_received(1, 84);
        user.count_dropped(DropReason::NoPeer, 1);
        ebpf.count_dropped(DropReason::NoPeer, 2);
        let page = page();
        for wanted in [
            "flanneld_tunnel_info{data_path=\"ebpf\",device=\"flannel0\"} 1",
            "flanneld_tunnel_packets_total{direction=\"sent\",path=\"ebpf\"} 2",
            "flanneld_tunnel_packets_total{direction=\"sent\",path=\"user\"} 0",
            "flanneld_tunnel_bytes_total{direction=\"sent\",path=\"ebpf\"} 3000",
            "flanneld_tunnel_bytes_total{direction=\"received\",path=\"user\"} 84",
            "flanneld_tunnel_dropped_total{reason=\"no_peer\"} 3",
            "flanneld_tunnel_dropped_total{reason=\"too_big\"} 0",
        ] {
            assert!(
                page.lines().any(|line| line == wanted),
                "{wanted} is missing in\n{page}"
            );
        }
        let reasons = page.matches("tunnel_dropped_total{").count();
        assert_eq!(reasons, DropReason::ALL.len());
    }
}
