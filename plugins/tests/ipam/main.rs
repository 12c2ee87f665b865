//! The real binary `weft-cni`, run as a runtime would run it; nothing here needs root.

mod concurrency;
mod harness;
mod install;
mod protocol;
mod reference;
