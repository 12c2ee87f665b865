//! Rules as the kernel's instructions: what `nft --debug=netlink` shows.

use ipnet::IpNet;
use kernel::nft::{self, Base, Connection, Expressions, Meta, Of, Register, Verdict};

use super::layout::{Place, Set};
use super::ruleset::{Action, Draw, HASH_SEED, Match, Rule, place_of};
use crate::model::{Family, Protocol};

/// Bits of a connection's state and status (linux/netfilter/nf_conntrack_common.h).
const STATE_NEW: u32 = 8;
const STATUS_TRANSLATED: u32 = 1 << 5;

/// A rule's expressions.
pub fn encode(rule: &Rule, family: Family) -> Expressions {
    let mut encoder = Encoder {
        out: Expressions::new(),
        family,
    };
    for each in &rule.matches {
        encoder.matches(each);
    }
    for each in &rule.actions {
        encoder.action(each);
    }
    encoder.out
}

struct Encoder {
    out: Expressions,
    family: Family,
}

const FIRST: Register = Register(0);

impl Encoder {
    /// Registers that an address takes.
    fn ip_registers(&self) -> u8 {
        match self.family {
            Family::V4 => 1,
            Family::V6 => 4,
        }
    }

    fn source(&mut self, to: Register) -> Register {
        let (offset, length) = match self.family {
            Family::V4 => (12, 4),
            Family::V6 => (8, 16),
        };
        self.out.payload(Base::Network, offset, length, to);
        Register(to.0 + self.ip_registers())
    }

    fn destination(&mut self, to: Register) -> Register {
        let (offset, length) = match self.family {
            Family::V4 => (16, 4),
            Family::V6 => (24, 16),
        };
        self.out.payload(Base::Network, offset, length, to);
        Register(to.0 + self.ip_registers())
    }

    fn port(&mut self, to: Register) -> Register {
        self.out.payload(Base::Transport, 2, 2, to);
        Register(to.0 + 1)
    }

    /// Loads a front; returns the next free register.
    fn front(&mut self, place: Place, to: Register) -> Register {
        let at = match place {
            Place::Ip => self.destination(to),
            Place::NodePort => to,
        };
        self.out.meta(Meta::Protocol, at);
        self.port(Register(at.0 + 1))
    }

    /// The front that the connection was meant for when it began.
    fn original_front(&mut self, place: Place, to: Register) -> Register {
        let at = match place {
            Place::Ip => {
                let key = match self.family {
                    Family::V4 => Connection::OriginalDestination4,
                    Family::V6 => Connection::OriginalDestination6,
                };
                self.out.connection(key, to);
                Register(to.0 + self.ip_registers())
            }
            Place::NodePort => to,
        };
        let port = Register(at.0 + 1);
        self.out
            .meta(Meta::Protocol, at)
            .connection(Connection::OriginalDestinationPort, port);
        Register(port.0 + 1)
    }

    fn has_bit(&mut self, bit: u32) {
        self.out
            .bitwise(FIRST, &bit.to_ne_bytes(), &[0; 4])
            .compare(FIRST, false, &[0; 4]);
    }

    fn in_net(&mut self, net: &IpNet, yes: bool) {
        let octets = |ip: std::net::IpAddr| match ip {
            std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
            std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let (mask, network) = (octets(net.netmask()), octets(net.network()));
        self.out
            .bitwise(FIRST, &mask, &vec![0; mask.len()])
            .compare(FIRST, yes, &network);
    }

    fn matches(&mut self, each: &Match) {
        match each {
            Match::New => {
                self.out.connection(Connection::State, FIRST);
                self.has_bit(STATE_NEW);
            }
            Match::Translated => {
                self.out.connection(Connection::Status, FIRST);
                self.has_bit(STATUS_TRANSLATED);
            }
            Match::In(set, inside) => {
                match set {
                    Set::ClusterIps | Set::NodePortIps => drop(self.destination(FIRST)),
                    Set::SourceRanges => {
                        let at = self.front(Place::Ip, FIRST);
                        self.source(at);
                    }
                    Set::Hairpin => {
                        let at = self.source(FIRST);
                        self.front(Place::Ip, at);
                    }
                    _ => drop(self.front(place_of(*set), FIRST)),
                }
                self.out.lookup(set.name(), FIRST, *inside);
            }
            Match::Source(net, yes) => {
                self.source(FIRST);
                self.in_net(net, *yes);
            }
            Match::Destination(net, yes) => {
                self.destination(FIRST);
                self.in_net(net, *yes);
            }
            Match::Interface(name, yes) => {
                self.out.meta(Meta::InputName, FIRST);
                match name.strip_suffix('*') {
                    Some(prefix) => self.out.compare(FIRST, *yes, prefix.as_bytes()),
                    None => {
                        // IFNAMSIZ.
                        let mut whole = [0; 16];
                        let length = name.len().min(15);
                        whole[..length].copy_from_slice(&name.as_bytes()[..length]);
                        self.out.compare(FIRST, *yes, &whole)
                    }
                };
            }
            Match::LocalSource => drop(self.out.is_local(Of::Source, FIRST)),
            Match::LocalDestination => drop(self.out.is_local(Of::Destination, FIRST)),
            Match::Tcp => {
                let tcp = Protocol::Tcp.number();
                self.out
                    .meta(Meta::Protocol, FIRST)
                    .compare(FIRST, true, &[tcp]);
            }
            Match::Marked(mark) => {
                self.out.meta(Meta::Mark, FIRST);
                self.has_bit(*mark);
            }
        }
    }

    fn action(&mut self, each: &Action) {
        match each {
            Action::Mark(mark) => {
                self.out
                    .meta(Meta::Mark, FIRST)
                    .bitwise(FIRST, &(!mark).to_ne_bytes(), &mark.to_ne_bytes())
                    .set_mark(FIRST);
            }
            Action::Unmark(mark) => {
                self.out
                    .meta(Meta::Mark, FIRST)
                    .bitwise(FIRST, &[0xff; 4], &mark.to_ne_bytes())
                    .set_mark(FIRST);
            }
            Action::Masquerade => drop(self.out.masquerade()),
            Action::Drop => drop(self.out.verdict(&Verdict::Drop)),
            Action::Reject => drop(self.out.reject(family(self.family))),
            Action::Reset => drop(self.out.reset()),
            Action::Jump(chain) => {
                let chain = chain.as_str().into();
                self.out.verdict(&Verdict::Jump(chain));
            }
            Action::Goto(chain) => {
                let chain = chain.as_str().into();
                self.out.verdict(&Verdict::Goto(chain));
            }
            Action::Verdict(set) => {
                match set.is_of_original() {
                    true => self.original_front(place_of(*set), FIRST),
                    false => self.front(place_of(*set), FIRST),
                };
                self.out.verdict_map(set.name(), FIRST);
            }
            Action::Translate(set, draw) => self.translate(*set, *draw),
            Action::Note(seconds) => self.note(*seconds),
        }
    }

    fn translate(&mut self, set: Set, draw: Draw) {
        let place = place_of(set);
        match draw {
            Draw::Random(below) => {
                let at = self.front(place, FIRST);
                self.out.random(below, at);
            }
            Draw::Hash(below) => {
                let at = self.front(place, FIRST);
                let length = 4 * u32::from(self.ip_registers());
                let source = Register(at.0 + 1);
                self.source(source);
                self.out.hash(source, length, below, HASH_SEED, at);
            }
            Draw::Client => {
                let at = self.source(FIRST);
                self.front(place, at);
            }
        }
        let port = Register(self.ip_registers());
        self.out
            .map(set.name(), FIRST, FIRST)
            .translate(family(self.family), FIRST, port);
    }

    fn note(&mut self, seconds: u32) {
        let key = match self.family {
            Family::V4 => Connection::OriginalSource4,
            Family::V6 => Connection::OriginalSource6,
        };
        self.out.connection(key, FIRST);
        let front = Register(self.ip_registers());
        let data = self.original_front(Place::Ip, front);
        let port = self.destination(data);
        self.port(port);
        self.out.renew(Set::Affinity.name(), FIRST, data, seconds);
    }
}

/// The family as the kernel's tables have it.
pub fn family(family: Family) -> nft::Family {
    match family {
        Family::V4 => nft::Family::Ip,
        Family::V6 => nft::Family::Ip6,
    }
}
