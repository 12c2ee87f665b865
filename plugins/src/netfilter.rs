//! What our iptables and nftables rules share: names and comments as the reference plugins write
//! them, and readers for what `iptables-save` and `nft -j list table` print.

pub mod listed;
pub mod names;
pub mod saved;

use std::fmt::Write as _;

use kernel::iptables::Iptables;

use crate::cni::{Error, Result};
use saved::Saved;

/// Appends words to an `iptables-restore` line, quoted where its parser needs that.
pub fn push_words<S: AsRef<str>>(line: &mut String, words: &[S]) {
    for word in words {
        let word = word.as_ref();
        line.push(' ');
        let plain = !word.is_empty()
            && word
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_./:,!+=%[]@".contains(&b));
        if plain {
            line.push_str(word);
        } else {
            let escaped = word.replace('\\', r"\\").replace('"', "\\\"");
            let _ = write!(line, "\"{escaped}\"");
        }
    }
}

/// A text for `iptables-restore` that changes the table `nat`, from its lines.
pub fn nat_transaction(lines: &[String]) -> String {
    let mut text = String::from("*nat\n");
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
    text.push_str("COMMIT\n");
    text
}

/// One `iptables-restore` line: the command with its chain, then the words of the rule.
pub fn line<S: AsRef<str>>(command: &str, words: &[S]) -> String {
    let mut line = command.to_owned();
    push_words(&mut line, words);
    line
}

/// Has the kernel this address family at all? Without IPv6 there is no rule of ours for it.
pub fn has_family(ipv6: bool) -> bool {
    !ipv6 || std::path::Path::new("/proc/net/if_inet6").exists()
}

/// What `iptables-save` says where the kernel lacks the table, the family, or nf_tables altogether.
const NOT_IN_KERNEL: [&str; 5] = [
    "do you need to insmod?",
    "Table does not exist",
    "Address family not supported by protocol",
    "Failed to initialize nft: Protocol not supported",
    "Could not fetch rule set generation id: Invalid argument",
];

/// Applies the changes that `plan` finds in the table `nat`. A host without iptables or without that
/// table has nothing of ours.
pub fn change_nat(ipv6: bool, plan: impl FnOnce(&Saved) -> Vec<String>) -> Result<()> {
    let Ok(tables) = Iptables::find(ipv6) else {
        return Ok(());
    };
    let saved = match tables.save("nat") {
        Ok(text) => Saved::parse(&text),
        Err(_) if !has_family(ipv6) => return Ok(()),
        Err(error) => {
            let message = error.to_string();
            if NOT_IN_KERNEL.iter().any(|text| message.contains(text)) {
                return Ok(());
            }
            return Err(Error::generic(message));
        }
    };
    let lines = plan(&saved);
    if lines.is_empty() {
        return Ok(());
    }
    tables
        .restore(&nat_transaction(&lines))
        .map_err(|error| Error::generic(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_only_what_needs_it() {
        assert_eq!(
            line(
                "-A C",
                &["-d", "10.0.0.0/8", "--comment", "name: \"a\\b\"", ""]
            ),
            r#"-A C -d 10.0.0.0/8 --comment "name: \"a\\b\"" """#
        );
    }
}
