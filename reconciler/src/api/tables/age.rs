//! Durations as people read them: two units at most, coarser as they grow.
//!
//! The rule (measured on kube-apiserver 1.36): below 2 minutes seconds, below 10 minutes minutes and seconds, below 3
//! hours minutes, below 8 hours hours and minutes, below 2 days hours, below 8 days days and hours, below 2 years days,
//! below 8 years years and days, then years. A second unit of 0 is left out.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// `52s`, `2m12s`, `36m`, `3h5m`, `47h`, `7d23h`, `400d`, `2y35d`, `9y`; what has not begun is `0s`, and more than a
/// second off `<invalid>`.
pub fn human(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    let one = |unit, letter| format!("{}{letter}", seconds / unit);
    let two = |unit, letter, lower, lower_letter| match seconds % unit / lower {
        0 => one(unit, letter),
        rest => format!("{}{letter}{rest}{lower_letter}", seconds / unit),
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        _ if seconds < 2 * MINUTE => one(1, 's'),
        _ if seconds < 10 * MINUTE => two(MINUTE, 'm', 1, 's'),
        _ if seconds < 3 * HOUR => one(MINUTE, 'm'),
        _ if seconds < 8 * HOUR => two(HOUR, 'h', MINUTE, 'm'),
        _ if seconds < 2 * DAY => one(HOUR, 'h'),
        _ if seconds < 8 * DAY => two(DAY, 'd', HOUR, 'h'),
        _ if seconds < 2 * YEAR => one(DAY, 'd'),
        _ if seconds < 8 * YEAR => two(YEAR, 'y', DAY, 'd'),
        _ => one(YEAR, 'y'),
    }
}

/// The time in a field (RFC 3339).
pub fn time(field: Option<&Value>) -> Option<Timestamp> {
    field?.as_str()?.parse().ok()
}

/// How long ago the time in a field is; `<unknown>` if there is none.
pub fn since(field: Option<&Value>, now: Timestamp) -> String {
    time(field).map_or_else(
        || "<unknown>".to_owned(),
        |then| human(now.duration_since(then)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units_change_where_the_reference_changes_them() {
        for (seconds, text) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (121, "2m1s"),
            (599, "9m59s"),
            (600, "10m"),
            (3 * HOUR - 1, "179m"),
            (3 * HOUR, "3h"),
            (8 * HOUR - 1, "7h59m"),
            (8 * HOUR, "8h"),
            (2 * DAY - 1, "47h"),
            (2 * DAY, "2d"),
            (8 * DAY - 1, "7d23h"),
            (8 * DAY, "8d"),
            (2 * YEAR - 1, "729d"),
            (2 * YEAR, "2y"),
            (8 * YEAR - 1, "7y364d"),
            (8 * YEAR, "8y"),
        ] {
            assert_eq!(human(SignedDuration::from_secs(seconds)), text);
        }
    }

    /// Seconds that a text says, and the size of its smallest unit.
    fn read(text: &str) -> (i64, i64) {
        let (mut total, mut number, mut smallest) = (0, 0, 0);
        for letter in text.chars() {
            if let Some(digit) = letter.to_digit(10) {
                number = number * 10 + i64::from(digit);
                continue;
            }
            smallest = match letter {
                's' => 1,
                'm' => MINUTE,
                'h' => HOUR,
                'd' => DAY,
                'y' => YEAR,
                other => panic!("{other} is no unit"),
            };
            total += number * smallest;
            number = 0;
        }
        (total, smallest)
    }

    proptest! {
        /// What is printed is the duration, cut (not rounded) to a few percent of it.
        #[test]
        fn a_text_is_near_below_the_duration(seconds in prop_oneof![0..20_000_i64, 0..20 * YEAR]) {
            let text = human(SignedDuration::from_secs(seconds));
            let (said, _) = read(&text);
            prop_assert!(said <= seconds);
            prop_assert!(text.len() <= 7, "{}", text);
            // The coarsest steps: a day of 2 days or more but 47h of 48h, a year of 8.
            prop_assert!((seconds - said) * 8 <= seconds, "{} for {}", text, seconds);
        }

        #[test]
        fn later_is_never_less(seconds in 0..20 * YEAR, more in 0..3 * DAY) {
            let earlier = read(&human(SignedDuration::from_secs(seconds))).0;
            let later = read(&human(SignedDuration::from_secs(seconds + more))).0;
            prop_assert!(earlier <= later);
        }

        #[test]
        fn any_two_times_have_a_distance(a in any::<i64>(), b in any::<i64>()) {
            let at = |n: i64| Timestamp::new(n % 253_402_207_200, 0).unwrap_or(Timestamp::MIN);
            human(at(a).duration_since(at(b)));
        }
    }
}
