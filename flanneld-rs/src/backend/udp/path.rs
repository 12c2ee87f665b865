//! What moves the packets now, and what is tried when that is refused.
//!
//! User space always runs, with offloads or plain: it takes what programs in the kernel let through.
//! Programs come on top where they are wanted and the kernel takes them ([`programs`]). Whatever
//! changes here, the device stays, and with it address and routes.

mod ebpf;
mod place;
mod programs;

use std::{
    net::{SocketAddr, SocketAddrV4},
    sync::Arc,
};

use arc_swap::ArcSwap;
use tunnel::{
    Counters, Table, Wire,
    user::{self, Capabilities, Mode, UserPath},
};

use crate::{
    backend::{Report, Traffic, traffic::Count},
    config::backend::UdpPath,
};
use ebpf::Loaded;
pub use place::Place;
use programs::Programs;

/// The data path of one node.
pub struct DataPath {
    device: &'static str,
    wanted: UdpPath,
    table: Arc<ArcSwap<Table>>,
    counters: Arc<Counters>,
    user: Option<UserPath>,
    /// What this kernel has for user space, once probed.
    offers: Option<Capabilities>,
    /// Why the kernel does not do offloads for us.
    plain: Option<String>,
    programs: Programs<Loaded>,
    /// What was last said of the choice.
    told: String,
}

impl DataPath {
    /// Nothing runs yet.
    pub fn new(device: &'static str, wanted: UdpPath) -> Self {
        Self {
            device,
            wanted,
            table: Arc::default(),
            counters: Arc::default(),
            user: None,
            offers: None,
            plain: None,
            programs: Programs::new(matches!(wanted, UdpPath::Auto | UdpPath::Ebpf)),
            told: String::new(),
        }
    }

    /// Why user space does not run as it must, if so: `None` means that it does.
    pub fn wrong(&self, bind: SocketAddrV4, mtu: u32) -> Option<String> {
        let Some(user) = &self.user else {
            return Some("it does not run".to_owned());
        };
        let running = user.settings();
        if running.bind != SocketAddr::V4(bind) {
            return Some(format!(
                "the address is now {bind}, before {}",
                running.bind
            ));
        }
        if running.mtu != mtu {
            return Some(format!("the MTU is now {mtu}, before {}", running.mtu));
        }
        user.ended()
    }

    /// Ends what runs in user space, if anything does, and starts it: with offloads unless plain is
    /// wanted or offloads are refused. `mtu` is the device's, in bytes.
    pub fn start(&mut self, bind: SocketAddrV4, mtu: u32) -> anyhow::Result<()> {
        self.user = None;
        let mut settings = user::Settings {
            device: self.device.to_owned(),
            bind: SocketAddr::V4(bind),
            wire: Wire::Ip,
            mode: Mode::Plain,
            workers: None,
            mtu,
        };
        if self.wanted != UdpPath::Plain && self.plain.is_none() {
            self.probe()?;
        }
        if self.wanted != UdpPath::Plain && self.plain.is_none() {
            settings.mode = Mode::Offload;
            match self.run(&settings) {
                Err(error) if error.is_refusal() => {
                    self.plain = Some(error.to_string());
                }
                // The text has its cause.
                outcome => return outcome.map_err(|error| anyhow::anyhow!("{error}")),
            }
            settings.mode = Mode::Plain;
        }
        self.run(&settings)
            .map_err(|error| anyhow::anyhow!("{error}"))
    }

    /// Looks once what this kernel offers user space.
    fn probe(&mut self) -> anyhow::Result<()> {
        if self.offers.is_some() {
            return Ok(());
        }
        let offers = user::probe().map_err(|error| anyhow::anyhow!("{error}"))?;
        tracing::debug!("for the udp data path this kernel has {offers}");
        if !offers.tun_tso {
            self.plain = Some(format!("this kernel has {offers}"));
        }
        self.offers = Some(offers);
        Ok(())
    }

    /// User space that ended by itself on a device that is still there does not get offloads again.
    pub fn downgrade(&mut self) {
        if let Some(user) = &self.user
            && user.settings().mode == Mode::Offload
        {
            self.plain = user.ended();
        }
    }

    fn run(&mut self, settings: &user::Settings) -> Result<(), user::Error> {
        let (table, counters) = (Arc::clone(&self.table), Arc::clone(&self.counters));
        self.user = Some(UserPath::start(settings, table, counters)?);
        Ok(())
    }

    /// User space was started, and a worker has ended by itself.
    pub fn has_ended(&self) -> bool {
        let ended = |user: &UserPath| user.ended().is_some();
        self.user.as_ref().is_some_and(ended)
    }

    /// Gives all paths the new peers.
    pub fn publish(&mut self, table: Table, report: &mut Report) {
        self.table.store(Arc::new(table));
        self.programs.publish(&self.table.load(), report);
        self.join_datagrams();
    }

    /// Programs attached at `place` where they are wanted and taken, nowhere else.
    pub fn ensure_programs(&mut self, place: Place, report: &mut Report) {
        self.programs.ensure(place, &self.table.load(), report);
        self.join_datagrams();
    }

    /// Lets the kernel join datagrams where no programs take them.
    fn join_datagrams(&self) {
        if let Some(user) = &self.user
            && let Err(error) = user.join_datagrams(!self.programs.are_attached())
        {
            tracing::debug!("switch UDP_GRO: {error}");
        }
    }

    /// What every start does beyond the device, as printable lines: by what this kernel, asked now, would
    /// give this process.
    pub fn plan(&self, place: &Place) -> Vec<String> {
        let (device, underlay) = (&place.device.1, &place.underlay.1);
        let mut lines = vec!["# at every start:".to_owned()];
        let mode = match (self.wanted, user::probe()) {
            (_, Err(error)) => {
                lines.push(format!("# no datapath can start: {error}"));
                return lines;
            }
            (UdpPath::Plain, Ok(_)) => Mode::Plain,
            (_, Ok(offers)) if offers.tun_tso => Mode::Offload,
            (_, Ok(offers)) => {
                lines.push(format!("# offload refused: this kernel has {offers}"));
                Mode::Plain
            }
        };
        lines.push(format!("start datapath {mode} {device} on {}", place.local));
        if self.programs.are_wanted() {
            lines.push(match tunnel::ebpf::probe() {
                Ok(()) => format!("attach ebpf {device} and {underlay}"),
                Err(error) => format!("# ebpf refused: {error}"),
            });
        }
        lines
    }

    /// Says in one line what was chosen and why, when that is news; a warning when it is less than
    /// the operator asked for.
    pub fn tell(&mut self) {
        let Some(user) = self.user.as_ref().map(|user| user.settings().mode) else {
            return;
        };
        let text = format!("udp data path: {}", self.choice(user));
        if text == self.told {
            return;
        }
        let kept = match self.wanted {
            UdpPath::Auto | UdpPath::Plain => true,
            UdpPath::Ebpf => self.programs.are_attached(),
            UdpPath::Offload => user == Mode::Offload,
        };
        if kept {
            tracing::info!("{text}");
        } else {
            tracing::warn!("{text}");
        }
        self.told = text;
    }

    fn choice(&self, user: Mode) -> String {
        let refused =
            |what: &str, why: Option<&str>| why.map(|why| format!("{what} refused: {why}"));
        let offload = refused("offload", self.plain.as_deref());
        if let Some(places) = self.programs.describe() {
            let beneath = offload.map(|why| format!(" ({why})")).unwrap_or_default();
            return format!("ebpf, {places}; {user} for what it leaves{beneath}");
        }
        let ebpf = refused("ebpf", self.programs.refused());
        let why: Vec<String> = ebpf.into_iter().chain(offload).collect();
        let why = match why.is_empty() {
            true => "as configured".to_owned(),
            false => why.join("; "),
        };
        format!("{user} on {} ({why})", self.device)
    }

    /// Who counts.
    pub fn traffic(&self) -> Option<Traffic> {
        let user = self.user.as_ref()?.settings().mode.to_string();
        let data_path = match self.programs.are_attached() {
            true => "ebpf".to_owned(),
            false => user.clone(),
        };
        let info = [
            ("backend", "udp".to_owned()),
            ("device", self.device.to_owned()),
            ("data_path", data_path),
            ("user", user),
        ];
        let user: Arc<dyn Count> = Arc::clone(&self.counters) as _;
        Some(Traffic {
            info: info.into(),
            paths: vec![("user", user), ("ebpf", self.programs.counts())],
        })
    }

    /// What was carried, for the last log line.
    pub fn totals(&self) -> String {
        let traffic = self
            .traffic()
            .map(|traffic| traffic.paths)
            .unwrap_or_default();
        let sums = traffic.iter().map(|(path, counts)| {
            let sums = counts.sums();
            let dropped: u64 = sums.dropped.iter().sum();
            format!(
                "{path}: sent {} packets, received {}, dropped {dropped}",
                sums.sent.0, sums.received.0
            )
        });
        sums.collect::<Vec<_>>().join("; ")
    }

    /// Ends user space and removes the programs, those of a daemon that is gone too.
    pub fn remove(&mut self, report: &mut Report) {
        self.user = None;
        self.programs.remove(self.device, None, report);
    }
}
