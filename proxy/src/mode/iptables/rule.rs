//! Rules as text, word for word as `iptables-save` of 1.8 prints them, so that what is there can be
//! compared with what is wanted.

use std::{
    fmt::{self, Write as _},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::model::{Family, Protocol};

/// The most that the `comment` match holds (XT_MAX_COMMENT_LEN less the final zero).
const COMMENT_LIMIT: usize = 255;

/// The rules of a chain, one a line, without `-A CHAIN`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rules {
    text: String,
    count: usize,
}

impl Rules {
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn append(&mut self, other: &Self) {
        self.text.push_str(&other.text);
        self.count += other.count;
    }

    /// Begins a rule. Its parts must be given in the order of [`Rule`]'s functions, which is the one
    /// that iptables-save has.
    pub(super) fn rule(&mut self) -> Rule<'_> {
        self.count += 1;
        Rule {
            rules: self,
            protocol: None,
        }
    }

    fn word(&mut self, word: fmt::Arguments<'_>) {
        if !self.text.is_empty() && !self.text.ends_with('\n') {
            self.text.push(' ');
        }
        // Writing to a String cannot fail.
        let _infallible = self.text.write_fmt(word);
    }
}

/// A rule being written; complete when it is dropped.
pub(super) struct Rule<'a> {
    rules: &'a mut Rules,
    protocol: Option<Protocol>,
}

impl Drop for Rule<'_> {
    fn drop(&mut self) {
        self.rules.text.push('\n');
    }
}

impl Rule<'_> {
    fn word(self, word: fmt::Arguments<'_>) -> Self {
        self.rules.word(word);
        self
    }

    /// Comes from this network; from all of them needs no words, and iptables-save has none.
    pub(super) fn source(self, net: impl Into<IpNet>) -> Self {
        match net.into() {
            net if net.prefix_len() == 0 => self,
            net => self.word(format_args!("-s {net}")),
        }
    }

    pub(super) fn not_source(self, net: impl Into<IpNet>) -> Self {
        self.word(format_args!("! -s {}", net.into()))
    }

    pub(super) fn destination(self, net: impl Into<IpNet>) -> Self {
        self.word(format_args!("-d {}", net.into()))
    }

    pub(super) fn not_destination(self, net: impl Into<IpNet>) -> Self {
        self.word(format_args!("! -d {}", net.into()))
    }

    /// The destination has these low eight bits, of which those of `mask` count.
    pub(super) fn destination_bits(self, family: Family, bits: u8, mask: u8) -> Self {
        match family {
            Family::V4 => self.word(format_args!("-d 0.0.0.{bits}/0.0.0.{mask}")),
            Family::V6 => self.word(format_args!(
                "-d {}/{}",
                IpAddr::from(u128::from(bits).to_be_bytes()),
                IpAddr::from(u128::from(mask).to_be_bytes())
            )),
        }
    }

    /// Came in by this interface; a final `+` stands for any rest of the name.
    pub(super) fn interface(self, name: &str) -> Self {
        self.word(format_args!("-i {name}"))
    }

    pub(super) fn not_interface(self, name: &str) -> Self {
        self.word(format_args!("! -i {name}"))
    }

    pub(super) fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = Some(protocol);
        self.word(format_args!("-p {protocol}"))
    }

    /// A comment; `None` leaves it out.
    pub(super) fn comment(self, text: Option<fmt::Arguments<'_>>) -> Self {
        match text {
            Some(text) => {
                let text = harmless(&text.to_string());
                self.word(format_args!("-m comment --comment \"{text}\""))
            }
            None => self,
        }
    }

    /// The destination is an address of this node.
    pub(super) fn destination_local(self) -> Self {
        self.word(format_args!("-m addrtype --dst-type LOCAL"))
    }

    /// The source is an address of this node.
    pub(super) fn source_local(self) -> Self {
        self.word(format_args!("-m addrtype --src-type LOCAL"))
    }

    /// Any other match.
    pub(super) fn matching(self, text: fmt::Arguments<'_>) -> Self {
        self.word(text)
    }

    /// The destination port, or only the protocol's own match if there is none.
    pub(super) fn port(self, port: Option<u16>) -> Self {
        let Some(protocol) = self.protocol else {
            return self;
        };
        let rule = self.word(format_args!("-m {protocol}"));
        match port {
            Some(port) => rule.word(format_args!("--dport {port}")),
            None => rule,
        }
    }

    /// The destination port is in this range.
    pub(super) fn ports(self, first: u16, last: u16) -> Self {
        let Some(protocol) = self.protocol else {
            return self;
        };
        self.word(format_args!("-m {protocol} --dport {first}:{last}"))
    }

    /// Jumps to a chain or target, with the target's options.
    pub(super) fn jump(self, target: impl fmt::Display) {
        drop(self.word(format_args!("-j {target}")));
    }

    /// Goes to a chain, which returns to where the present one was jumped from.
    pub(super) fn goto(self, chain: impl fmt::Display) {
        drop(self.word(format_args!("-g {chain}")));
    }
}

/// Object names come from outside: nothing in a comment may end it, and it must fit.
fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '"' | '\\' | '\'' | '`' => '?',
            ' '..='~' => c,
            _ => '?',
        })
        .take(COMMENT_LIMIT)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_from_outside_cannot_leave_its_comment() {
        let mut rules = Rules::default();
        let name = format!("a\" -j ACCEPT\n-A INPUT é{}", "x".repeat(300));
        rules
            .rule()
            .comment(Some(format_args!("{name}")))
            .jump("DROP");
        let text = rules.text();
        assert_eq!(text.lines().count(), 1);
        assert_eq!(text.matches('"').count(), 2);
        assert!(text.is_ascii() && text.len() < 300, "{text}");
    }

    #[test]
    fn low_bits_of_both_families() {
        let mut rules = Rules::default();
        let bits = |rules: &mut Rules, family| {
            rules
                .rule()
                .destination_bits(family, 0xa5, 0xf0)
                .goto("KUBE-SERVICES-A5");
        };
        bits(&mut rules, Family::V4);
        bits(&mut rules, Family::V6);
        assert_eq!(
            rules.text(),
            "-d 0.0.0.165/0.0.0.240 -g KUBE-SERVICES-A5\n-d ::a5/::f0 -g KUBE-SERVICES-A5\n"
        );
    }
}
