//! What a table consists of: its sets, chains and rules as the kernel lists them, for a caller that
//! compares them with what it wrote.

use std::time::Duration;

use super::{
    Family, SUBSYSTEM, Socket, Table,
    element::{push_text, read_text},
    socket::NFTA_TABLE,
};
use crate::{
    Error, Result,
    sys::netfilter::{Message, Reading, attributes, value_of},
};

const NFT_MSG_GETTABLE: u16 = SUBSYSTEM | 1;
const NFT_MSG_GETCHAIN: u16 = SUBSYSTEM | 4;
const NFT_MSG_GETRULE: u16 = SUBSYSTEM | 7;
const NFT_MSG_GETSET: u16 = SUBSYSTEM | 10;

const NFTA_CHAIN_HANDLE: u16 = 2;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;

const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_HANDLE: u16 = 3;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_RULE_USERDATA: u16 = 7;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;

const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_FLAGS: u16 = 3;
const NFTA_SET_KEY_TYPE: u16 = 4;
const NFTA_SET_KEY_LEN: u16 = 5;
const NFTA_SET_DATA_TYPE: u16 = 6;
const NFTA_SET_DATA_LEN: u16 = 7;
const NFTA_SET_DESC: u16 = 9;
const NFTA_SET_TIMEOUT: u16 = 11;
const NFTA_SET_HANDLE: u16 = 16;
const NFTA_SET_DESC_SIZE: u16 = 1;
/// NFT_DATA_VERDICT, the data type of verdict maps.
const VERDICT: u32 = 0xffff_ff00;

/// A set or map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// Its name; those of anonymous sets begin with two underscores.
    pub name: String,
    /// The kernel's number of it: another one after it was deleted and made anew.
    pub handle: u64,
    /// NFT_SET_* of linux/netfilter/nf_tables.h.
    pub flags: u32,
    /// Bytes of a key.
    pub key_length: u32,
    /// The type of a key, in nft's own numbering.
    pub key_type: u32,
    /// What a map has for a key; `None` for a set.
    pub data: Option<SetData>,
    /// How long its elements live without one of their own.
    pub timeout: Option<Duration>,
    /// How many elements it may have.
    pub size: Option<u32>,
}

/// What a map has for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetData {
    /// Verdicts.
    Verdict,
    /// So many bytes.
    Value(u32),
}

/// A chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// The kernel's number of it: another one after it was deleted and made anew.
    pub handle: u64,
    /// Where packets enter it; `None` where only rules lead to it.
    pub base: Option<BaseChain>,
}

/// What makes a chain a base chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BaseChain {
    /// `filter`, `nat` or `route`.
    pub kind: String,
    /// The hook's number (NF_INET_*).
    pub hook: u32,
    /// Its place among others at the hook.
    pub priority: i32,
    /// Whether what reaches its end is accepted.
    pub accepts: bool,
}

/// A rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// The chain it is in.
    pub chain: String,
    /// The kernel's number of it: another one for the same rule written anew.
    pub handle: u64,
    /// Its expressions as the kernel writes them (NFTA_RULE_EXPRESSIONS), what they have counted
    /// set to zero. Equal bytes do the same, with one exception: an anonymous set is there by its
    /// name only.
    pub expressions: Vec<u8>,
    /// What its writer attached (nft: the comment).
    pub attached: Vec<u8>,
}

impl Socket {
    /// Whether there is such a table.
    pub fn has_table(&mut self, table: &Table) -> Result<bool> {
        let mut request = Vec::new();
        push_text(&mut request, NFTA_TABLE, &table.name);
        let family = table.family.number();
        match self
            .netlink
            .request(NFT_MSG_GETTABLE, 0, family, &request, |_| {})
        {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(cause) => Err(Error::new(format!("find nftables table {table}"), cause)),
        }
    }

    /// The sets and maps of a table, anonymous ones too; none if there is no such table.
    pub fn sets(&mut self, table: &Table) -> Result<Vec<Set>> {
        self.objects("sets", NFT_MSG_GETSET, table, &[], set)
    }

    /// The chains of a table; none if there is no such table.
    pub fn chains(&mut self, table: &Table) -> Result<Vec<Chain>> {
        self.objects("chains", NFT_MSG_GETCHAIN, table, &[], chain)
    }

    /// The rules of a table, those of one chain in their order; none if there is no such table.
    pub fn rules(&mut self, table: &Table) -> Result<Vec<Rule>> {
        self.objects("rules", NFT_MSG_GETRULE, table, &[], rule)
    }

    /// The rules of one chain in their order; none if there is no such chain.
    pub fn rules_of(&mut self, table: &Table, chain: &str) -> Result<Vec<Rule>> {
        let mut request = Vec::new();
        push_text(&mut request, NFTA_RULE_CHAIN, chain);
        let mut rules = self.objects("rules", NFT_MSG_GETRULE, table, &request, rule)?;
        rules.retain(|rule| rule.chain == chain);
        Ok(rules)
    }

    fn objects<T>(
        &mut self,
        what: &str,
        kind: u16,
        table: &Table,
        narrower: &[u8],
        parse: fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>> {
        let mut request = Vec::new();
        push_text(&mut request, NFTA_TABLE, &table.name);
        request.extend_from_slice(narrower);
        let what = format!("list {what} of nftables table {table}");
        let found = self.dump(
            &what,
            kind,
            table,
            &request,
            || Some(Vec::new()),
            |found, message| {
                // Some lists the kernel does not narrow down itself.
                if table_of(message).as_ref() != Some(table) {
                    return Reading::Whole;
                }
                match (&mut *found, parse(message.payload())) {
                    (Some(found), Some(object)) => found.push(object),
                    _ => *found = None,
                }
                Reading::Whole
            },
        )?;
        match found {
            None => Ok(Vec::new()),
            Some(Some(found)) => Ok(found),
            Some(None) => Err(Error::other(what, "one that this program cannot read")),
        }
    }
}

/// The table that a message is about.
pub(super) fn table_of(message: &Message<'_>) -> Option<Table> {
    let family = Family::from_number(message.family())?;
    let name = read_text(value_of(message.payload(), NFTA_TABLE)?)?;
    Some(Table::new(family, name))
}

fn set(bytes: &[u8]) -> Option<Set> {
    let mut set = Set::default();
    let mut data_type = None;
    let mut data_length = None;
    for (kind, value) in attributes(bytes) {
        match kind {
            NFTA_SET_NAME => set.name = read_text(value)?.to_owned(),
            NFTA_SET_FLAGS => set.flags = number(value)?,
            NFTA_SET_KEY_TYPE => set.key_type = number(value)?,
            NFTA_SET_KEY_LEN => set.key_length = number(value)?,
            NFTA_SET_DATA_TYPE => data_type = Some(number(value)?),
            NFTA_SET_DATA_LEN => data_length = Some(number(value)?),
            NFTA_SET_DESC => set.size = value_of(value, NFTA_SET_DESC_SIZE).and_then(number),
            NFTA_SET_TIMEOUT => set.timeout = Some(Duration::from_millis(large_number(value)?)),
            NFTA_SET_HANDLE => set.handle = large_number(value)?,
            _ => {}
        }
    }
    set.data = match (data_type, data_length) {
        (Some(VERDICT), _) => Some(SetData::Verdict),
        (_, Some(length)) => Some(SetData::Value(length)),
        _ => None,
    };
    Some(set)
}

fn chain(bytes: &[u8]) -> Option<Chain> {
    let mut chain = Chain::default();
    let mut base = BaseChain::default();
    let mut hooked = false;
    for (kind, value) in attributes(bytes) {
        match kind {
            NFTA_CHAIN_NAME => chain.name = read_text(value)?.to_owned(),
            NFTA_CHAIN_HANDLE => chain.handle = large_number(value)?,
            NFTA_CHAIN_HOOK => {
                hooked = true;
                base.hook = number(value_of(value, NFTA_HOOK_HOOKNUM)?)?;
                base.priority = number(value_of(value, NFTA_HOOK_PRIORITY)?)?.cast_signed();
            }
            NFTA_CHAIN_POLICY => base.accepts = number(value)? == 1,
            NFTA_CHAIN_TYPE => base.kind = read_text(value)?.to_owned(),
            _ => {}
        }
    }
    chain.base = hooked.then_some(base);
    Some(chain)
}

fn rule(bytes: &[u8]) -> Option<Rule> {
    let mut rule = Rule::default();
    for (kind, value) in attributes(bytes) {
        match kind {
            NFTA_RULE_CHAIN => rule.chain = read_text(value)?.to_owned(),
            NFTA_RULE_HANDLE => rule.handle = large_number(value)?,
            NFTA_RULE_EXPRESSIONS => rule.expressions = without_counts(value),
            NFTA_RULE_USERDATA => rule.attached = value.to_vec(),
            _ => {}
        }
    }
    Some(rule)
}

/// The expressions with empty data where the data is a count or a moment: `counter`, and `last`.
fn without_counts(expressions: &[u8]) -> Vec<u8> {
    let mut blanked = expressions.to_vec();
    for (_, expression) in attributes(expressions) {
        let name = value_of(expression, NFTA_EXPR_NAME).and_then(read_text);
        if let (Some("counter" | "last"), Some(data)) = (name, value_of(expression, NFTA_EXPR_DATA))
        {
            for (_, count) in attributes(data) {
                let at = count.as_ptr().addr() - expressions.as_ptr().addr();
                blanked[at..at + count.len()].fill(0);
            }
        }
    }
    blanked
}

fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.try_into().ok()?))
}

fn large_number(value: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(value.try_into().ok()?))
}

/// Every parser of this module on the same bytes, for a property of all of them.
#[cfg(test)]
pub(super) fn parse_all(bytes: &[u8]) {
    set(bytes);
    chain(bytes);
    rule(bytes);
    without_counts(bytes);
}
