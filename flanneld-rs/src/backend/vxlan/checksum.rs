//! The checksum-offload trap of old kernels.

use kernel::sysctl;

/// Kernels before 5.7 send wrong checksums when a packet that leaves by the device was translated
/// (flannel#1279); without hardware checksums they are computed, and right.
pub fn mend_offload(device: &str) {
    let release = sysctl::read("kernel.osrelease").unwrap_or_default();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= (5, 7) {
        return;
    }
    match kernel::ethtool::set_tx_checksum(device, false) {
        Ok(()) => tracing::info!(
            "switched transmit checksum offload of {device} off: kernel {release} computes wrong \
             checksums for translated packets"
        ),
        Err(error) => tracing::warn!("{error}; Pods may see checksum errors on this kernel"),
    }
}
