//! Amounts of resources (`resource.Quantity`): `100m`, `1.5Gi`, `2e3`; parsed, compared, and printed as Kubernetes
//! prints them.
//!
//! Held in units of 10⁻⁹, to which smaller fractions are rounded up. Amounts with a binary suffix end at 2⁶³-1, as in
//! the reference; decimal ones at 10²⁸, where the reference goes on.

use std::cmp::Ordering;
use std::fmt;

use serde_json::Value;

const NANO: u128 = 1_000_000_000;
const BINARY_MAX: u128 = i64::MAX as u128;
const DECIMAL_MAX: u128 = 10_u128.pow(28);
const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// How it was written, which is how it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// `1k`
    Decimal,
    /// `1Ki`
    Binary,
    /// `1e3`
    Exponent,
}

/// An amount.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nano: u128,
    negative: bool,
    format: Format,
}

impl Quantity {
    /// Reads an amount; `None` if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, rest) = match text.as_bytes().first()? {
            b'-' => (true, text.get(1..)?),
            b'+' => (false, text.get(1..)?),
            _ => (false, text),
        };
        let (whole, rest) = digits(rest);
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => digits(rest),
            None => ("", rest),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let (format, nano) = if let Some(power) = BINARY.iter().position(|known| *known == suffix) {
            (Format::Binary, binary(whole, fraction, power + 1))
        } else if let Some(place) = DECIMAL.iter().position(|known| *known == suffix) {
            let exponent = i64::try_from(place).ok()? * 3 - 9;
            (Format::Decimal, decimal(whole, fraction, exponent))
        } else {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            (Format::Exponent, decimal(whole, fraction, exponent.into()))
        };
        let small = format == Format::Binary && nano < NANO;
        Some(Self {
            nano,
            negative: negative && nano > 0,
            format: if small { Format::Decimal } else { format },
        })
    }

    /// Reads a JSON string or number.
    pub fn of(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Self::parse(text.trim()),
            Value::Number(number) => Self::parse(&number.to_string()),
            _ => None,
        }
    }

    /// Below nothing.
    pub fn is_negative(&self) -> bool {
        self.negative
    }

    /// Nothing.
    pub fn is_zero(&self) -> bool {
        self.nano == 0
    }

    /// Without a fraction.
    pub fn is_whole(&self) -> bool {
        self.nano.is_multiple_of(NANO)
    }

    /// The next thousandth away from zero: the finest that lists of resources hold.
    pub fn to_milli(mut self) -> Self {
        self.nano = self.nano.next_multiple_of(1_000_000);
        self
    }

    fn decimal_text(&self, format: Format, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut mantissa, mut place) = (self.nano, 0);
        let last = DECIMAL.len() - 1;
        while mantissa.is_multiple_of(1000) && (place < last || format == Format::Exponent) {
            mantissa /= 1000;
            place += 1;
        }
        match DECIMAL.get(place) {
            Some(suffix) if format == Format::Decimal => write!(out, "{mantissa}{suffix}"),
            _ if place == 3 => write!(out, "{mantissa}"),
            _ => write!(out, "{mantissa}e{}", place as i64 * 3 - 9),
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.negative, other.negative) {
            (false, false) => self.nano.cmp(&other.nano),
            (true, true) => other.nano.cmp(&self.nano),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nano == 0 {
            return out.write_str("0");
        }
        if self.negative {
            out.write_str("-")?;
        }
        if self.format != Format::Binary {
            return self.decimal_text(self.format, out);
        }
        let mut whole = self.nano / NANO;
        if !self.is_whole() || whole < 1024 {
            return self.decimal_text(Format::Decimal, out);
        }
        let mut power = 0;
        while whole.is_multiple_of(1024) && power < BINARY.len() {
            whole /= 1024;
            power += 1;
        }
        let suffix = power.checked_sub(1).and_then(|index| BINARY.get(index));
        write!(out, "{whole}{}", suffix.unwrap_or(&""))
    }
}

/// How Kubernetes prints an amount again: `0.5` is `500m`, `1024Mi` is `1Gi`. `None` if it is no amount.
pub fn canonical(text: &str) -> Option<String> {
    Quantity::parse(text).map(|quantity| quantity.to_string())
}

/// The digits that a text starts with, and the rest.
fn digits(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

/// `whole.fraction` · 10^exponent in units of 10⁻⁹.
fn decimal(whole: &str, fraction: &str, exponent: i64) -> u128 {
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    let mut all = whole.bytes().chain(fraction.bytes()).peekable();
    // How many digits there are before the point once the unit is 10⁻⁹.
    let mut places = i64::try_from(whole.len())
        .unwrap_or(i64::MAX)
        .saturating_add(exponent)
        .saturating_add(9);
    if whole.is_empty() {
        while all.next_if_eq(&b'0').is_some() {
            places -= 1;
        }
    }
    if all.peek().is_none() {
        return 0;
    }
    let max = DECIMAL_MAX * NANO;
    if places > 37 {
        return max;
    }
    let mut nano = 0;
    for _ in 0..places {
        nano = nano * 10 + u128::from(all.next().unwrap_or(b'0') - b'0');
    }
    // What is left is a fraction of the unit; with places below zero nothing was taken.
    let rest = all.any(|digit| digit != b'0');
    (nano + u128::from(rest)).min(max)
}

/// `whole.fraction` · 1024^power in units of 10⁻⁹.
fn binary(whole: &str, fraction: &str, power: usize) -> u128 {
    let max = BINARY_MAX * NANO;
    let whole = whole.trim_start_matches('0');
    let factor = (0..power).fold(1_u128, |factor, _| factor * 1024);
    let whole = match whole.parse::<u64>() {
        Ok(whole) => u128::from(whole) * factor,
        Err(_) if whole.is_empty() => 0,
        Err(_) => return max,
    };
    if whole > BINARY_MAX {
        return max;
    }
    let fraction = fraction.trim_end_matches('0');
    // 18 digits times 2⁶⁰ fit; what is behind them only rounds up.
    let (kept, rest) = fraction.split_at(fraction.len().min(18));
    let kept_value: u128 = kept.parse().unwrap_or(0);
    let scaled = kept_value * factor + u128::from(!rest.is_empty());
    let places = u32::try_from(kept.len()).unwrap_or(18);
    let part = match places.checked_sub(9) {
        Some(over) => scaled.div_ceil(10_u128.pow(over)),
        None => scaled * 10_u128.pow(9 - places),
    };
    (whole * NANO + part).min(max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn amounts_are_printed_as_the_reference_prints_them() {
        for (written, printed) in [
            ("0", "0"),
            ("0Ki", "0"),
            ("-0", "0"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("1.", "1"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("100000", "100k"),
            ("1.5G", "1500M"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("1Ki", "1Ki"),
            ("0.5Ki", "512"),
            ("0.5Mi", "512Ki"),
            ("1000Ki", "1000Ki"),
            ("1.0001Ki", "1024102400u"),
            ("2048", "2048"),
            ("1e3", "1e3"),
            ("12E-1", "1200e-3"),
            ("1e0", "1"),
            ("1E", "1E"),
            ("10E", "10E"),
            ("1000E", "1000E"),
            ("8Ei", "9223372036854775807"),
            ("1n", "1n"),
            ("0.1n", "1n"),
            ("-0.1n", "-1n"),
            ("1e-999", "1e-9"),
            ("1e999", "10e27"),
            ("+3", "3"),
            ("-1.5Gi", "-1536Mi"),
            ("0.000000000000000001Ei", "1152921505n"),
        ] {
            assert_eq!(canonical(written).as_deref(), Some(printed), "{written}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for wrong in [
            "",
            "-",
            ".",
            "1i",
            "1mi",
            "1 ",
            " 1",
            "1.1.M",
            "1+1",
            "1e",
            "1e+",
            "Ki",
            "-e3",
            "ü",
            "1ü",
            "1e99999999999",
            "1K",
            "0x1",
        ] {
            assert_eq!(canonical(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn amounts_are_compared_by_value() {
        let parse = |text| Quantity::parse(text).unwrap();
        assert_eq!(parse("1"), parse("1000m"));
        assert!(parse("1Gi") > parse("1G"));
        assert!(parse("-2") < parse("-1"));
        assert!(parse("-1") < parse("0"));
        assert_eq!(parse("1u").to_milli().to_string(), "1m");
        assert_eq!(Quantity::of(&serde_json::json!(0.5)), Some(parse("500m")));
        assert_eq!(Quantity::of(&serde_json::json!([])), None);
    }

    proptest! {
        #[test]
        fn printing_is_a_fixed_point(text in "[+-]?[0-9]{0,24}(\\.[0-9]{0,24})?(n|u|m|k|M|G|T|P|E|[KMGTPE]i|[eE]-?[0-9]{1,3})?") {
            if let Some(quantity) = Quantity::parse(&text) {
                let printed = quantity.to_string();
                let again = Quantity::parse(&printed).unwrap();
                prop_assert_eq!(quantity, again);
                prop_assert_eq!(again.to_string(), printed);
            }
        }

        #[test]
        fn any_text_is_taken(text in ".*") {
            let _ = canonical(&text);
        }
    }
}
