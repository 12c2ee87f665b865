//! Times as the API writes them: UTC, to the second or to the microsecond.

use jiff::Timestamp;

/// A time by its seconds and nanoseconds since 1970. None outside of the years 0 to 9999.
pub fn of(seconds: i64, nanos: i32, micro: bool) -> Option<String> {
    Timestamp::new(seconds, nanos)
        .ok()
        .and_then(|time| write(time, micro))
}

/// Any RFC 3339 time as the API writes it.
pub fn canonical(text: &str, micro: bool) -> Option<String> {
    // `jiff` reads more forms than RFC 3339 has.
    let well_formed = text.as_bytes().get(10) == Some(&b'T') && text.len() >= 20;
    well_formed
        .then(|| text.parse().ok())
        .flatten()
        .and_then(|time| write(time, micro))
}

/// Go's words for a text that is no time.
pub fn refusal(text: &str, micro: bool) -> String {
    let layout = if micro {
        "2006-01-02T15:04:05.000000Z07:00"
    } else {
        "2006-01-02T15:04:05Z07:00"
    };
    format!("parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\"")
}

fn write(time: Timestamp, micro: bool) -> Option<String> {
    let format = if micro {
        "%Y-%m-%dT%H:%M:%S%.6fZ"
    } else {
        "%Y-%m-%dT%H:%M:%SZ"
    };
    let text = time.strftime(format).to_string();
    // Years before 0 have a sign.
    text.as_bytes()
        .first()
        .is_some_and(u8::is_ascii_digit)
        .then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_to_the_second_or_microsecond() {
        assert_eq!(of(1, 0, false).unwrap(), "1970-01-01T00:00:01Z");
        assert_eq!(
            of(1_700_000_000, 123_456_789, true).unwrap(),
            "2023-11-14T22:13:20.123456Z"
        );
        assert_eq!(
            canonical("2026-11-21T08:00:00.5+02:00", false).unwrap(),
            "2026-11-21T06:00:00Z"
        );
        assert_eq!(
            canonical("2026-11-21T08:00:00Z", true).unwrap(),
            "2026-11-21T08:00:00.000000Z"
        );
        for text in ["", "2026-11-21", "yesterday", "2026-11-21 08:00:00Z"] {
            assert_eq!(canonical(text, false), None, "{text}");
        }
        for seconds in [i64::MIN, i64::MAX, -100_000_000_000] {
            assert_eq!(of(seconds, 0, false), None, "{seconds}");
        }
    }
}
