//! tmp
pub mod datapath;
pub mod events;
pub mod registrar;
