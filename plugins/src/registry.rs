//! The plugins in this binary, by name.

use crate::cni::Plugin;

/// Every plugin, sorted by name.
pub static ALL: &[&dyn Plugin] = &[];

/// The plugin of that name.
pub fn find(name: &str) -> Option<&'static dyn Plugin> {
    ALL.iter().copied().find(|plugin| plugin.name() == name)
}
