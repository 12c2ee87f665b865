//! Records and names, built.

use std::net::IpAddr;

use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::Found;

/// `labels`, outermost first, in front of `domain`; `None` if that is longer than a name may be.
pub(super) fn below<'a>(labels: impl IntoIterator<Item = &'a [u8]>, domain: &Name) -> Option<Name> {
    let mut name = Name::new();
    for label in labels {
        name = name.append_label(label).ok()?;
    }
    name.append_domain(domain).ok()
}

/// An A or AAAA record.
pub(super) fn address(owner: &Name, ttl: u32, ip: IpAddr) -> Record {
    Record::from_rdata(owner.clone(), ttl, RData::from(ip))
}

/// A and AAAA records of a name that exists; of `ips` those that the type asks for, each once.
pub(super) fn addresses(
    owner: &Name,
    kind: RecordType,
    ttl: u32,
    ips: impl IntoIterator<Item = IpAddr>,
) -> Found {
    let mut ips: Vec<_> = ips.into_iter().filter(|ip| asks_for(kind, ip)).collect();
    ips.sort_unstable();
    ips.dedup();
    let records = ips.into_iter().map(|ip| address(owner, ttl, ip));
    found(records.collect(), Vec::new())
}

/// The same for a few addresses that differ and are in order: nothing but the answer is allocated.
pub(super) fn few_addresses(owner: &Name, kind: RecordType, ttl: u32, ips: &[IpAddr]) -> Found {
    let ips = ips.iter().filter(|ip| asks_for(kind, ip));
    let records = ips.map(|&ip| address(owner, ttl, ip));
    found(records.collect(), Vec::new())
}

fn asks_for(kind: RecordType, ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(_) => kind == RecordType::A,
        IpAddr::V6(_) => kind == RecordType::AAAA,
    }
}

/// What a name with records of one type alone answers.
pub(super) fn of_type(
    asked: RecordType,
    has: RecordType,
    records: impl FnOnce() -> Vec<Record>,
) -> Found {
    match asked == has {
        true => found(records(), Vec::new()),
        false => Found::NoData,
    }
}

/// Records, or their absence at a name that exists.
pub(super) fn found(answers: Vec<Record>, additionals: Vec<Record>) -> Found {
    match answers.is_empty() {
        true => Found::NoData,
        false => Found::Records {
            answers,
            additionals,
        },
    }
}
