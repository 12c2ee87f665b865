//! Go's durations (`1h0m0s`, `250ms`, `1.5h`), as kube-proxy's flags and file write them.

use std::time::Duration;

/// Units, the longer spelling first where one begins with another.
const UNITS: [(&str, f64); 8] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3), // U+00B5
    ("μs", 1e3), // U+03BC
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3600e9),
];

/// Go's longest: 2^63 - 1 ns.
const LONGEST: f64 = i64::MAX as f64;

/// Parses a duration that is not negative. The error is a sentence without the value.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const REMEDY: &str = "write numbers with units, such as 30s, 1m30s, 250ms or 0";
    if text.starts_with('-') {
        return Err("a duration here cannot be negative".to_owned());
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(REMEDY.to_owned());
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        let number: f64 = number.parse().map_err(|_| REMEDY.to_owned())?;
        let end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let Some((_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(REMEDY.to_owned());
        };
        total += number * scale;
        rest = after;
    }
    if total > LONGEST {
        return Err("it is longer than 292 years".to_owned());
    }
    Ok(Duration::from_nanos(total.round() as u64))
}

/// As Go prints it: `1h0m0s`, `1.5s`, `250ms`, `0s`.
pub fn show_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let (seconds, below) = (duration.as_secs(), duration.subsec_nanos());
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", nanos as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{}ms", nanos as f64 / 1e6),
        _ => {
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            let mut text = String::new();
            if hours > 0 {
                text += &format!("{hours}h");
            }
            if hours > 0 || minutes > 0 {
                text += &format!("{minutes}m");
            }
            let fraction = format!("{below:09}");
            let fraction = fraction.trim_end_matches('0');
            text += &format!("{}", seconds % 60);
            if !fraction.is_empty() {
                text += &format!(".{fraction}");
            }
            text + "s"
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_as_go_writes_them() {
        for (text, nanos) in [
            ("0", 0),
            ("0s", 0),
            ("30s", 30_000_000_000),
            ("1h0m0s", 3_600_000_000_000),
            ("2h22m", 8_520_000_000_000),
            ("250ms", 250_000_000),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("+1m", 60_000_000_000),
            ("10µs", 10_000),
            ("10us", 10_000),
            ("7ns", 7),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_nanos(nanos)),
                "{text}"
            );
        }
        for text in [
            "", "5", "s", "1 s", "1d", "-1s", "1h2", "..s", "1.2.3s", "9999999h", "ss", "1e3s",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_parses_to_the_same(seconds in 0_u64..1_000_000, millis in 0_u32..1000) {
            let duration = Duration::new(seconds, millis * 1_000_000);
            prop_assert_eq!(parse_duration(&show_duration(duration)), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = parse_duration(&text);
        }
    }
}
