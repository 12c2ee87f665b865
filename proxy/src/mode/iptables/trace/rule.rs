//! A rule as its tests and its target.

use std::net::{IpAddr, SocketAddr};

use crate::trace::Packet;

/// A rule of ours, read back.
pub(super) struct Rule {
    pub(super) text: String,
    tests: Vec<(bool, Test)>,
    pub(super) target: Target,
    /// It takes a packet only sometimes.
    pub(super) by_chance: bool,
    /// An option that is not understood.
    pub(super) unknown: Option<String>,
}

enum Test {
    Source {
        bits: u128,
        mask: u128,
    },
    Destination {
        bits: u128,
        mask: u128,
    },
    Interface {
        name: String,
        prefix: bool,
    },
    Protocol(String),
    DestinationPort(u16, u16),
    SourceLocal,
    DestinationLocal,
    Mark {
        value: u32,
        mask: u32,
    },
    /// States of a first packet's connection that would match.
    New(bool),
    /// A client that is remembered, which a new one is not.
    Remembered,
}

/// What a rule does.
pub(super) enum Target {
    None,
    Jump(String),
    Goto(String),
    Return,
    Accept,
    Drop,
    Reject,
    Masquerade,
    Mark { value: u32, mask: u32 },
    Dnat(SocketAddr),
}

impl Rule {
    pub(super) fn parse(text: &str) -> Self {
        let mut rule = Self {
            text: text.to_owned(),
            tests: Vec::new(),
            target: Target::None,
            by_chance: false,
            unknown: None,
        };
        let words = words(text);
        let mut words = words.iter().map(String::as_str);
        let mut negated = false;
        while let Some(option) = words.next() {
            if option == "!" {
                negated = true;
                continue;
            }
            if rule.option(option, negated, &mut words).is_none() {
                rule.unknown.get_or_insert_with(|| option.to_owned());
            }
            negated = false;
        }
        rule
    }

    fn option<'a>(
        &mut self,
        option: &str,
        negated: bool,
        words: &mut impl Iterator<Item = &'a str>,
    ) -> Option<()> {
        let test = match option {
            "-s" => {
                let (bits, mask) = net(words.next()?)?;
                Test::Source { bits, mask }
            }
            "-d" => {
                let (bits, mask) = net(words.next()?)?;
                Test::Destination { bits, mask }
            }
            "-i" => {
                let name = words.next()?;
                Test::Interface {
                    name: name.trim_end_matches('+').to_owned(),
                    prefix: name.ends_with('+'),
                }
            }
            "-p" => Test::Protocol(words.next()?.to_owned()),
            "--dport" => {
                let ports = words.next()?;
                let (first, last) = ports.split_once(':').unwrap_or((ports, ports));
                Test::DestinationPort(first.parse().ok()?, last.parse().ok()?)
            }
            "--src-type" => {
                words.next().filter(|kind| *kind == "LOCAL")?;
                Test::SourceLocal
            }
            "--dst-type" => {
                words.next().filter(|kind| *kind == "LOCAL")?;
                Test::DestinationLocal
            }
            "--mark" => {
                let (value, mask) = mark(words.next()?)?;
                Test::Mark { value, mask }
            }
            "--ctstate" => Test::New(words.next()?.split(',').any(|state| state == "NEW")),
            "--rcheck" => Test::Remembered,
            "--probability" => {
                self.by_chance = true;
                words.next()?;
                return Some(());
            }
            // Names, and what a first packet does not feel.
            "-m" | "--comment" | "--mode" | "--name" | "--mask" | "--seconds" | "--reject-with" => {
                words.next()?;
                return Some(());
            }
            "--set" | "--reap" | "--rsource" | "--random-fully" => return Some(()),
            "-j" => {
                self.target = match words.next()? {
                    "RETURN" => Target::Return,
                    "ACCEPT" => Target::Accept,
                    "DROP" => Target::Drop,
                    "REJECT" => Target::Reject,
                    "MASQUERADE" => Target::Masquerade,
                    // Completed by their options.
                    "MARK" | "DNAT" => Target::None,
                    chain => Target::Jump(chain.to_owned()),
                };
                return Some(());
            }
            "-g" => {
                self.target = Target::Goto(words.next()?.to_owned());
                return Some(());
            }
            "--set-xmark" => {
                let (value, mask) = mark(words.next()?)?;
                self.target = Target::Mark { value, mask };
                return Some(());
            }
            "--to-destination" => {
                self.target = Target::Dnat(words.next()?.parse().ok()?);
                return Some(());
            }
            _ => return None,
        };
        self.tests.push((negated, test));
        Some(())
    }

    /// Whether the rule may take the packet.
    pub(super) fn matches(&self, packet: &Packet, destination: SocketAddr, mark: u32) -> bool {
        self.tests.iter().all(|(negated, test)| {
            let holds = match test {
                Test::Source { bits, mask } => number(packet.source.ip()) & mask == bits & mask,
                Test::Destination { bits, mask } => number(destination.ip()) & mask == bits & mask,
                Test::Interface { name, prefix } => match &packet.interface {
                    Some(interface) if *prefix => interface.starts_with(name.as_str()),
                    Some(interface) => interface == name,
                    None => false,
                },
                Test::Protocol(name) => name == packet.protocol.word(),
                Test::DestinationPort(first, last) => {
                    (*first..=*last).contains(&destination.port())
                }
                Test::SourceLocal => packet.source_is_local,
                Test::DestinationLocal => {
                    packet.destination_is_local && destination == packet.destination
                }
                Test::Mark { value, mask } => mark & mask == *value,
                Test::New(new) => *new,
                Test::Remembered => false,
            };
            holds != *negated
        })
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

/// Address and mask; the mask as a length or as an address.
fn net(text: &str) -> Option<(u128, u128)> {
    let (address, mask) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let mask = match mask.parse::<u32>() {
        Ok(length) => {
            let whole = if address.is_ipv4() { 32 } else { 128 };
            let wild = whole - length;
            u128::MAX.checked_shr(128 - whole)? & u128::MAX.checked_shl(wild).unwrap_or(0)
        }
        Err(_) => number(mask.parse().ok()?),
    };
    Some((number(address), mask))
}

fn mark(text: &str) -> Option<(u32, u32)> {
    let hex = |text: &str| u32::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    let (value, mask) = text.split_once('/')?;
    Some((hex(value)?, hex(mask)?))
}

/// Words; what is in quotes is one. Comments have no escapes.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (position, part) in text.split('"').enumerate() {
        if position % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nets_by_length_and_by_mask() {
        assert_eq!(net("10.0.0.0/8"), Some((0x0a00_0000, 0xff00_0000)));
        assert_eq!(net("0.0.0.5/0.0.0.15"), Some((5, 15)));
        assert_eq!(net("::5/::f"), Some((5, 15)));
        assert_eq!(net("::/0"), Some((0, 0)));
        assert_eq!(net("0.0.0.0/0"), Some((0, 0)));
        assert_eq!(net("::1/128"), Some((1, u128::MAX)));
    }

    #[test]
    fn what_is_not_understood_is_said() {
        assert_eq!(
            Rule::parse("-p tcp -m tcp --sport 5 -j DROP")
                .unknown
                .as_deref(),
            Some("--sport")
        );
        assert!(Rule::parse("-p tcp --dport x -j DROP").unknown.is_some());
    }
}
