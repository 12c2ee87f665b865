//! The plugins in this binary, by name.

use crate::cni::Plugin;
use crate::flannel::Flannel;
use crate::host_local::HostLocal;
use crate::static_ipam::StaticIpam;

/// Every plugin, sorted by name.
pub static ALL: &[&dyn Plugin] = &[&Flannel, &HostLocal, &StaticIpam];

/// The plugin of that name.
pub fn find(name: &str) -> Option<&'static dyn Plugin> {
    ALL.iter().copied().find(|plugin| plugin.name() == name)
}
