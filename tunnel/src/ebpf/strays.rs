//! Filters that some process of ours left on the links of this namespace.
//!
//! Theory. A clsact filter lives in its slot until somebody takes it out, and a process killed before its
//! uplink or port changed leaves one where the next process does not attach. It would go on by a table
//! of yesterday. It is found by its program's name, and told from those of other devices by its
//! configuration. (A tcx link goes with its pin, which has one name wherever the link is.)

use kernel::{Direction, Filter, Link, Netlink};

use super::{
    Error, MADE,
    layout::COUNTERS,
    object::Former,
    site::{EGRESS, INGRESS, Site},
};

/// A filter of ours.
pub(super) struct Stray {
    site: Site,
    filter: Filter,
    /// The qdisc was made for it.
    made: bool,
}

/// What is attached for `device`, or for a device that is gone, on `links`, which are all there are: on the
/// device itself, and on `underlay` (on every link, if that is not known). What sits at a site of
/// `kept` is none.
pub(super) fn find(
    netlink: &mut Netlink,
    links: &[Link],
    device: Option<&Link>,
    underlay: Option<&str>,
    kept: &[Site],
) -> Result<Vec<Stray>, Error> {
    let mut found = Vec::new();
    for link in links {
        let is_device = device.is_some_and(|device| device.index == link.index);
        if !is_device && underlay.is_some_and(|underlay| underlay != link.name) {
            continue;
        }
        let site = match is_device {
            true => Site::new(link, Direction::Egress, EGRESS, 1),
            false => Site::new(link, Direction::Ingress, INGRESS, 0),
        };
        for filter in site.filters(netlink)? {
            if kept
                .iter()
                .any(|kept| kept.index == link.index && kept.holds(&filter))
            {
                continue;
            }
            let former = filter.program_id.map(Former::observe).unwrap_or_default();
            // Who removes everything removes also what does not tell its device.
            let stale = || {
                former.device.map_or(kept.is_empty(), |index| {
                    !links.iter().any(|link| link.index == index)
                })
            };
            let ours = |index| device.is_some_and(|device| device.index == index);
            if is_device || former.device.is_some_and(ours) || stale() {
                let made = former.carried.map_or(0, |words| words[COUNTERS]);
                found.push(Stray {
                    site: site.clone(),
                    filter,
                    made: made & MADE[usize::from(!is_device)] != 0,
                });
            }
        }
    }
    Ok(found)
}

/// Takes them out, and the qdiscs that were made for them where nothing else is left on those; says how
/// many they were. (A qdisc is known by the maps of the programs on it, so all are found before the first
/// one goes.)
pub(super) fn detach(netlink: &mut Netlink, strays: &[Stray]) -> Result<usize, Error> {
    for stray in strays {
        stray.site.detach_filter(&stray.filter)?;
    }
    for stray in strays.iter().filter(|stray| stray.made) {
        remove_empty_clsact(netlink, stray.site.index)?;
    }
    Ok(strays.len())
}

/// Removes a link's clsact qdisc if nothing is attached to it.
pub(super) fn remove_empty_clsact(netlink: &mut Netlink, link: u32) -> Result<(), Error> {
    let mut left = netlink.filters(link, Direction::Ingress)?;
    left.extend(netlink.filters(link, Direction::Egress)?);
    if left.is_empty() {
        netlink.delete_clsact(link)?;
    }
    Ok(())
}
