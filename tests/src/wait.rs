//! Waiting for a condition with a limit, and saying what was missing when it passes.

use anyhow::{Context, Result};
use std::time::{Duration, Instant};

/// Tries `check` every 50 ms until it succeeds; after `limit` returns its last error.
pub fn eventually<T>(
    what: &str,
    limit: Duration,
    mut check: impl FnMut() -> Result<T>,
) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        match check() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= end => {
                return Err(error).with_context(|| {
                    format!("waited {:.1} s in vain until {what}", limit.as_secs_f64())
                });
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
