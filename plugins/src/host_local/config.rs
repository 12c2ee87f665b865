//! `host-local`'s configuration: as written, then checked.

use super::range::{Range, RangeSet, Written as WrittenRange};
use crate::cni::result::Address;
use crate::cni::{Call, Error, Result, Route, Version, args, code, json};
use serde::{Deserialize, Deserializer};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

const DEFAULT_DATA_DIR: &str = "/var/lib/cni/networks";

/// What an ADD needs to know.
#[derive(Debug)]
pub struct Config {
    /// One address is given out of each; sorted as written, sets given at run time first. Not
    /// empty, and no two overlap.
    pub ranges: Vec<RangeSet>,
    /// Addresses asked for, without repeats.
    pub requested: Vec<IpAddr>,
    /// Routes to pass on.
    pub routes: Vec<Route>,
    /// A resolv.conf whose settings are to be passed on.
    pub resolv_conf: Option<PathBuf>,
}

/// Where a network's files are: all that a DEL needs to know.
#[derive(Debug)]
pub struct Location {
    /// The folder.
    pub directory: PathBuf,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Written {
    ipam: Option<WrittenIpam>,
    runtime_config: RuntimeConfig,
    args: Args,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct WrittenIpam {
    routes: Vec<Route>,
    resolv_conf: String,
    ranges: Vec<Vec<WrittenRange>>,
    range_from_file: String,
}

/// The old form of one range: its keys stand beside the others of `ipam`.
#[derive(Deserialize, Default)]
#[serde(default)]
struct OldForm {
    ipam: WrittenRange,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct RuntimeConfig {
    ip_ranges: Vec<Vec<WrittenRange>>,
    ips: Vec<Requested>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Args {
    cni: CniArgs,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct CniArgs {
    ips: Vec<Requested>,
}

/// An address asked for, written with or without a prefix length.
struct Requested(IpAddr);

impl std::str::FromStr for Requested {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = match text.parse::<ipnet::IpNet>() {
            Ok(net) => Some(net.addr().to_canonical()),
            Err(_) => text.parse().unwrap_or(Address(None)).0,
        };
        address
            .map(Self)
            .ok_or_else(|| format!("invalid IP address {text}"))
    }
}

impl<'de> Deserialize<'de> for Requested {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Location {
    /// Reads the folder's place.
    pub fn load(call: &Call) -> Result<Self> {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Written {
            ipam: Option<Ipam>,
        }
        #[derive(Deserialize, Default)]
        #[serde(default, rename_all = "camelCase")]
        struct Ipam {
            data_dir: String,
        }
        let ipam = call.read::<Written>()?.ipam.ok_or_else(no_ipam)?;
        let data_dir = match ipam.data_dir.as_str() {
            "" => DEFAULT_DATA_DIR,
            given => given,
        };
        Ok(Self {
            directory: Path::new(data_dir).join(&call.network),
        })
    }
}

impl Config {
    /// Reads and checks what an ADD, CHECK or STATUS says.
    pub fn load(call: &Call) -> Result<Self> {
        let written: Written = call.read()?;
        let ipam = written.ipam.ok_or_else(no_ipam)?;

        let mut requested = Vec::new();
        if let [Some(ip)] = args::parse(&call.args, ["IP"])? {
            requested.push(ip.parse().map_err(|e: String| {
                Error::new(code::INVALID_ENVIRONMENT, format!("ARGS: IP={ip}: {e}"))
            })?);
        }
        requested.extend(written.args.cni.ips);
        requested.extend(written.runtime_config.ips);
        let mut asked: Vec<IpAddr> = Vec::new();
        for Requested(ip) in requested {
            if !asked.contains(&ip) {
                asked.push(ip);
            }
        }

        let mut ranges = written.runtime_config.ip_ranges;
        let old_form = call.read::<OldForm>()?.ipam;
        if old_form.has_subnet() {
            ranges.push(vec![old_form]);
        }
        ranges.extend(ipam.ranges);
        if ranges.is_empty() && !ipam.range_from_file.is_empty() {
            ranges.push(vec![range_from_file(&ipam.range_from_file)?]);
        }
        Ok(Self {
            ranges: check_ranges(ranges, call.version)?,
            requested: asked,
            routes: ipam.routes,
            resolv_conf: (!ipam.resolv_conf.is_empty()).then(|| ipam.resolv_conf.into()),
        })
    }
}

fn no_ipam() -> Error {
    Error::config("IPAM config missing 'ipam' key")
}

fn range_from_file(path: &str) -> Result<WrittenRange> {
    let text =
        std::fs::read(path).map_err(|e| Error::io(format!("read rangeFromFile {path:?}"), e))?;
    let range: WrittenRange = json::from_slice(&text)
        .map_err(|e| Error::new(code::DECODE, format!("read rangeFromFile {path:?}: {e}")))?;
    if !range.has_subnet() {
        return Err(Error::config(format!(
            "read rangeFromFile {path:?}: no subnet in it"
        )));
    }
    Ok(range)
}

fn check_ranges(written: Vec<Vec<WrittenRange>>, version: Version) -> Result<Vec<RangeSet>> {
    if written.is_empty() {
        return Err(Error::config("no IP ranges specified"));
    }
    let mut sets = Vec::new();
    for (at, ranges) in written.into_iter().enumerate() {
        let checked: Result<Vec<Range>, String> = ranges.into_iter().map(Range::check).collect();
        let set = checked
            .and_then(RangeSet::check)
            .map_err(|e| Error::config(format!("invalid range set {at}: {e}")))?;
        sets.push(set);
    }
    let ipv4 = sets.iter().filter(|set| set.is_ipv4()).count();
    if version < Version::V030 && (ipv4 > 1 || sets.len() - ipv4 > 1) {
        return Err(Error::config(format!(
            "CNI version {version} does not support more than 1 address per family"
        )));
    }
    for (i, one) in sets.iter().enumerate() {
        for (j, other) in sets.iter().enumerate().skip(i + 1) {
            if one.overlaps(other) {
                return Err(Error::config(format!("range set {i} overlaps with {j}")));
            }
        }
    }
    Ok(sets)
}

#[cfg(test)]
mod tests;
