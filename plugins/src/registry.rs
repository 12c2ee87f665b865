//! The plugins in this binary, by name.

use crate::bridge::Bridge;
use crate::cni::Plugin;
use crate::flannel::Flannel;
use crate::host_local::HostLocal;
use crate::loopback::Loopback;
use crate::portmap::Portmap;
use crate::ptp::Ptp;
use crate::static_ipam::StaticIpam;

/// Every plugin, sorted by name.
pub static ALL: &[&dyn Plugin] = &[
    &Bridge,
    &Flannel,
    &HostLocal,
    &Loopback,
    &Portmap,
    &Ptp,
    &StaticIpam,
];

/// The plugin of that name.
pub fn find(name: &str) -> Option<&'static dyn Plugin> {
    ALL.iter().copied().find(|plugin| plugin.name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_distinct_and_found() {
        let names: Vec<_> = ALL.iter().map(|plugin| plugin.name()).collect();
        assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
        for name in names {
            assert_eq!(find(name).map(Plugin::name), Some(name));
        }
        assert!(find("weft-cni").is_none());
    }
}
