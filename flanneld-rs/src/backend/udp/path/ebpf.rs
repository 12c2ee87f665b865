//! The programs of the `tunnel` crate.

use std::sync::Arc;

use tunnel::{Counters, Table};

use super::{place::Place, programs::Attach};
use crate::backend::traffic::Count;

const ABSENT: &str = "this build has no programs";

/// Attached programs.
pub struct Loaded(Arc<Counters>);

impl Attach for Loaded {
    fn attach(_: &Place, _: &Table) -> Result<Self, String> {
        Err(ABSENT.to_owned())
    }

    fn publish(&mut self, _: &Table) -> Result<(), String> {
        Err(ABSENT.to_owned())
    }

    fn check(&self) -> Result<bool, String> {
        Err(ABSENT.to_owned())
    }

    fn describe(&self) -> String {
        ABSENT.to_owned()
    }

    fn counts(&self) -> Arc<dyn Count> {
        Arc::clone(&self.0) as _
    }

    fn remove(_: &str, _: Option<&str>) -> Result<usize, String> {
        Ok(0)
    }
}
