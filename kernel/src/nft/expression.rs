//! Expressions: the instructions of a rule, as the kernel's nf_tables machine runs them
//! (linux/netfilter/nf_tables.h, enum nft_*_attributes).

use super::{Family, Verdict, element::push_text};
use crate::sys::netfilter::{begin_nested, end_nested, push_attribute};

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFT_REG_VERDICT: u32 = 0;
const NFT_REG32_00: u32 = 8;
const RTN_LOCAL: u32 = 2;
const NF_NAT_RANGE_PROTO_RANDOM_FULLY: u32 = 1 << 4;

/// One of the sixteen registers of four bytes; longer values take the following ones too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register(pub u8);

impl Register {
    fn number(self) -> u32 {
        NFT_REG32_00 + u32::from(self.0)
    }
}

/// Where in the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// From the network header.
    Network = 1,
    /// From the transport header.
    Transport = 2,
}

/// What is known of a packet besides its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meta {
    /// Its mark: four bytes in host order.
    Mark = 3,
    /// The name of the interface it came in by: 16 bytes.
    InputName = 6,
    /// Its transport protocol: one byte.
    Protocol = 16,
}

/// What is known of a packet's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// The state's bit: 2 established, 4 related, 8 new; four bytes in host order.
    State = 0,
    /// IPS_* bits; four bytes in host order.
    Status = 2,
    /// As it began: the destination port.
    OriginalDestinationPort = 12,
    /// As it began: the source address.
    OriginalSource4 = 19,
    /// As it began: the destination address.
    OriginalDestination4 = 20,
    /// As it began: the source address.
    OriginalSource6 = 21,
    /// As it began: the destination address.
    OriginalDestination6 = 22,
}

/// Whose address type is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// The source's.
    Source = 1,
    /// The destination's.
    Destination = 2,
}

/// The expressions of one rule, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expressions(Vec<u8>);

impl Expressions {
    /// None yet: it does nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// As NFTA_RULE_EXPRESSIONS has them.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn push(&mut self, name: &str, attributes: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        let element = begin_nested(&mut self.0, NFTA_LIST_ELEM);
        push_text(&mut self.0, NFTA_EXPR_NAME, name);
        let data = begin_nested(&mut self.0, NFTA_EXPR_DATA);
        attributes(&mut self.0);
        end_nested(&mut self.0, data);
        end_nested(&mut self.0, element);
        self
    }

    /// Loads bytes of the packet.
    pub fn payload(&mut self, base: Base, offset: u32, length: u32, to: Register) -> &mut Self {
        self.push("payload", |out| {
            push_u32(out, 1, to.number());
            push_u32(out, 2, base as u32);
            push_u32(out, 3, offset);
            push_u32(out, 4, length);
        })
    }

    /// Loads what is known of the packet.
    pub fn meta(&mut self, key: Meta, to: Register) -> &mut Self {
        self.push("meta", |out| {
            push_u32(out, 2, key as u32);
            push_u32(out, 1, to.number());
        })
    }

    /// Sets the mark.
    pub fn set_mark(&mut self, from: Register) -> &mut Self {
        self.push("meta", |out| {
            push_u32(out, 2, Meta::Mark as u32);
            push_u32(out, 3, from.number());
        })
    }

    /// Loads what is known of the connection.
    pub fn connection(&mut self, key: Connection, to: Register) -> &mut Self {
        self.push("ct", |out| {
            push_u32(out, 2, key as u32);
            push_u32(out, 1, to.number());
            if !matches!(key, Connection::State | Connection::Status) {
                // IP_CT_DIR_ORIGINAL.
                push_attribute(out, 3, &[0]);
            }
        })
    }

    /// `register = register & mask ^ xor`, over as many bytes as `mask` has.
    pub fn bitwise(&mut self, register: Register, mask: &[u8], xor: &[u8]) -> &mut Self {
        self.push("bitwise", |out| {
            push_u32(out, 1, register.number());
            push_u32(out, 2, register.number());
            push_u32(out, 3, mask.len() as u32);
            push_value(out, 4, mask);
            push_value(out, 5, xor);
        })
    }

    /// Ends the rule unless the register's first bytes are (are not) these.
    pub fn compare(&mut self, register: Register, equal: bool, with: &[u8]) -> &mut Self {
        self.push("cmp", |out| {
            push_u32(out, 1, register.number());
            push_u32(out, 2, u32::from(!equal));
            push_value(out, 3, with);
        })
    }

    /// Ends the rule unless a key is (is not) in a set.
    pub fn lookup(&mut self, set: &str, key: Register, inside: bool) -> &mut Self {
        self.push("lookup", |out| {
            push_text(out, 1, set);
            push_u32(out, 2, key.number());
            push_u32(out, 5, u32::from(!inside));
        })
    }

    /// Loads what a map has for a key; ends the rule if it has nothing.
    pub fn map(&mut self, map: &str, key: Register, to: Register) -> &mut Self {
        self.push("lookup", |out| {
            push_text(out, 1, map);
            push_u32(out, 2, key.number());
            push_u32(out, 3, to.number());
        })
    }

    /// Does what a verdict map has for a key; ends the rule if it has nothing.
    pub fn verdict_map(&mut self, map: &str, key: Register) -> &mut Self {
        self.push("lookup", |out| {
            push_text(out, 1, map);
            push_u32(out, 2, key.number());
            push_u32(out, 3, NFT_REG_VERDICT);
        })
    }

    /// Adds an element to a dynamic map, or renews the time of the one with this key, which keeps
    /// its data.
    pub fn renew(&mut self, map: &str, key: Register, data: Register, seconds: u32) -> &mut Self {
        self.push("dynset", |out| {
            push_text(out, 1, map);
            // NFT_DYNSET_OP_UPDATE.
            push_u32(out, 3, 1);
            push_u32(out, 4, key.number());
            push_u32(out, 5, data.number());
            push_attribute(out, 6, &(u64::from(seconds) * 1000).to_be_bytes());
        })
    }

    /// Loads a random number below `modulus`, in host order.
    pub fn random(&mut self, modulus: u32, to: Register) -> &mut Self {
        self.push("numgen", |out| {
            push_u32(out, 1, to.number());
            push_u32(out, 2, modulus);
            // NFT_NG_RANDOM.
            push_u32(out, 3, 1);
        })
    }

    /// Loads a hash (jhash) below `modulus` of a value of `length` bytes, in host order.
    pub fn hash(
        &mut self,
        from: Register,
        length: u32,
        modulus: u32,
        seed: u32,
        to: Register,
    ) -> &mut Self {
        self.push("hash", |out| {
            push_u32(out, 1, from.number());
            push_u32(out, 2, to.number());
            push_u32(out, 3, length);
            push_u32(out, 4, modulus);
            push_u32(out, 5, seed);
            // NFT_HASH_JENKINS.
            push_u32(out, 7, 0);
        })
    }

    /// Ends the rule unless an address of the packet is one of this host's. Uses a register.
    pub fn is_local(&mut self, of: Of, register: Register) -> &mut Self {
        self.push("fib", |out| {
            push_u32(out, 3, of as u32);
            // NFT_FIB_RESULT_ADDRTYPE.
            push_u32(out, 2, 3);
            push_u32(out, 1, register.number());
        });
        self.compare(register, true, &RTN_LOCAL.to_ne_bytes())
    }

    /// Sends the packet's connection to the address and port in the registers.
    pub fn translate(&mut self, family: Family, address: Register, port: Register) -> &mut Self {
        self.push("nat", |out| {
            // NFT_NAT_DNAT.
            push_u32(out, 1, 1);
            push_u32(out, 2, u32::from(family.number()));
            push_u32(out, 3, address.number());
            push_u32(out, 4, address.number());
            push_u32(out, 5, port.number());
            push_u32(out, 6, port.number());
        })
    }

    /// Gives the packet's connection the address of this host and a random port.
    pub fn masquerade(&mut self) -> &mut Self {
        self.push("masq", |out| {
            push_u32(out, 1, NF_NAT_RANGE_PROTO_RANDOM_FULLY)
        })
    }

    /// Refuses the packet: ICMP port unreachable.
    pub fn reject(&mut self, family: Family) -> &mut Self {
        self.push("reject", |out| {
            // NFT_REJECT_ICMP_UNREACH.
            push_u32(out, 1, 0);
            push_attribute(out, 2, &[if family == Family::Ip6 { 4 } else { 3 }]);
        })
    }

    /// Refuses a packet of TCP by a reset.
    pub fn reset(&mut self) -> &mut Self {
        // NFT_REJECT_TCP_RST.
        self.push("reject", |out| push_u32(out, 1, 1))
    }

    /// Ends the rule with a verdict.
    pub fn verdict(&mut self, verdict: &Verdict) -> &mut Self {
        self.push("immediate", |out| {
            push_u32(out, 1, NFT_REG_VERDICT);
            verdict.encode(out, 2);
        })
    }
}

fn push_u32(out: &mut Vec<u8>, kind: u16, value: u32) {
    push_attribute(out, kind, &value.to_be_bytes());
}

fn push_value(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let data = begin_nested(out, kind);
    push_attribute(out, NFTA_DATA_VALUE, value);
    end_nested(out, data);
}
