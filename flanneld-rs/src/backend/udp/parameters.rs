//! Kernel parameters of the TUN device.

use kernel::sysctl;

use crate::backend::Report;

/// What decides the device's parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Situation {
    /// The network has IPv6.
    pub v6: bool,
    /// Programs on the underlay redirect packets into the device. The reverse path filter then looks at
    /// packets that the device never read from its own queue; strict, it drops them.
    pub redirected: bool,
}

/// A parameter to be set.
pub type Setting = (String, &'static str);

/// Pure: what is to be set. `filters` are `rp_filter` of all devices together and of this one, of
/// which the larger counts (Documentation/networking/ip-sysctl.rst: 0 off, 1 strict, 2 loose);
/// `accept_ra` is the device's, `None` without IPv6 in the kernel.
fn plan(
    device: &str,
    situation: Situation,
    filters: [u8; 2],
    accept_ra: Option<&str>,
) -> Vec<Setting> {
    let mut settings = Vec::new();
    if situation.redirected && filters.into_iter().max() == Some(1) {
        settings.push((format!("net/ipv4/conf/{device}/rp_filter"), "2"));
    }
    // Routes inside the overlay are ours to make; a router advertised there is not to be believed.
    if situation.v6 && accept_ra.is_some_and(|value| value != "0") {
        settings.push((format!("net/ipv6/conf/{device}/accept_ra"), "0"));
    }
    settings
}

/// The settings that differ from what they must be.
pub fn wanted(device: &str, situation: Situation) -> kernel::Result<Vec<Setting>> {
    let filter = |of: &str| -> kernel::Result<u8> {
        let value = sysctl::read(&format!("net/ipv4/conf/{of}/rp_filter"))?;
        Ok(value.parse().unwrap_or_default())
    };
    let filters = [filter("all")?, filter(device)?];
    let accept_ra = match sysctl::read(&format!("net/ipv6/conf/{device}/accept_ra")) {
        Ok(value) => Some(value),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error),
    };
    Ok(plan(device, situation, filters, accept_ra.as_deref()))
}

/// Makes them so.
pub fn ensure(device: &str, situation: Situation, report: &mut Report) -> kernel::Result<()> {
    for (key, value) in wanted(device, situation)? {
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

    fn text(situation: Situation, filters: [u8; 2], accept_ra: Option<&str>) -> Vec<String> {
        let settings = plan("flannel0", situation, filters, accept_ra);
        settings
            .into_iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect()
    }

    #[test]
    fn a_strict_filter_is_loosened_only_where_packets_are_redirected() {
        let redirected = Situation {
            v6: false,
            redirected: true,
        };
        let loose = ["net/ipv4/conf/flannel0/rp_filter=2"];
        assert_eq!(text(redirected, [1, 0], None), loose);
        assert_eq!(text(redirected, [0, 1], None), loose);
        assert_eq!(text(redirected, [1, 1], None), loose);
        for filters in [[0, 0], [2, 1], [1, 2], [0, 2]] {
            assert!(text(redirected, filters, None).is_empty(), "{filters:?}");
        }
        let read = Situation {
            v6: false,
            redirected: false,
        };
        assert!(text(read, [1, 1], Some("1")).is_empty());
    }

    #[test]
    fn router_advertisements_are_off_where_there_is_ipv6() {
        let v6 = Situation {
            v6: true,
            redirected: false,
        };
        let off = ["net/ipv6/conf/flannel0/accept_ra=0"];
        assert_eq!(text(v6, [0, 0], Some("1")), off);
        assert!(text(v6, [0, 0], Some("0")).is_empty());
        assert!(text(v6, [0, 0], None).is_empty());
    }
}
