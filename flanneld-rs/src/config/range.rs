//! How a network is cut into node subnets: `SubnetLen`, `SubnetMin`, `SubnetMax`, for either family.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::folded::Folded;
use super::{Error, get};

/// A checked range. All addresses are of the network's family and on subnet boundaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubnetRange {
    /// The whole network, host bits zero.
    pub network: IpNet,
    /// Prefix length of a node's subnet.
    pub subnet_len: u8,
    /// Base of the first subnet that may be leased.
    pub min: IpAddr,
    /// Base of the last subnet that may be leased.
    pub max: IpAddr,
}

impl SubnetRange {
    /// True when `net` could be leased from this range.
    pub fn allows(&self, net: IpNet) -> bool {
        let same_family = net.addr().is_ipv4() == self.network.addr().is_ipv4();
        same_family
            && net.prefix_len() == self.subnet_len
            && (self.min..=self.max).contains(&net.network())
    }

    /// Every subnet that may be leased, lowest first. Can be very long: take what is needed.
    pub fn subnets(&self) -> impl Iterator<Item = IpNet> + use<> {
        let (v4, len, max) = (
            self.network.addr().is_ipv4(),
            self.subnet_len,
            bits(self.max),
        );
        let step = 1u128 << (width(v4) - len);
        let mut next = Some(bits(self.min)).filter(|&min| min <= max);
        std::iter::from_fn(move || {
            let base = next?;
            next = base.checked_add(step).filter(|&n| n <= max);
            IpNet::new(address(v4, base), len).ok()
        })
    }
}

/// The keys of one family as written.
pub struct Wanted<N> {
    network: Option<N>,
    len: Option<u64>,
    min: Option<IpAddr>,
    max: Option<IpAddr>,
}

/// What differs between the families.
pub trait Family: Copy + Into<IpNet> + std::str::FromStr {
    /// The four keys: network, length, first, last.
    const KEYS: [&'static str; 4];
    /// Longest network that still holds four subnets.
    const MAX_NETWORK: u8;
    /// Default subnet length when the network is large enough.
    const DEFAULT_LEN: u8;
    /// Longest subnet.
    const MAX_LEN: u8;
    /// `null` is an error for this family's addresses, as it is in flannel's decoder.
    const NULL_ADDRESS_FAILS: bool;
    /// Reads an address of this family.
    fn address(text: &str) -> Option<IpAddr>;
}

impl Family for Ipv4Net {
    const KEYS: [&'static str; 4] = ["Network", "SubnetLen", "SubnetMin", "SubnetMax"];
    const MAX_NETWORK: u8 = 28;
    const DEFAULT_LEN: u8 = 24;
    const MAX_LEN: u8 = 30;
    const NULL_ADDRESS_FAILS: bool = true;

    fn address(text: &str) -> Option<IpAddr> {
        text.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
    }
}

impl Family for Ipv6Net {
    const KEYS: [&'static str; 4] = [
        "IPv6Network",
        "IPv6SubnetLen",
        "IPv6SubnetMin",
        "IPv6SubnetMax",
    ];
    const MAX_NETWORK: u8 = 124;
    const DEFAULT_LEN: u8 = 64;
    const MAX_LEN: u8 = 126;
    const NULL_ADDRESS_FAILS: bool = false;

    fn address(text: &str) -> Option<IpAddr> {
        text.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
    }
}

impl<N: Family> Wanted<N> {
    /// Reads the keys, family enabled or not: a malformed value is always an error.
    pub fn read(raw: &Folded) -> Result<Self, Error> {
        let [network, len, min, max] = N::KEYS;
        let text = |key: &'static str, null_fails: bool| -> Result<Option<String>, Error> {
            let cause = "null is not allowed here; leave the key out".to_owned();
            match raw.raw(key) {
                Some(raw) if null_fails && raw.get() == "null" => Err(Error::Key { key, cause }),
                _ => get(raw, key),
            }
        };
        let bad = |key, text: &str, what| Error::Key {
            key,
            cause: format!("\"{text}\" is not {what}"),
        };
        let address = |key| match text(key, N::NULL_ADDRESS_FAILS)? {
            Some(given) => N::address(&given)
                .ok_or_else(|| bad(key, &given, "an address of this family"))
                .map(Some),
            None => Ok(None),
        };
        let net = match text(network, true)? {
            Some(given) => Some(
                given
                    .parse::<N>()
                    .map_err(|_| bad(network, &given, "a network of this family in CIDR form"))?,
            ),
            None => None,
        };
        let (min, max) = (address(min)?, address(max)?);
        Ok(Self {
            // The whole address space means "no network": k3s passes ::/0 for a family that is off.
            network: net
                .filter(|&net| net.into().prefix_len() > 0 || !net.into().addr().is_unspecified()),
            len: get(raw, len)?.filter(|&len| len > 0),
            min: min.filter(|ip| !ip.is_unspecified()),
            max: max.filter(|ip| !ip.is_unspecified()),
        })
    }

    /// Applies flannel's defaults and limits.
    pub fn check(self) -> Result<SubnetRange, Error> {
        let [network_key, len_key, min_key, max_key] = N::KEYS;
        let fail = |text: String| Err(Error::Range(text));
        let Some(network) = self.network else {
            return fail(format!(
                "please define a correct {network_key} parameter in the flannel config"
            ));
        };
        let network: IpNet = network.into().trunc();
        let prefix = network.prefix_len();
        let len = match self.len {
            Some(len) if len > u64::from(N::MAX_LEN) => {
                return fail(format!("{len_key} must be less than /{}", N::MAX_LEN + 1));
            }
            Some(len) if len < u64::from(prefix) + 2 => {
                return fail(format!(
                    "network must be able to accommodate at least four subnets: {len_key} {len} is \
                     less than {} for {network}",
                    prefix + 2
                ));
            }
            Some(len) => u8::try_from(len).unwrap_or(N::MAX_LEN),
            None if prefix > N::MAX_NETWORK => {
                let limit = N::MAX_NETWORK;
                return fail(format!(
                    "{network_key} is too small. Minimum useful network prefix is /{limit}"
                ));
            }
            None if prefix + 2 <= N::DEFAULT_LEN => N::DEFAULT_LEN,
            None => prefix + 2,
        };
        let v4 = network.addr().is_ipv4();
        let step = 1u128 << (width(v4) - len);
        let inside = |key: &str, given: Option<IpAddr>, default: u128| match given {
            None => Ok(address(v4, default)),
            Some(ip) if !network.contains(&ip) => Err(Error::Range(format!(
                "{key} is not in the range of the {network_key}"
            ))),
            Some(ip) if !bits(ip).is_multiple_of(step) => Err(Error::Range(format!(
                "{key} is not on a SubnetLen boundary: {ip}"
            ))),
            Some(ip) => Ok(ip),
        };
        // The first subnet is left out: its base would be the network's own address.
        let min = inside(min_key, self.min, bits(network.network()) + step)?;
        let last = bits(network.broadcast()) - (step - 1);
        let max = inside(max_key, self.max, last)?;
        if min > max {
            return fail(format!(
                "{min_key} {min} lies above {max_key} {max}: there is no subnet to lease"
            ));
        }
        Ok(SubnetRange {
            network,
            subnet_len: len,
            min,
            max,
        })
    }
}

/// Address width in bits.
fn width(v4: bool) -> u8 {
    if v4 { 32 } else { 128 }
}

/// An address as a number.
fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// The inverse of [`bits`].
fn address(v4: bool, bits: u128) -> IpAddr {
    if v4 {
        let low = u32::try_from(bits & u128::from(u32::MAX)).unwrap_or(u32::MAX);
        IpAddr::V4(Ipv4Addr::from_bits(low))
    } else {
        IpAddr::V6(Ipv6Addr::from_bits(bits))
    }
}
