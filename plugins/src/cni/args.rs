//! CNI_ARGS: `K=V;K=V`, where a key the plugin does not know is an error unless IgnoreUnknown says
//! otherwise.

use crate::cni::{Error, Result, code};

/// Reads CNI_ARGS for a plugin that knows the keys `known` (their case matters, as in Go).
///
/// Gives the last value of each known key, in the order of `known`. Kubernetes runtimes send
/// `IgnoreUnknown=1;K8S_POD_NAME=…`, so unknown keys are an error only without it.
pub fn parse<'a, const N: usize>(args: &'a str, known: [&str; N]) -> Result<[Option<&'a str>; N]> {
    let mut values = [None; N];
    let mut unknown = Vec::new();
    let mut ignore_unknown = false;
    if args.is_empty() {
        return Ok(values);
    }
    for pair in args.split(';') {
        let Some((key, value)) = pair
            .split_once('=')
            .filter(|(_, value)| !value.contains('='))
        else {
            return Err(invalid(format!("ARGS: invalid pair {pair:?}")));
        };
        if key == "IgnoreUnknown" {
            ignore_unknown = parse_bool(value)
                .ok_or_else(|| invalid(format!("ARGS: error parsing value of pair {pair:?}")))?;
        } else if let Some(at) = known.iter().position(|name| *name == key) {
            values[at] = Some(value);
        } else {
            unknown.push(pair);
        }
    }
    if !unknown.is_empty() && !ignore_unknown {
        return Err(invalid(format!("ARGS: unknown args {unknown:?}")));
    }
    Ok(values)
}

fn parse_bool(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

fn invalid(msg: String) -> Error {
    Error::new(code::INVALID_ENVIRONMENT, msg)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_keys_are_found_and_the_last_wins() {
        assert_eq!(
            parse(
                "IP=10.0.0.1;GATEWAY=10.0.0.9;IP=10.0.0.2",
                ["IP", "GATEWAY", "MAC"]
            )
            .unwrap(),
            [Some("10.0.0.2"), Some("10.0.0.9"), None]
        );
        assert_eq!(parse("", ["IP"]).unwrap(), [None]);
    }

    #[test]
    fn unknown_keys_need_ignore_unknown_wherever_it_stands() {
        assert!(
            parse("K8S_POD_NAME=a", ["IP"])
                .unwrap_err()
                .msg
                .contains("K8S_POD_NAME=a")
        );
        assert!(parse("K8S_POD_NAME=a;IgnoreUnknown=1", ["IP"]).is_ok());
        assert!(parse("IgnoreUnknown=TRUE;ip=1", ["IP"]).is_ok());
        assert!(parse("IgnoreUnknown=0;X=1", ["IP"]).is_err());
        assert!(parse("IgnoreUnknown=maybe", ["IP"]).is_err());
    }

    #[test]
    fn malformed_pairs_are_refused() {
        for text in ["IP", "IP=1=2", "IP=1;", ";", "="] {
            let refused = parse(text, ["IP"]);
            assert_eq!(refused.unwrap_err().code, 4, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_value_comes_back_as_it_was_written(value in "[^;=]{0,30}", other in "[A-Z]{3,9}") {
            let text = format!("IgnoreUnknown=true;{other}X=1;IP={value}");
            prop_assert_eq!(parse(&text, ["IP"]).unwrap(), [Some(value.as_str())]);
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,60}") {
            let _ = parse(&text, ["IP", "GATEWAY"]);
        }
    }
}
