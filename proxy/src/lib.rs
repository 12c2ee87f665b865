//! The Service proxy, as a library so that tests and the all-in-one can use its parts.

pub mod mode;
pub mod model;
pub mod trace;
