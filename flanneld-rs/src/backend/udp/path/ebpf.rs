//! The programs of the `tunnel` crate, shared with whoever reads their counters.

use std::{
    fmt,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tunnel::{
    DropReason, Table, Wire,
    ebpf::{self, Counts, Ebpf},
};

use super::{
    place::Place,
    programs::{Attach, Refusal},
};
use crate::backend::traffic::{Count, Sums};

/// Where the host has its bpffs. We mount none: one of our own would end with a container of ours, and
/// the programs with it; without one, filters hold the programs.
const BPFFS: &str = "/sys/fs/bpf";

/// Attached programs; they stay when this goes.
pub struct Loaded {
    shared: Arc<Shared>,
    carried: Sums,
}

/// Used by the data path thread, and for its counters by the one that serves `/metrics`.
struct Shared {
    programs: Mutex<Ebpf>,
    /// What was last read, for a scrape while a large table is written.
    last: Mutex<Sums>,
}

impl Loaded {
    fn programs(&self) -> MutexGuard<'_, Ebpf> {
        self.shared
            .programs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attach for Loaded {
    fn attach(place: &Place, table: &Table) -> Result<Self, Refusal> {
        let settings = ebpf::Settings {
            device: place.device.1.clone(),
            underlay: place.underlay.1.clone(),
            local: place.local,
            underlay_mtu: place.underlay_mtu,
            wire: Wire::Ip,
            pins: pins(&place.device.1).map_err(|why| Refusal {
                why,
                may_pass: true,
            })?,
        };
        let attached = Ebpf::attach(&settings, table).and_then(|programs| {
            let (counts, carried) = (programs.counts()?, programs.carried()?);
            let shared = Shared {
                programs: Mutex::new(programs),
                last: Mutex::new(sums(&counts)),
            };
            Ok(Self {
                shared: Arc::new(shared),
                carried: sums(&carried),
            })
        });
        attached.map_err(Refusal::from)
    }

    fn publish(&mut self, table: &Table) -> Result<(), Refusal> {
        let published = self.programs().publish(table);
        published.map_err(Refusal::from)
    }

    fn check(&self) -> Result<bool, String> {
        self.programs().check().map_err(|error| error.to_string())
    }

    fn describe(&self) -> String {
        self.programs().describe()
    }

    fn counts(&self) -> Arc<dyn Count> {
        Arc::clone(&self.shared) as _
    }

    fn carried(&self) -> Sums {
        self.carried
    }

    fn remove(device: &str, underlay: Option<&str>) -> Result<usize, String> {
        ebpf::remove(device, underlay, &pins(device)?).map_err(|error| error.to_string())
    }
}

impl From<ebpf::Error> for Refusal {
    fn from(error: ebpf::Error) -> Self {
        Self {
            why: error.to_string(),
            may_pass: error.may_pass(),
        }
    }
}

/// A bpffs is shared by all network namespaces of a host; the folder's name tells them apart.
fn pins(device: &str) -> Result<PathBuf, String> {
    let own = "/proc/thread-self/ns/net";
    let namespace = std::fs::metadata(own).map_err(|error| format!("look at {own}: {error}"))?;
    Ok(PathBuf::from(format!(
        "{BPFFS}/weft-{device}-{}",
        namespace.ino()
    )))
}

impl Count for Shared {
    fn sums(&self) -> Sums {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(programs) = self.programs.try_lock() {
            match programs.counts() {
                Ok(counts) => *last = sums(&counts),
                Err(error) => tracing::debug!("{error}"),
            }
        }
        *last
    }
}

fn sums(counts: &Counts) -> Sums {
    Sums {
        sent: counts.sent,
        received: counts.received,
        dropped: DropReason::ALL.map(|reason| counts.dropped(reason)),
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}
