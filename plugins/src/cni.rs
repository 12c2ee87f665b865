//! The CNI protocol, spec 1.1.0: what goes in (environment, configuration), what comes out (results,
//! errors), and how one plugin calls another.
//!
//! A plugin implements [`Plugin`]; [`serve`] does for it what the spec asks of every plugin.
//! Nothing here reads the process environment: it comes in as an [`Env`].

pub mod args;
mod call;
pub mod config;
pub mod delegate;
mod env;
mod error;
pub mod json;
mod plugin;
pub mod result;
pub mod undo;
mod version;

pub use call::Call;
pub use env::{Env, Verb};
pub use error::{Error, Result, code};
pub use plugin::{Plugin, serve};
pub use result::{CniResult, Dns, Interface, IpConfig, Route};
pub use undo::{Undo, with_undo};
pub use version::Version;
