//! DNS settings out of a resolv.conf(5).

use crate::cni::{Dns, Error, Result};
use std::path::Path;

/// Reads the file; lines of other kinds are passed over.
pub fn read(path: &Path) -> Result<Dns> {
    let text = std::fs::read(path)
        .map_err(|e| Error::io(format!("read resolvConf {}", path.display()), e))?;
    Ok(parse(&String::from_utf8_lossy(&text)))
}

fn parse(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines().map(str::trim) {
        if line.starts_with(['#', ';']) {
            continue;
        }
        let mut words = line.split_whitespace();
        let Some(keyword) = words.next() else {
            continue;
        };
        match keyword {
            "nameserver" => dns.nameservers.extend(words.next().map(str::to_owned)),
            "domain" => {
                if let Some(domain) = words.next() {
                    dns.domain = domain.to_owned();
                }
            }
            "search" => dns.search.extend(words.map(str::to_owned)),
            "options" => dns.options.extend(words.map(str::to_owned)),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keywords_add_up_and_the_last_domain_wins() {
        let dns = parse(
            "# comment\n;other\nnameserver 10.0.0.1 ignored\r\n  nameserver fd00::1\ndomain a\ndomain b\n\
             search one two\nsearch three\noptions ndots:5\nnameserver\nsortlist 1.2.3.4\n",
        );
        assert_eq!(dns.nameservers, ["10.0.0.1", "fd00::1"]);
        assert_eq!(dns.domain, "b");
        assert_eq!(dns.search, ["one", "two", "three"]);
        assert_eq!(dns.options, ["ndots:5"]);
    }

    #[test]
    fn an_absent_file_is_named() {
        let error = read(Path::new("/no/such/resolv.conf")).unwrap_err();
        assert!(
            error
                .msg
                .starts_with("read resolvConf /no/such/resolv.conf: ")
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "\\PC{0,80}") {
            parse(&text);
        }
    }
}
