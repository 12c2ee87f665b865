//! The compiled programs, and how they get into the kernel.

use aya::{EbpfLoader, maps::MapData, programs::SchedClassifier};

use super::{
    Error,
    layout::{CARRIED, CONFIG_BYTES, Config},
    maps,
    site::{self, EGRESS, INGRESS},
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/overlay.o"));
/// Why there is no object; empty if there is one.
const MISSING: &str = env!("WEFT_EBPF_MISSING");

/// Loads both programs with maps of so many entries; they are attached nowhere yet.
pub(super) fn load(config: &Config, capacity: usize) -> Result<aya::Ebpf, Error> {
    if !MISSING.is_empty() {
        return Err(Error::NotBuilt(MISSING));
    }
    let entries = u32::try_from(capacity).unwrap_or(u32::MAX);
    let config = config.render();
    let mut loader = EbpfLoader::new();
    loader.override_global("config", &config, true);
    for map in [
        "subnets_v4",
        "subnets_v6",
        "subnets_odd",
        "addresses",
        "peers",
    ] {
        loader.map_max_entries(map, entries);
    }
    let mut object = loader
        .load(OBJECT)
        .map_err(|cause| Error::refused("load the eBPF maps", &cause))?;
    for name in [EGRESS, INGRESS] {
        program(&mut object, name)?
            .load()
            .map_err(|cause| Error::refused(format!("load program {name}"), &cause))?;
    }
    Ok(object)
}

/// A program of the object.
pub(super) fn program<'a>(
    object: &'a mut aya::Ebpf,
    name: &str,
) -> Result<&'a mut SchedClassifier, Error> {
    let missing = || Error::Refused {
        what: format!("open program {name}"),
        cause: "the object has none of that name".to_owned(),
        errno: None,
    };
    object
        .program_mut(name)
        .ok_or_else(missing)?
        .try_into()
        .map_err(|cause| Error::refused(format!("open program {name}"), &cause))
}

/// The id of a loaded program.
pub(super) fn program_id(object: &mut aya::Ebpf, name: &str) -> Result<u32, Error> {
    let info = program(object, name)?.info();
    let info = info.map_err(|cause| Error::refused(format!("ask for program {name}"), &cause))?;
    Ok(info.id())
}

/// What an attached program of ours, of this version or another, tells of itself.
#[derive(Debug, Default)]
pub(super) struct Former {
    /// The TUN device's index in its configuration.
    pub device: Option<u32>,
    /// What it and those before it counted, and the qdiscs made for it.
    pub carried: Option<[u64; CARRIED]>,
}

impl Former {
    /// Reads the maps of a program; what cannot be read (another version, gone meanwhile) is absent.
    pub(super) fn observe(program: u32) -> Self {
        let ids = site::program_info(program).and_then(|info| info.map_ids().ok().flatten());
        let (mut counters, mut carried, mut device) = (None, None, None);
        for map in ids
            .unwrap_or_default()
            .into_iter()
            .filter_map(|id| MapData::from_id(id).ok())
        {
            let Ok(info) = map.info() else { continue };
            match info.name_as_str() {
                Some("counters") => counters = Some(map),
                Some("carried") => carried = Some(map),
                Some(".rodata.config") => device = config_device(map),
                _ => {}
            }
        }
        let carried = counters.zip(carried);
        Self {
            device,
            carried: carried
                .and_then(|(counters, carried)| maps::foreign_carried(counters, carried)),
        }
    }
}

fn config_device(map: MapData) -> Option<u32> {
    let map = aya::maps::Map::Array(map);
    let array: aya::maps::Array<_, [u8; CONFIG_BYTES]> = map.try_into().ok()?;
    Some(Config::device_in(&array.get(&0, 0).ok()?))
}
