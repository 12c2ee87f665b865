//! What the kernel says of the chains of an nf_tables table without listing their rules
//! (NFT_MSG_GETCHAIN, linux/netfilter/nf_tables.h).

use std::io;

use netlink_packet_core::NLM_F_DUMP;

use super::Iptables;
use crate::{
    Error, Result,
    sys::netfilter::{Socket, attributes},
};

const GET_CHAIN: u16 = 10 << 8 | 4;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_HANDLE: u16 = 2;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_USE: u16 = 6;

/// A chain and how much it is used.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChainUse {
    /// Its name.
    pub name: String,
    /// Its number: a chain that is deleted and made anew has another.
    pub handle: u64,
    /// Its own rules plus the jumps to it, from wherever.
    pub uses: u32,
}

impl Iptables {
    /// The chains of a table, in the calling thread's namespace; none if there is no such table.
    /// Costs the kernel a fraction of listing rules, and starts no program. Fails for legacy.
    pub fn chain_uses(&self, table: &str) -> Result<Vec<ChainUse>> {
        let what = || format!("list chains of {} table {table}", self.program);
        if self.legacy {
            return Err(Error::other(what(), "legacy tables have no such list"));
        }
        let family = if self.ipv6 {
            libc::AF_INET6
        } else {
            libc::AF_INET
        };
        let list = || -> io::Result<Vec<ChainUse>> {
            let mut chains = Vec::new();
            Socket::open()?.request(GET_CHAIN, NLM_F_DUMP, family as u8, &[], |message| {
                chains.extend(parse(message.payload(), table));
            })?;
            Ok(chains)
        };
        list().map_err(|cause| Error::new(what(), cause))
    }
}

/// One chain, if it is of the table.
fn parse(body: &[u8], table: &str) -> Option<ChainUse> {
    let mut chain = ChainUse {
        name: String::new(),
        handle: 0,
        uses: 0,
    };
    for (kind, value) in attributes(body) {
        match kind {
            NFTA_CHAIN_TABLE if text(value) != table.as_bytes() => return None,
            NFTA_CHAIN_HANDLE => chain.handle = u64::from_be_bytes(value.try_into().ok()?),
            NFTA_CHAIN_NAME => chain.name = String::from_utf8_lossy(text(value)).into_owned(),
            NFTA_CHAIN_USE => chain.uses = u32::from_be_bytes(value.try_into().ok()?),
            _ => {}
        }
    }
    Some(chain)
}

/// A string attribute without its final zero.
fn text(value: &[u8]) -> &[u8] {
    value.strip_suffix(&[0]).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netfilter::push_attribute;

    #[test]
    fn a_chain_of_another_table_is_left_out() {
        let mut body = Vec::new();
        push_attribute(&mut body, NFTA_CHAIN_TABLE, b"nat\0");
        push_attribute(&mut body, NFTA_CHAIN_HANDLE, &7u64.to_be_bytes());
        push_attribute(&mut body, NFTA_CHAIN_NAME, b"KUBE-SERVICES\0");
        push_attribute(&mut body, NFTA_CHAIN_USE, &3u32.to_be_bytes());
        let chain = parse(&body, "nat").unwrap();
        assert_eq!(
            (chain.name.as_str(), chain.handle, chain.uses),
            ("KUBE-SERVICES", 7, 3)
        );
        assert_eq!(parse(&body, "filter"), None);
    }
}
