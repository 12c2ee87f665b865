//! The bounds of kube-proxy's histograms, in seconds.

/// Of syncs: 1 ms, doubled 14 times, to 16.4 s.
pub(super) fn sync() -> Vec<f64> {
    (0..15)
        .map(|step| 0.001 * f64::from(1_u32 << step))
        .collect()
}

/// Of network programming: 0.25, 0.5, each second to 59, each 5 s to 115, each 30 s to 300.
pub(super) fn programming() -> Vec<f64> {
    let seconds = (1..=59).chain((60..=115).step_by(5));
    let seconds = seconds.chain((120..=300).step_by(30)).map(f64::from);
    [0.25, 0.5].into_iter().chain(seconds).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_those_of_kube_proxy() {
        let sync = sync();
        assert_eq!((sync.len(), sync[0], sync[14]), (15, 0.001, 16.384));
        let programming = programming();
        assert_eq!(programming.len(), 2 + 59 + 12 + 7);
        assert!(programming.is_sorted());
        assert_eq!(programming.last(), Some(&300.0));
        for bound in [0.25, 0.5, 1.0, 59.0, 60.0, 65.0, 115.0, 120.0, 150.0] {
            assert!(programming.contains(&bound), "{bound}");
        }
    }
}
