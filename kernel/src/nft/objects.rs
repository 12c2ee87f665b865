//! Tables, chains, rules and sets, made and removed in a [`Transaction`].

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST};

use super::{
    Expressions, SUBSYSTEM, SetData, Table, Transaction,
    element::{push_text, read_text},
};
use crate::sys::netfilter::{Message, begin_nested, end_nested, push_attribute, value_of};

const NFT_MSG_NEWTABLE: u16 = SUBSYSTEM;
const NFT_MSG_DELTABLE: u16 = SUBSYSTEM | 2;
const NFT_MSG_NEWCHAIN: u16 = SUBSYSTEM | 3;
const NFT_MSG_DELCHAIN: u16 = SUBSYSTEM | 5;
const NFT_MSG_NEWRULE: u16 = SUBSYSTEM | 6;
const NFT_MSG_DELRULE: u16 = SUBSYSTEM | 8;
const NFT_MSG_NEWSET: u16 = SUBSYSTEM | 9;
const NFTA_LIST_ELEM: u16 = 1;
/// NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE, NFTA_SET_TABLE.
const NFTA_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_SET_NAME: u16 = 2;
const NFTA_CHAIN_NAME: u16 = 3;
const NFT_SET_INTERVAL: u32 = 0x4;
const NFT_SET_MAP: u32 = 0x8;
const NFT_SET_TIMEOUT: u32 = 0x10;
const NFT_SET_EVAL: u32 = 0x20;
const NFT_SET_CONCAT: u32 = 0x80;
const NFT_DATA_VERDICT: u32 = 0xffff_ff00;

/// The type of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookType {
    /// `filter`.
    Filter,
    /// `nat`.
    Nat,
}

/// Where packets enter a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Everything that arrives.
    Prerouting = 0,
    /// What is for this host.
    Input = 1,
    /// What is passed on.
    Forward = 2,
    /// What this host sends.
    Output = 3,
    /// Everything that leaves.
    Postrouting = 4,
}

/// A field of a key or value, for the kernel (its length) and for whoever prints it (its type).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `ipv4_addr`.
    Ipv4,
    /// `ipv6_addr`.
    Ipv6,
    /// `inet_proto`.
    Protocol,
    /// `inet_service`.
    Port,
    /// `mark`: a number of four bytes in host order.
    Number,
}

impl Field {
    fn length(self) -> u32 {
        match self {
            Self::Ipv4 | Self::Number => 4,
            Self::Ipv6 => 16,
            Self::Protocol => 1,
            Self::Port => 2,
        }
    }

    /// As nft numbers its types (its enum datatypes).
    fn number(self) -> u32 {
        match self {
            Self::Ipv4 => 7,
            Self::Ipv6 => 8,
            Self::Protocol => 12,
            Self::Port => 13,
            Self::Number => 19,
        }
    }
}

/// What a map has for its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Values {
    /// Verdicts.
    Verdict,
    /// Values of these fields.
    Fields(Vec<Field>),
}

/// A set or map to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSet {
    /// Its name.
    pub name: String,
    /// The fields of its keys.
    pub key: Vec<Field>,
    /// What it maps to; `None`: it is a set.
    pub values: Option<Values>,
    /// Its keys may be ranges, field by field.
    pub interval: bool,
    /// Packets write it: the time in seconds after which an element goes, unless it says otherwise,
    /// and how many there can be.
    pub dynamic: Option<(u32, u32)>,
}

impl NewSet {
    /// Whether a set that was found is of this form: same lengths of keys and values.
    pub fn is_form_of(&self, found: &super::Set) -> bool {
        let values = match (&self.values, &found.data) {
            (None, None) | (Some(Values::Verdict), Some(SetData::Verdict)) => true,
            (Some(Values::Fields(fields)), Some(SetData::Value(found))) => length(fields) == *found,
            _ => false,
        };
        values && found.key_length == length(&self.key)
    }
}

/// Bytes of a key of these fields: each padded to four, unless it is alone.
fn length(fields: &[Field]) -> u32 {
    match fields {
        [one] => one.length(),
        many => many
            .iter()
            .map(|each| each.length().next_multiple_of(4))
            .sum(),
    }
}

/// nft's number of a concatenation: six bits a field.
fn type_of(fields: &[Field]) -> u32 {
    fields.iter().fold(0, |all, each| all << 6 | each.number())
}

impl Transaction {
    /// Makes the table; nothing changes if it is there.
    pub fn add_table(&mut self) {
        self.object(NFT_MSG_NEWTABLE, NLM_F_CREATE, "", |_| {});
    }

    /// Deletes the table with all that is in it.
    pub fn delete_table(&mut self) {
        self.object(NFT_MSG_DELTABLE, 0, "", |_| {});
    }

    /// Makes a chain, at a hook with a priority or to be jumped to; nothing changes if it is there.
    pub fn add_chain(&mut self, name: &str, hook: Option<(HookType, Hook, i32)>) {
        self.object(NFT_MSG_NEWCHAIN, NLM_F_CREATE, name, |out| {
            push_text(out, NFTA_CHAIN_NAME, name);
            if let Some((kind, hook, priority)) = hook {
                let nested = begin_nested(out, 4);
                push_u32(out, 1, hook as u32);
                push_attribute(out, 2, &priority.to_be_bytes());
                end_nested(out, nested);
                // NF_ACCEPT.
                push_u32(out, 5, 1);
                let kind = match kind {
                    HookType::Filter => "filter",
                    HookType::Nat => "nat",
                };
                push_text(out, 7, kind);
            }
        });
    }

    /// Deletes a chain, which must have no rules and to which nothing may lead.
    pub fn delete_chain(&mut self, name: &str) {
        self.object(NFT_MSG_DELCHAIN, 0, name, |out| {
            push_text(out, NFTA_CHAIN_NAME, name);
        });
    }

    /// Deletes all rules of a chain.
    pub fn flush_chain(&mut self, name: &str) {
        self.object(NFT_MSG_DELRULE, 0, name, |out| {
            push_text(out, NFTA_RULE_CHAIN, name);
        });
    }

    /// Adds a rule at the end of a chain.
    pub fn add_rule(&mut self, chain: &str, expressions: &Expressions) {
        let flags = NLM_F_CREATE | NLM_F_APPEND;
        self.object(NFT_MSG_NEWRULE, flags, chain, |out| {
            push_text(out, NFTA_RULE_CHAIN, chain);
            let list = begin_nested(out, 4);
            out.extend_from_slice(expressions.bytes());
            end_nested(out, list);
        });
    }

    /// Makes a set or map; nothing changes if it is there as it is wanted, and the commit fails with
    /// EEXIST if it is otherwise.
    pub fn add_set(&mut self, set: &NewSet) {
        let number = self.len() as u32 + 1;
        self.object(NFT_MSG_NEWSET, NLM_F_CREATE, &set.name, |out| {
            push_text(out, NFTA_SET_NAME, &set.name);
            let mut flags = 0;
            if set.interval {
                flags |= NFT_SET_INTERVAL;
                if set.key.len() > 1 {
                    flags |= NFT_SET_CONCAT;
                }
            }
            if set.values.is_some() {
                flags |= NFT_SET_MAP;
            }
            if set.dynamic.is_some() {
                flags |= NFT_SET_TIMEOUT | NFT_SET_EVAL;
            }
            push_u32(out, 3, flags);
            push_u32(out, 4, type_of(&set.key));
            push_u32(out, 5, length(&set.key));
            match &set.values {
                Some(Values::Verdict) => push_u32(out, 6, NFT_DATA_VERDICT),
                Some(Values::Fields(fields)) => {
                    push_u32(out, 6, type_of(fields));
                    push_u32(out, 7, length(fields));
                }
                None => {}
            }
            let description = begin_nested(out, 9);
            if let Some((_, size)) = set.dynamic {
                push_u32(out, 1, size);
            }
            // Only sets of ranges look at the fields one by one.
            if set.interval && set.key.len() > 1 {
                let fields = begin_nested(out, 2);
                for field in &set.key {
                    let element = begin_nested(out, NFTA_LIST_ELEM);
                    push_u32(out, 1, field.length());
                    end_nested(out, element);
                }
                end_nested(out, fields);
            }
            end_nested(out, description);
            push_u32(out, 10, number);
            if let Some((seconds, _)) = set.dynamic {
                let milliseconds = u64::from(seconds) * 1000;
                push_attribute(out, 11, &milliseconds.to_be_bytes());
            }
        });
    }

    fn object(&mut self, kind: u16, flags: u16, name: &str, write: impl FnOnce(&mut Vec<u8>)) {
        self.check_name(name);
        self.message(kind, NLM_F_REQUEST | flags, |table, out| {
            push_text(out, NFTA_TABLE, &table.name);
            write(out);
        });
        self.counted();
    }
}

fn push_u32(out: &mut Vec<u8>, kind: u16, value: u32) {
    push_attribute(out, kind, &value.to_be_bytes());
}

/// What a message of this module does, for an error; `None` for other messages.
pub(super) fn describe(message: &Message<'_>, table: &Table) -> Option<String> {
    let body: Vec<_> = message.attributes().collect();
    let text = |wanted: u16| {
        let found = body.iter().find(|(kind, _)| *kind == wanted);
        found.and_then(|(_, value)| read_text(value)).unwrap_or("?")
    };
    Some(match message.kind {
        NFT_MSG_NEWTABLE => format!("add nftables table {table}"),
        NFT_MSG_DELTABLE => format!("delete nftables table {table}"),
        NFT_MSG_NEWCHAIN => format!(
            "add chain {} to nftables table {table}",
            text(NFTA_CHAIN_NAME)
        ),
        NFT_MSG_DELCHAIN => format!(
            "delete chain {} of nftables table {table}",
            text(NFTA_CHAIN_NAME)
        ),
        NFT_MSG_NEWRULE => {
            let names: Vec<&str> = body
                .iter()
                .filter(|(kind, _)| *kind == 4)
                .flat_map(|(_, list)| crate::sys::netfilter::attributes(list))
                .filter_map(|(_, expression)| value_of(expression, 1).and_then(read_text))
                .collect();
            let chain = text(NFTA_RULE_CHAIN);
            format!(
                "add rule ({}) to chain {chain} of nftables table {table}",
                names.join(", ")
            )
        }
        NFT_MSG_DELRULE => format!(
            "flush chain {} of nftables table {table}",
            text(NFTA_RULE_CHAIN)
        ),
        NFT_MSG_NEWSET => format!("add set {} to nftables table {table}", text(NFTA_SET_NAME)),
        _ => return None,
    })
}
