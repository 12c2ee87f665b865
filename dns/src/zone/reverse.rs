//! Names of addresses: `in-addr.arpa` (RFC 1035, 3.5) and `ip6.arpa` (RFC 3596, 2.5).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::rdata::PTR;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::services::Label;
use super::store::{Entry, Host};
use super::{Found, Zone, records};

/// What a reverse name spells.
struct Spelt {
    /// The network of its digits: of one address if they are all there.
    net: IpNet,
    /// More labels follow, which spell nothing.
    beyond: bool,
}

impl Zone {
    /// A name that is not below the domain.
    pub(super) fn reverse(&self, asked: &Name, kind: RecordType) -> Found {
        let Some(spelt) = read(asked) else {
            return Found::Foreign;
        };
        let own = self.own(&spelt.net).is_some();
        let whole = spelt.net.prefix_len() == spelt.net.max_prefix_len();
        if own && !self.is_complete() {
            return Found::Unknown;
        }
        let names = match whole && !spelt.beyond {
            true => self.names_of(spelt.net.addr()),
            false => Vec::new(),
        };
        match (names.is_empty(), own) {
            (false, _) => records::of_type(kind, RecordType::PTR, || {
                let record = |name| {
                    Record::from_rdata(asked.clone(), self.settings.ttl, RData::PTR(PTR(name)))
                };
                names.into_iter().map(record).collect()
            }),
            (true, true) if !whole && !spelt.beyond => Found::NoData,
            (true, true) => Found::NoName,
            (true, false) => Found::Foreign,
        }
    }

    /// Sorted. The Services of a cluster IP, else the endpoints of the address.
    fn names_of(&self, address: IpAddr) -> Vec<Name> {
        let services = self.store.services_at(address);
        let mut names: Vec<_> = services.filter_map(|entry| self.name_of(entry)).collect();
        if names.is_empty() {
            for (slice, entry) in self.store.slices_at(address) {
                let (Some(front), Some(service)) = (&entry.front, self.name_of(entry)) else {
                    continue;
                };
                let counts = |host: &&Host| host.address == address && front.takes(host);
                let hosts = slice.hosts.iter().filter(counts);
                names.extend(hosts.filter_map(|host| Label::of(host).before(&service)));
            }
        }
        names.sort_unstable();
        names.dedup();
        names
    }

    fn name_of(&self, entry: &Entry) -> Option<Name> {
        let labels = [entry.name.name.as_bytes(), entry.name.namespace.as_bytes()];
        records::below(labels, &self.services)
    }

    /// The own network that the network is part of.
    fn own(&self, net: &IpNet) -> Option<&IpNet> {
        self.settings
            .own_reverse
            .iter()
            .find(|own| own.contains(net))
    }

    /// The topmost reverse name above this one that lies in one of the own networks; for others the name itself.
    pub(super) fn reverse_apex(&self, asked: &Name) -> Name {
        let own = read(asked).and_then(|spelt| self.own(&spelt.net));
        let labels = match own {
            Some(IpNet::V4(net)) => usize::from(net.prefix_len().div_ceil(8)),
            Some(IpNet::V6(net)) => usize::from(net.prefix_len().div_ceil(4)),
            None => return asked.clone(),
        };
        asked.trim_to(labels + 2)
    }
}

fn read(name: &Name) -> Option<Spelt> {
    let mut labels = name.iter().rev();
    if !labels.next()?.eq_ignore_ascii_case(b"arpa") {
        return None;
    }
    let kind = labels.next()?;
    if kind.eq_ignore_ascii_case(b"in-addr") {
        let mut octets = [0; 4];
        let (digits, beyond) = digits(labels, &mut octets, octet);
        let net = Ipv4Net::new(Ipv4Addr::from(octets), 8 * digits).ok()?;
        Some(Spelt {
            net: net.into(),
            beyond,
        })
    } else if kind.eq_ignore_ascii_case(b"ip6") {
        let mut nibbles = [0; 32];
        let (digits, beyond) = digits(labels, &mut nibbles, nibble);
        let bits = nibbles
            .iter()
            .fold(0, |bits, &nibble| bits << 4 | u128::from(nibble));
        let net = Ipv6Net::new(Ipv6Addr::from(bits), 4 * digits).ok()?;
        Some(Spelt {
            net: net.into(),
            beyond,
        })
    } else {
        None
    }
}

/// Reads digits as far as there are some: how many, and whether something else follows.
fn digits<'a>(
    mut labels: impl Iterator<Item = &'a [u8]>,
    out: &mut [u8],
    digit: fn(&[u8]) -> Option<u8>,
) -> (u8, bool) {
    let mut count = 0;
    for slot in out {
        let Some(label) = labels.next() else {
            return (count, false);
        };
        let Some(value) = digit(label) else {
            return (count, true);
        };
        *slot = value;
        count += 1;
    }
    (count, labels.next().is_some())
}

/// Decimal without leading zeros.
fn octet(label: &[u8]) -> Option<u8> {
    let plain =
        label.iter().all(u8::is_ascii_digit) && (label.len() == 1 || label.first() != Some(&b'0'));
    std::str::from_utf8(label)
        .ok()
        .filter(|_| plain)?
        .parse()
        .ok()
}

/// One hexadecimal digit.
fn nibble(label: &[u8]) -> Option<u8> {
    let [digit] = label else {
        return None;
    };
    char::from(*digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}
