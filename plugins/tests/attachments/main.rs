//! `bridge`, `ptp`, `portmap` and `ipMasq` on real network namespaces: the built program is run in a
//! namespace that plays the host, and beside it, on the same inputs, the reference plugins that
//! Debian's `containernetworking-plugins` puts into /usr/lib/cni.
//!
//! Needs root; without it every test says that it is skipped.

mod bed;
mod bridge;
mod failures;
mod masquerade;
mod portmap;
mod ptp;
mod reference;
