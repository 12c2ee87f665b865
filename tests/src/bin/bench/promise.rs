//! A line of SPECIFICATION.md: what was measured, and the bound that it is held against.

use serde_json::{Value, json};

/// Which side of the limit is the good one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// Lower is better.
    AtMost(f64),
    /// Higher is better.
    AtLeast(f64),
}

/// A promise and what became of it.
#[derive(Clone, Debug)]
pub struct Promise {
    pub text: String,
    /// `None` when it could not be measured; `note` says why.
    pub measured: Option<f64>,
    pub bound: Bound,
    pub unit: &'static str,
    /// The spread, or why there is no value; may be empty.
    pub note: String,
}

impl Promise {
    /// Whether it is kept; what could not be measured is not.
    pub fn holds(&self) -> bool {
        self.measured.is_some_and(|measured| match self.bound {
            Bound::AtMost(limit) => measured <= limit,
            Bound::AtLeast(limit) => measured >= limit,
        })
    }

    /// One line: verdict, text, measured value, bound, note.
    pub fn line(&self) -> String {
        let (sign, limit) = match self.bound {
            Bound::AtMost(limit) => ("≤", limit),
            Bound::AtLeast(limit) => ("≥", limit),
        };
        let unit = self.unit;
        let text = &self.text;
        let note = match self.note.as_str() {
            "" => String::new(),
            note => format!(" ({note})"),
        };
        let Some(measured) = self.measured else {
            return format!("not measured    {text} {sign} {limit:.2} {unit}{note}");
        };
        let off = (measured / limit - 1.0).abs() * 100.0;
        let verdict = match self.holds() {
            true => format!("holds by {off:.0} %"),
            false => format!("MISSED by {off:.0} %"),
        };
        format!("{verdict:<15} {text}: {measured:.2} {sign} {limit:.2} {unit}{note}")
    }

    pub fn to_json(&self) -> Value {
        let (limit, at_least) = match self.bound {
            Bound::AtMost(limit) => (limit, false),
            Bound::AtLeast(limit) => (limit, true),
        };
        json!({
            "promise": self.text,
            "measured": self.measured,
            "limit": limit,
            "at_least": at_least,
            "unit": self.unit,
            "holds": self.holds(),
            "note": self.note,
        })
    }
}

/// Prints the lines; returns how many promises are not kept.
pub fn print(promises: &[Promise]) -> usize {
    for promise in promises {
        println!("  {}", promise.line());
    }
    promises.iter().filter(|promise| !promise.holds()).count()
}

#[cfg(test)]
mod tests {
    use super::{Bound, Promise};

    fn promise(measured: Option<f64>, bound: Bound) -> Promise {
        Promise {
            text: "speed".to_owned(),
            measured,
            bound,
            unit: "×",
            note: "why".to_owned(),
        }
    }

    #[test]
    fn bound_says_which_side_is_good() {
        let most = promise(Some(0.5), Bound::AtMost(1.0));
        assert_eq!(most.line(), "holds by 50 %   speed: 0.50 ≤ 1.00 × (why)");
        let least = promise(Some(0.5), Bound::AtLeast(1.0));
        assert_eq!(least.line(), "MISSED by 50 %  speed: 0.50 ≥ 1.00 × (why)");
        assert!(promise(Some(1.0), Bound::AtLeast(1.0)).holds());
    }

    #[test]
    fn what_is_not_measured_does_not_hold() {
        let none = promise(None, Bound::AtLeast(1.0));
        assert!(!none.holds());
        assert!(none.line().starts_with("not measured"));
    }
}
