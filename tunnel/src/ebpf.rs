//! The data path in the kernel: a program on the TUN device puts packets into datagrams, one on the
//! underlay takes them out again (`bpf/overlay.bpf.c`). What they leave alone goes to the user-space path
//! beneath.
//!
//! Theory. Programs and maps stay when the process ends: the peers that were known go on being reached.
//! A new process loads its own programs with maps filled from its own table, and puts them in the place
//! of the old ones, which run until then; so restart and upgrade are one path and need no agreement on
//! what the old version's maps look like. Counters are carried over. What path MTUs the old
//! programs had learnt is learnt again.
//!
//! Two moments in which packets can be lost are the kernel's: it stops a link's queues while a clsact
//! qdisc is made on it or removed (the first attachment by clsact, and the last end).
//!
//! The egress program runs before the device's queue: it also sees packets while no process has the TUN
//! device open (its carrier is off then; routes over it stay usable unless
//! `ignore_routes_with_linkdown` is set). Packets so redirected do not move the device's own counters.
//!
//! `rp_filter` of the TUN device may have any value: the way back to an inner source leads into it.

mod error;
mod layout;
mod maps;
mod object;
mod site;
mod strays;
#[cfg(test)]
mod tests;

use std::{
    fs,
    net::SocketAddrV4,
    path::{Path, PathBuf},
};

use kernel::{Direction, Link, LinkKind, Netlink};

use crate::{Table, Wire};
pub use error::Error;
pub use layout::Counts;
use layout::{CARRIED, COUNTERS, Config};
use maps::{Maps, Wanted};
use object::Former;
use site::{EGRESS, INGRESS, Site};
use strays::remove_empty_clsact;

/// Entries of the smallest maps.
const LEAST_CAPACITY: usize = 1024;
/// In the last carried word: we made the qdisc of the device, of the underlay.
const MADE: [u64; 2] = [1, 2];

/// Where the path runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The TUN device.
    pub device: String,
    /// The interface that datagrams leave and arrive by; it must be an Ethernet one.
    pub underlay: String,
    /// Our own address and UDP port there.
    pub local: SocketAddrV4,
    /// Bytes of the largest packet of the underlay.
    pub underlay_mtu: u32,
    /// Only [`Wire::Ip`] is carried.
    pub wire: Wire,
    /// A folder for pins, below a bpffs, of this device alone; made by us. Where no bpffs is mounted there,
    /// clsact filters do without.
    pub pins: PathBuf,
}

/// Attached programs. Dropping it leaves them attached; [`Ebpf::detach`] removes them.
pub struct Ebpf {
    settings: Settings,
    sites: [Site; 2],
    programs: [u32; 2],
    maps: Maps,
    kind: Kind,
    /// Keeps the programs loaded between load and attachment.
    _object: aya::Ebpf,
}

/// How programs are attached.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Tcx,
    /// And why not by tcx.
    Clsact(String),
}

impl Ebpf {
    /// Loads the programs, fills their maps from `table`, which must be complete, and puts them in the
    /// place of what a former process left; what that left elsewhere (its uplink or port was another one)
    /// goes. Nothing is changed if it fails before that; after it, what is attached stays for the next try
    /// or for [`remove`]. Refused while the namespace has an outbound IPsec policy.
    pub fn attach(settings: &Settings, table: &Table) -> Result<Self, Error> {
        if settings.wire != Wire::Ip {
            return Err(Error::Unsupported("VXLAN".to_owned()));
        }
        refuse_ipsec()?;
        let mut netlink = Netlink::open()?;
        let device = netlink.expect_link(&settings.device)?;
        let underlay = netlink.expect_link(&settings.underlay)?;
        if underlay.mac.is_none() {
            return Err(Error::Unsupported(format!(
                "an underlay without Ethernet addresses ({})",
                underlay.name
            )));
        }
        let config = Config {
            local: settings.local,
            link_header: 0,
            underlay: underlay.index,
            device: device.index,
            underlay_mtu: settings.underlay_mtu,
            cookie: match underlay.kind {
                LinkKind::Veth => kernel_cookie()?,
                _ => 0,
            },
        };
        let wanted = Wanted::plan(table);
        let capacity = (2 * wanted.entries())
            .next_power_of_two()
            .max(LEAST_CAPACITY);
        let mut object = object::load(&config, capacity)?;
        let mut maps = Maps::take(&mut object, capacity)?;
        maps.apply(&wanted)?;
        let sites = sites(&device, &underlay, settings.local.port());
        let kind = place(settings, &sites, &mut netlink, &mut object, &mut maps)?;
        let links = netlink.links()?;
        let strays = strays::find(&mut netlink, &links, Some(&device), None, &sites)?;
        strays::detach(&mut netlink, &strays)?;
        let programs = [
            object::program_id(&mut object, EGRESS)?,
            object::program_id(&mut object, INGRESS)?,
        ];
        Ok(Self {
            settings: settings.clone(),
            sites,
            programs,
            maps,
            kind,
            _object: object,
        })
    }

    /// Makes the maps hold this table; only what changed is written. A table that the maps cannot hold
    /// together with the one before gets new programs with larger ones, in the same way as a restart.
    pub fn publish(&mut self, table: &Table) -> Result<(), Error> {
        let wanted = Wanted::plan(table);
        if !self.maps.can_become(&wanted) {
            *self = Self::attach(&self.settings, table)?;
            return Ok(());
        }
        self.maps.apply(&wanted)
    }

    /// Whether both programs are still where they were put, and the interfaces still the same ones. An
    /// error if an IPsec policy came that they would not obey.
    pub fn check(&self) -> Result<bool, Error> {
        refuse_ipsec()?;
        let mut netlink = Netlink::open()?;
        for (site, program) in self.sites.iter().zip(self.programs) {
            let link = netlink.link(&site.interface)?;
            if link.is_none_or(|link| link.index != site.index) {
                return Ok(false);
            }
            let runs = match self.kind {
                Kind::Tcx => site.runs_by_tcx(&self.settings.pins, program),
                Kind::Clsact(_) => {
                    let filter = site.own_filter(&mut netlink)?;
                    filter.and_then(|filter| filter.program_id) == Some(program)
                }
            };
            if !runs {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// How and where, for the log: `tcx on flannel0 and eth0`.
    pub fn describe(&self) -> String {
        let (device, underlay) = (&self.settings.device, &self.settings.underlay);
        match &self.kind {
            Kind::Tcx => format!("tcx on {device} and {underlay}"),
            Kind::Clsact(why) => format!("clsact on {device} and {underlay} ({why})"),
        }
    }

    /// What became of the packets, since the first process that attached here.
    pub fn counts(&self) -> Result<Counts, Error> {
        self.maps.counts()
    }

    /// What of that was taken over from the programs before these, of this process or another.
    pub fn carried(&self) -> Result<Counts, Error> {
        let mut words = [0; COUNTERS];
        words.copy_from_slice(&self.maps.carried()?[..COUNTERS]);
        Ok(Counts::parse(&words))
    }

    /// Removes programs, pins and the qdiscs that were made for them.
    pub fn detach(self) -> Result<(), Error> {
        remove(
            &self.settings.device,
            Some(&self.settings.underlay),
            &self.settings.pins,
        )
        .map(drop)
    }
}

/// Redirected packets do not pass the IP output path, where the kernel applies outbound policies.
fn refuse_ipsec() -> Result<(), Error> {
    match kernel::xfrm::outbound_policy()? {
        Some(policy) => Err(Error::Ipsec(policy)),
        None => Ok(()),
    }
}

/// Whether the programs were built and this kernel takes them: loads them, attaches nothing, leaves
/// nothing behind.
pub fn probe() -> Result<(), Error> {
    let config = Config {
        local: SocketAddrV4::new([127, 0, 0, 1].into(), 8285),
        link_header: 0,
        underlay: 1,
        device: 1,
        underlay_mtu: 1500,
        cookie: 1,
    };
    object::load(&config, 1).map(drop)
}

/// Removes what any process attached for `device`, also if the device is gone: its pins, and the
/// filters with a program of ours on `underlay` (on every interface, if that is not known). Returns how
/// many there were. Programs of others are not touched, and a clsact qdisc only goes if it was
/// made for us and nothing else is left on it.
pub fn remove(device: &str, underlay: Option<&str>, pins: &Path) -> Result<usize, Error> {
    let mut netlink = Netlink::open()?;
    let links = netlink.links()?;
    let device = links.iter().find(|link| link.name == device);
    let mut removed = 0;
    let nowhere = |program| Site {
        interface: "(pin)".to_owned(),
        index: 0,
        direction: Direction::Egress,
        program,
        handle: 0,
    };
    for program in [EGRESS, INGRESS] {
        removed += usize::from(nowhere(program).detach_tcx(pins)?);
    }
    // Somebody else's folder is not ours to remove; an empty one without our pins is nobody's.
    match fs::remove_dir(pins) {
        Err(cause) if removed > 0 => {
            return Err(Error::refused(format!("remove {}", pins.display()), &cause));
        }
        _ => {}
    }
    let strays = strays::find(&mut netlink, &links, device, underlay, &[])?;
    Ok(removed + strays::detach(&mut netlink, &strays)?)
}

fn sites(device: &Link, underlay: &Link, port: u16) -> [Site; 2] {
    [
        Site::new(device, Direction::Egress, EGRESS, 1),
        // Each network on an underlay has a port of its own.
        Site::new(underlay, Direction::Ingress, INGRESS, port),
    ]
}

/// Attaches both programs, then lets go what was there before; counters go over to the new maps.
fn place(
    settings: &Settings,
    sites: &[Site; 2],
    netlink: &mut Netlink,
    object: &mut aya::Ebpf,
    maps: &mut Maps,
) -> Result<Kind, Error> {
    let before = sites[0].programs(netlink)?;
    let former = before
        .first()
        .map(|id| Former::observe(*id))
        .unwrap_or_default();
    // Holds the old maps until the last packet is counted.
    let mut carried = former.carried.unwrap_or([0; CARRIED]);
    if sites[1].filters(netlink)?.is_empty() {
        // The qdisc that was made was another underlay's.
        carried[COUNTERS] &= !MADE[1];
    }
    maps.set_carried(carried)?;

    let kind = match pins_folder(&settings.pins).and_then(|()| {
        for site in sites {
            site.attach_tcx(object::program(object, site.program)?, &settings.pins)?;
        }
        Ok(())
    }) {
        Ok(()) => Kind::Tcx,
        Err(why) => Kind::Clsact(why.to_string()),
    };
    for (site, made) in sites.iter().zip(MADE) {
        match kind {
            Kind::Clsact(_) => {
                if site.attach_clsact(netlink, object::program(object, site.program)?)? {
                    carried[COUNTERS] |= made;
                }
                site.detach_tcx(&settings.pins)?;
            }
            Kind::Tcx => {
                if let Some(filter) = site.own_filter(netlink)? {
                    site.detach_filter(&filter)?;
                    if carried[COUNTERS] & made != 0 {
                        remove_empty_clsact(netlink, site.index)?;
                    }
                    carried[COUNTERS] &= !made;
                }
            }
        }
    }
    // Again, with what the old programs counted meanwhile.
    if let Some(last) = before.first().and_then(|id| Former::observe(*id).carried) {
        carried[..COUNTERS].copy_from_slice(&last[..COUNTERS]);
    }
    maps.set_carried(carried)?;
    Ok(kind)
}

/// Makes the folder for pins, if a bpffs is there.
fn pins_folder(pins: &Path) -> Result<(), Error> {
    let Some(there) = pins.ancestors().find(|folder| folder.is_dir()) else {
        return Err(Error::Unsupported(format!("pins below {}", pins.display())));
    };
    let kind = nix::sys::statfs::statfs(there)
        .map_err(|cause| Error::refused(format!("look at {}", there.display()), &cause))?;
    if kind.filesystem_type() != nix::sys::statfs::BPF_FS_MAGIC {
        return Err(Error::Refused {
            what: format!("pin below {}", pins.display()),
            cause: "no bpffs is mounted there (mount -t bpf bpf /sys/fs/bpf)".to_owned(),
            errno: None,
        });
    }
    fs::create_dir_all(pins)
        .map_err(|cause| Error::refused(format!("make {}", pins.display()), &cause))
}

/// A number from 1 to 255 that stands for this boot of this kernel.
fn kernel_cookie() -> Result<u16, Error> {
    let path = "/proc/sys/kernel/random/boot_id";
    let id = fs::read(path).map_err(|cause| Error::refused(format!("read {path}"), &cause))?;
    let mix = |sum: u32, byte: &u8| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    let sum = id.iter().fold(0x811c_9dc5, mix);
    let short = sum ^ (sum >> 8) ^ (sum >> 16) ^ (sum >> 24);
    Ok(short as u16 & 0xff | 1)
}
