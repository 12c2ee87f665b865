//! The two places where programs sit, and what sits there.
//!
//! Theory. A tcx link (Linux 6.6) lives as long as something holds it: a pin on a bpffs outlives the
//! process. A clsact filter lives by itself, in its slot of priority and handle. Either way a new program
//! comes before the old one goes: a tcx link is put before all others and its pin renamed over the old
//! one's; a filter is replaced in its slot. tcx runs before clsact, so that a change of kind has no
//! gap either.

use std::{io, path::Path};

use aya::programs::{
    LinkOrder, ProgramInfo, SchedClassifier, TcAttachType,
    links::{FdLink, PinnedLink},
    loaded_programs,
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact},
};
use kernel::{Direction, Filter, Link, Netlink};

use super::Error;

/// The egress program's name in the kernel.
pub(super) const EGRESS: &str = "weft_egress";
/// The ingress program's name in the kernel.
pub(super) const INGRESS: &str = "weft_ingress";
/// Of our filters. Early: what is ours need not pass others, and what is not passes on.
const PRIORITY: u16 = 8;

/// Where a program sits.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub interface: String,
    pub index: u32,
    pub direction: Direction,
    /// Its program, also the name of its pin.
    pub program: &'static str,
    /// Tells the filters of several networks on one underlay apart.
    pub handle: u16,
}

impl Site {
    /// On this link.
    pub(super) fn new(
        link: &Link,
        direction: Direction,
        program: &'static str,
        handle: u16,
    ) -> Self {
        Self {
            interface: link.name.clone(),
            index: link.index,
            direction,
            program,
            handle,
        }
    }

    /// Whether a filter of this link and direction is in our slot.
    pub(super) fn holds(&self, filter: &Filter) -> bool {
        filter.priority == PRIORITY && filter.handle == u32::from(self.handle)
    }

    fn attach_type(&self) -> TcAttachType {
        match self.direction {
            Direction::Ingress => TcAttachType::Ingress,
            Direction::Egress => TcAttachType::Egress,
        }
    }

    fn refused(&self, doing: &str, cause: &(dyn std::error::Error + 'static)) -> Error {
        Error::refused(
            format!("{doing} {} on {}", self.program, self.interface),
            cause,
        )
    }

    /// Attaches by tcx before all others and pins the link over the one that was pinned.
    pub(super) fn attach_tcx(
        &self,
        program: &mut SchedClassifier,
        pins: &Path,
    ) -> Result<(), Error> {
        let (new, pin) = (
            pins.join(format!("{}_new", self.program)),
            pins.join(self.program),
        );
        // Left by a process that ended between the two steps below.
        remove_file(&new).map_err(|cause| self.refused("unpin", &cause))?;
        let options = TcAttachOptions::TcxOrder(LinkOrder::first());
        let attached = program
            .attach_with_options(&self.interface, self.attach_type(), options)
            .and_then(|id| program.take_link(id));
        let link = attached.map_err(|cause| self.refused("attach (tcx)", &cause))?;
        let link = FdLink::try_from(link).map_err(|cause| self.refused("attach (tcx)", &cause))?;
        let pinned = link
            .pin(&new)
            .map_err(|cause| self.refused("pin", &cause))?;
        std::fs::rename(&new, &pin).map_err(|cause| self.refused("pin", &cause))?;
        drop(pinned);
        Ok(())
    }

    /// Attaches by a clsact filter in our slot; true if the qdisc had to be made.
    pub(super) fn attach_clsact(
        &self,
        netlink: &mut Netlink,
        program: &mut SchedClassifier,
    ) -> Result<bool, Error> {
        let refused =
            |cause: &(dyn std::error::Error + 'static)| self.refused("attach (clsact)", cause);
        let made = match qdisc_add_clsact(&self.interface) {
            Ok(()) => true,
            Err(TcError::AlreadyAttached) => false,
            Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {
                false
            }
            Err(cause) => return Err(refused(&cause)),
        };
        let filters = netlink.filters(self.index, self.direction)?;
        let taken = filters.iter().find(|filter| self.holds(filter));
        let attached = match taken {
            Some(filter) if filter.program.as_deref() == Some(self.program) => {
                let link = self.filter_link(filter).map_err(|cause| refused(&cause))?;
                program.attach_to_link(link)
            }
            Some(_) => {
                return Err(refused(&io::Error::other(format!(
                    "another program has priority {PRIORITY} handle {:#x}",
                    self.handle
                ))));
            }
            None => {
                let options = NlOptions {
                    priority: PRIORITY,
                    handle: TcHandle::new(0, self.handle),
                    classid: None,
                };
                program.attach_with_options(
                    &self.interface,
                    self.attach_type(),
                    TcAttachOptions::Netlink(options),
                )
            }
        };
        let link = attached
            .and_then(|id| program.take_link(id))
            .map_err(|cause| refused(&cause))?;
        // Its end would detach the filter, which shall outlive this process.
        std::mem::forget(link);
        Ok(made)
    }

    /// Removes the pin, and by that the link; true if there was one.
    pub(super) fn detach_tcx(&self, pins: &Path) -> Result<bool, Error> {
        let mut found = false;
        for name in [self.program.to_owned(), format!("{}_new", self.program)] {
            found |=
                remove_file(&pins.join(name)).map_err(|cause| self.refused("unpin", &cause))?;
        }
        Ok(found)
    }

    /// Removes one filter.
    pub(super) fn detach_filter(&self, filter: &Filter) -> Result<(), Error> {
        let refused =
            |cause: &(dyn std::error::Error + 'static)| self.refused("detach (clsact)", cause);
        let link = self.filter_link(filter).map_err(|cause| refused(&cause))?;
        aya::programs::Link::detach(link).map_err(|cause| refused(&cause))
    }

    fn filter_link(&self, filter: &Filter) -> io::Result<SchedClassifierLink> {
        let handle = TcHandle::from(filter.handle);
        SchedClassifierLink::attached(
            &self.interface,
            self.attach_type(),
            filter.priority,
            handle,
            None,
        )
    }

    /// The filters that hold a program of our name.
    pub(super) fn filters(&self, netlink: &mut Netlink) -> Result<Vec<Filter>, Error> {
        let mut filters = netlink.filters(self.index, self.direction)?;
        filters.retain(|filter| filter.program.as_deref() == Some(self.program));
        Ok(filters)
    }

    /// The filter in our slot.
    pub(super) fn own_filter(&self, netlink: &mut Netlink) -> Result<Option<Filter>, Error> {
        let filters = self.filters(netlink)?;
        Ok(filters.into_iter().find(|filter| self.holds(filter)))
    }

    /// Ids of the programs of our name that run here, in either way; the first one comes first.
    pub(super) fn programs(&self, netlink: &mut Netlink) -> Result<Vec<u32>, Error> {
        let mut ids = Vec::new();
        // A kernel without tcx refuses to say what is attached by it.
        if let Ok((_, programs)) = SchedClassifier::query_tcx(&self.interface, self.attach_type()) {
            let ours = programs
                .iter()
                .filter(|info| info.name() == self.program.as_bytes());
            ids.extend(ours.map(ProgramInfo::id));
        }
        let filters = self.filters(netlink)?;
        ids.extend(filters.iter().filter_map(|filter| filter.program_id));
        Ok(ids)
    }

    /// Whether the pinned link is still attached to its interface.
    pub(super) fn runs_by_tcx(&self, pins: &Path, program: u32) -> bool {
        let pinned = PinnedLink::from_pin(pins.join(self.program)).map(FdLink::from);
        let of_pin = pinned
            .and_then(|link| link.info())
            .map(|info| info.program_id());
        let here = SchedClassifier::query_tcx(&self.interface, self.attach_type());
        of_pin.is_ok_and(|id| id == program)
            && here.is_ok_and(|(_, programs)| programs.iter().any(|info| info.id() == program))
    }
}

/// The loaded program of that id.
pub(super) fn program_info(id: u32) -> Option<ProgramInfo> {
    loaded_programs()
        .filter_map(Result::ok)
        .find(|info| info.id() == id)
}

fn remove_file(path: &Path) -> io::Result<bool> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
