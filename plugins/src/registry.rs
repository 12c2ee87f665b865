//! The plugins in this binary, by name.

use crate::{bridge::Bridge, cni::Plugin, portmap::Portmap, ptp::Ptp};

/// Every plugin, sorted by name.
pub static ALL: &[&dyn Plugin] = &[&Bridge, &Portmap, &Ptp];

/// The plugin of that name.
pub fn find(name: &str) -> Option<&'static dyn Plugin> {
    ALL.iter().copied().find(|plugin| plugin.name() == name)
}
