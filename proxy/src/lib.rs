//! The Service proxy, as a library so that tests and the all-in-one can use its parts.

pub mod config;
pub mod daemon;
pub mod driver;
pub mod health;
mod intern;
pub mod logging;
pub mod metrics;
pub mod mode;
pub mod model;
pub mod objects;
pub mod settings;
pub mod show;
pub mod source;
pub mod stale;
pub mod state;
mod sys;
pub mod trace;
