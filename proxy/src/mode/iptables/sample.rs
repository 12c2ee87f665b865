//! Choosing among endpoints: which ones of too many, and with what chance.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::model::Endpoint;

/// One in `left`, as exactly as the kernel's `statistic` holds it: in 31 bits.
pub(super) fn probability(left: usize) -> f64 {
    let whole = f64::from(1u32 << 31);
    (whole / left as f64).round() / whole
}

/// At most `limit` of the endpoints, chosen by node, so that the nodes together use all of them.
/// An endpoint more or less moves at most one of the chosen.
pub(super) fn sample(endpoints: &[Endpoint], limit: usize, node: &str) -> Vec<Endpoint> {
    if endpoints.len() <= limit {
        return endpoints.to_vec();
    }
    let rank = |endpoint: &Endpoint| {
        // Without a random seed: another process of this node chooses the same.
        let mut hasher = DefaultHasher::new();
        (node, endpoint.ip, endpoint.port).hash(&mut hasher);
        hasher.finish()
    };
    let mut ranked: Vec<_> = endpoints
        .iter()
        .map(|endpoint| (rank(endpoint), *endpoint))
        .collect();
    ranked.select_nth_unstable(limit);
    ranked.truncate(limit);
    let mut chosen: Vec<_> = ranked.into_iter().map(|(_, endpoint)| endpoint).collect();
    chosen.sort_unstable();
    chosen
}
