//! The Service proxy, as a library so that tests and the all-in-one can use its parts.

mod intern;
pub mod mode;
pub mod model;
pub mod objects;
pub mod source;
pub mod state;
