//! The plugins on real network namespaces; needs root, and says so where it has none.

mod bed;
mod flannel;
mod loopback;
