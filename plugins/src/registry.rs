//! The plugins in this binary, by name.

use crate::cni::Plugin;
use crate::host_local::HostLocal;

/// Every plugin, sorted by name.
pub static ALL: &[&dyn Plugin] = &[&HostLocal];

/// The plugin of that name.
pub fn find(name: &str) -> Option<&'static dyn Plugin> {
    ALL.iter().copied().find(|plugin| plugin.name() == name)
}
