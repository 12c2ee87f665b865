//! Device features.

use crate::{Error, Result};

/// Switches transmit checksum offload of a link in the calling thread's namespace, as
/// `ethtool -K LINK tx on|off` does.
pub fn set_tx_checksum(link: &str, on: bool) -> Result<()> {
    crate::sys::set_tx_checksum(link, on).map_err(|cause| {
        let state = if on { "on" } else { "off" };
        Error::new(
            format!("switch transmit checksum offload of {link} {state}"),
            cause,
        )
    })
}
