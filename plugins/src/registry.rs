//! The plugins in this binary, by name.

use crate::cni::Plugin;
use crate::flannel::Flannel;
use crate::host_local::HostLocal;
use crate::loopback::Loopback;
use crate::static_ipam::StaticIpam;

/// Every plugin, sorted by name.
pub static ALL: &[&dyn Plugin] = &[&Flannel, &HostLocal, &Loopback, &StaticIpam];

/// The plugin of that name.
pub fn find(name: &str) -> Option<&'static dyn Plugin> {
    ALL.iter().copied().find(|plugin| plugin.name() == name)
}
