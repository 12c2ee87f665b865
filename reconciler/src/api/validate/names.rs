//! What names, keys and numbers must look like. Each function tells what is wrong, in the words that clients know;
//! nothing is wrong when the list is empty.

use std::net::IpAddr;

/// A label of DNS (RFC 1123).
const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";

/// Lower case letters, digits and `-`, at most 63.
pub fn label(text: &str) -> Vec<String> {
    let mut wrong = limit(text, 63);
    if is_label(text) {
        return wrong;
    }
    wrong.push(if is_subdomain(text) {
        "must not contain dots".to_owned()
    } else {
        format!(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{LABEL}')"
        )
    });
    wrong
}

/// Labels joined by dots, at most 253.
pub fn subdomain(text: &str) -> Vec<String> {
    let mut wrong = limit(text, 253);
    if !is_subdomain(text) {
        wrong.push(format!(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{LABEL}(\\.{LABEL})*')"
        ));
    }
    wrong
}

/// `*.example.com`
pub fn wildcard(text: &str) -> Vec<String> {
    let mut wrong = limit(text, 253);
    if !text.strip_prefix("*.").is_some_and(is_subdomain) {
        wrong.push(format!(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.{LABEL}(\\.{LABEL})*')"
        ));
    }
    wrong
}

/// The key of a label: a name, and before it perhaps a domain and `/`.
pub fn qualified(text: &str) -> Vec<String> {
    const FORM: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
    const RULE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is";
    let mut wrong = Vec::new();
    let name = match text.split_once('/') {
        None => text,
        Some((_, name)) if name.contains('/') => {
            wrong.push(format!(
                "a qualified name {RULE} '{FORM}') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            ));
            return wrong;
        }
        Some((prefix, name)) => {
            if prefix.is_empty() {
                wrong.push("prefix part must be non-empty".to_owned());
            } else {
                let parts = subdomain(prefix);
                wrong.extend(parts.into_iter().map(|part| format!("prefix part {part}")));
            }
            name
        }
    };
    if name.is_empty() {
        wrong.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        wrong.push("name part must be no more than 63 characters".to_owned());
    }
    if !is_word(name) {
        wrong.push(format!("name part {RULE} '{FORM}')"));
    }
    wrong
}

/// The value of a label.
pub fn label_value(text: &str) -> Vec<String> {
    let mut wrong = limit(text, 63);
    if !text.is_empty() && !is_word(text) {
        wrong.push(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
                .to_owned(),
        );
    }
    wrong
}

/// The key of an item of a ConfigMap or Secret.
pub fn config_key(text: &str) -> Vec<String> {
    let mut wrong = limit(text, 253);
    let fine = |c: u8| c.is_ascii_alphanumeric() || b"-._".contains(&c);
    if text.is_empty() || !text.bytes().all(fine) {
        wrong.push(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
                .to_owned(),
        );
    }
    if let "." | ".." = text {
        wrong.push(format!("must not be '{text}'"));
    } else if text.starts_with("..") {
        wrong.push("must not start with '..'".to_owned());
    }
    wrong
}

/// The name of an environment variable.
pub fn variable(text: &str) -> Vec<String> {
    let fine = |c: u8| (b' '..=b'~').contains(&c) && c != b'=';
    if text.bytes().all(fine) {
        return Vec::new();
    }
    vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned()]
}

/// The name of a port of a container.
pub fn port_name(text: &str) -> Vec<String> {
    let mut wrong = limit(text, 15);
    let mut rule = |fine: bool, what: &str| {
        if !fine {
            wrong.push(what.to_owned());
        }
    };
    let fine = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    rule(
        !text.is_empty() && text.bytes().all(fine),
        "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
    );
    rule(
        text.bytes().any(|c| c.is_ascii_lowercase()),
        "must contain at least one letter (a-z)",
    );
    rule(!text.contains("--"), "must not contain consecutive hyphens");
    rule(
        !text.starts_with('-') && !text.ends_with('-'),
        "must not begin or end with a hyphen",
    );
    wrong
}

/// The name of a header of HTTP.
pub fn header(text: &str) -> Vec<String> {
    if !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') {
        return Vec::new();
    }
    vec!["a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')".to_owned()]
}

/// `25%`
pub fn percent(text: &str) -> Vec<String> {
    let digits = text.strip_suffix('%').unwrap_or_default();
    if !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit()) {
        return Vec::new();
    }
    vec!["a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')".to_owned()]
}

/// An address of either family.
pub fn address(text: &str) -> Vec<String> {
    if text.parse::<IpAddr>().is_ok() {
        return Vec::new();
    }
    vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()]
}

/// A network of either family.
pub fn network(text: &str) -> Vec<String> {
    if text.parse::<ipnet::IpNet>().is_ok() {
        return Vec::new();
    }
    vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned()]
}

/// `must be between 1 and 65535, inclusive`
pub fn between(lowest: i64, highest: i64) -> String {
    format!("must be between {lowest} and {highest}, inclusive")
}

fn limit(text: &str, most: usize) -> Vec<String> {
    if text.len() > most {
        vec![format!("must be no more than {most} characters")]
    } else {
        Vec::new()
    }
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let end = |c: Option<&u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let middle = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == b'-';
    end(bytes.first()) && end(bytes.last()) && bytes.iter().all(middle)
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

/// Letters and digits, and between them `-`, `_` and `.`.
fn is_word(text: &str) -> bool {
    let bytes = text.as_bytes();
    let end = |c: Option<&u8>| c.is_some_and(u8::is_ascii_alphanumeric);
    let middle = |c: &u8| c.is_ascii_alphanumeric() || b"-_.".contains(c);
    end(bytes.first()) && end(bytes.last()) && bytes.iter().all(middle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        let long = "a".repeat(64);
        type Rule = fn(&str) -> Vec<String>;
        let cases: &[(Rule, &[&str], &[&str])] = &[
            (
                label,
                &["a", "a-1", "0a"],
                &["", "A", "-a", "a-", "a.b", "ä", &long],
            ),
            (
                subdomain,
                &["a", "a.b-c.0"],
                &["", "a..b", ".a", "a.", "a_b", "A"],
            ),
            (wildcard, &["*.a.b"], &["*", "*.*.b", "a.b", "*."]),
            (
                qualified,
                &["a", "A_b.c", "x.y/Z"],
                &["", "/a", "a/", "a/b/c", "A/b", "-a", &long],
            ),
            (label_value, &["", "a.B_c-1"], &["-", "a b", &long]),
            (
                config_key,
                &["a.b", "..a_b".get(1..).unwrap(), "K_1"],
                &["", ".", "..", "..a", "a/b"],
            ),
            (variable, &["A", "a b", "-"], &["a=b", "ä", "\n"]),
            (
                port_name,
                &["http", "a-1"],
                &["", "80", "a--b", "-a", "a-", "A", "abcdefghijklmnop"],
            ),
            (header, &["X-A"], &["", "a b", "ä"]),
            (percent, &["0%", "25%"], &["", "%", "25", "-1%"]),
            (address, &["10.0.0.1", "::1"], &["", "10.0.0", "10.0.0.1/8"]),
            (
                network,
                &["10.0.0.0/8", "::/0"],
                &["", "10.0.0.0", "10.0.0.0/33"],
            ),
        ];
        for (rule, right, wrong) in cases {
            for text in *right {
                assert_eq!(rule(text), Vec::<String>::new(), "{text}");
            }
            for text in *wrong {
                assert!(!rule(text).is_empty(), "{text}");
            }
        }
    }
}
