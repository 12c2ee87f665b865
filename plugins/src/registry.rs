//! The plugins in this binary, by name.

use crate::bridge::Bridge;
use crate::cni::Plugin;
use crate::host_local::HostLocal;
use crate::portmap::Portmap;
use crate::ptp::Ptp;

/// Every plugin, sorted by name.
pub static ALL: &[&dyn Plugin] = &[&Bridge, &HostLocal, &Portmap, &Ptp];

/// The plugin of that name.
pub fn find(name: &str) -> Option<&'static dyn Plugin> {
    ALL.iter().copied().find(|plugin| plugin.name() == name)
}
