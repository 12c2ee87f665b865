//! Chain names and comments, the same as the reference plugins make, so that an attachment made by
//! one implementation is found and removed by the other.

use sha2::{Digest as _, Sha512};

/// Length of every iptables chain name of the reference plugins (the kernel's limit is 28).
const CHAIN_LENGTH: usize = 28;

/// The first `length` hex digits of the SHA-512 of `text`.
pub fn hash(text: &str, length: usize) -> String {
    use std::fmt::Write as _;
    let mut hex = String::with_capacity(128);
    for byte in Sha512::digest(text.as_bytes()) {
        let _ = write!(hex, "{byte:02x}");
    }
    hex.truncate(length);
    hex
}

/// The iptables chain of one attachment: `CNI-`, `prefix`, and a hash of network and container.
pub fn chain(prefix: &str, network: &str, container: &str) -> String {
    let head = format!("CNI-{prefix}");
    let digits = hash(&format!("{network}{container}"), CHAIN_LENGTH - head.len());
    head + &digits
}

/// The comment of an attachment's iptables rules: `name: "net" id: "container"`.
pub fn comment(network: &str, container: &str) -> String {
    format!("{}{}\"", comment_head(network), escape(container))
}

/// The container named by a comment that [`comment`] made for `network`.
pub fn container_of<'a>(comment: &'a str, network: &str) -> Option<&'a str> {
    comment
        .strip_prefix(comment_head(network).as_str())?
        .strip_suffix('"')
}

fn comment_head(network: &str) -> String {
    format!("name: \"{}\" id: \"", escape(network))
}

fn escape(text: &str) -> String {
    text.replace('\\', r"\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_the_reference() {
        // The integration tests compare them with those that the reference itself makes.
        let (network, container) = ("test", "abc");
        assert_eq!(chain("", network, container).len(), CHAIN_LENGTH);
        assert_eq!(chain("DN-", network, container).len(), CHAIN_LENGTH);
        assert!(chain("DN-", network, container).starts_with("CNI-DN-"));
        assert_eq!(
            hash("test", 16),
            "ee26b0dd4af7e749", // sha512sum of "test"
        );
        assert_eq!(chain("", "te", "st"), "CNI-ee26b0dd4af7e749aa1a8ee3");
        assert_eq!(chain("DN-", "te", "st"), "CNI-DN-ee26b0dd4af7e749aa1a8");
    }

    #[test]
    fn a_comment_gives_back_its_container() {
        let text = comment("pods", "0123-abc");
        assert_eq!(text, r#"name: "pods" id: "0123-abc""#);
        assert_eq!(container_of(&text, "pods"), Some("0123-abc"));
        assert_eq!(container_of(&text, "pod"), None);
    }
}
