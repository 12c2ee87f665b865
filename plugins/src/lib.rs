//! The standard CNI plugins, called by name.
