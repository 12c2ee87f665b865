//! Kernel parameters of the TUN device. (`rp_filter` needs none: the way back to a Pod of a peer leads into
//! the device, whether programs or user space put the packet there.)

use kernel::sysctl;

use crate::backend::Report;

/// A parameter to be set.
pub type Setting = (String, &'static str);

/// Pure: what is to be set; `accept_ra` is the device's, `None` without IPv6 in the kernel.
fn plan(device: &str, v6: bool, accept_ra: Option<&str>) -> Option<Setting> {
    // Routes inside the overlay are ours to make; a router advertised there is not to be believed.
    let believes = v6 && accept_ra.is_some_and(|value| value != "0");
    believes.then(|| (format!("net/ipv6/conf/{device}/accept_ra"), "0"))
}

/// What differs from what it must be; `v6`: the network has IPv6.
pub fn wanted(device: &str, v6: bool) -> kernel::Result<Option<Setting>> {
    let accept_ra = match sysctl::read(&format!("net/ipv6/conf/{device}/accept_ra")) {
        Ok(value) => Some(value),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error),
    };
    Ok(plan(device, v6, accept_ra.as_deref()))
}

/// Makes it so.
pub fn ensure(device: &str, v6: bool, report: &mut Report) -> kernel::Result<()> {
    if let Some((key, value)) = wanted(device, v6)? {
        sysctl::ensure(&key, value)?;
        report.changed("set sysctl", || describe(&(key, value)));
    }
    Ok(())
}

/// A setting as a printable command.
pub fn describe((key, value): &Setting) -> String {
    format!("set sysctl {key}={value}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn router_advertisements_are_off_where_there_is_ipv6() {
        let key = "net/ipv6/conf/flannel0/accept_ra".to_owned();
        assert_eq!(plan("flannel0", true, Some("1")), Some((key, "0")));
        assert_eq!(plan("flannel0", true, Some("0")), None);
        assert_eq!(plan("flannel0", true, None), None);
        assert_eq!(plan("flannel0", false, Some("1")), None);
    }
}
