//! The Service proxy, as a library so that tests and the all-in-one can use its parts.

pub mod config;
pub mod health;
pub mod logging;
pub mod metrics;
pub mod mode;
pub mod model;
pub mod objects;
pub mod source;
pub mod state;
pub mod settings;
pub mod stale;
mod sys;
