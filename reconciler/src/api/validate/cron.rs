//! Schedules: `*/5 * * * *`, `@daily`, `@every 1h`. Errors are in the words of `robfig/cron`, which the reference asks.

/// The fields: their bounds, and the names that numbers have.
const FIELDS: [(u32, u32, &[&str]); 5] = [
    (0, 59, &[]),
    (0, 23, &[]),
    (1, 31, &[]),
    (
        1,
        12,
        &[
            "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
        ],
    ),
    (0, 6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];

/// Whether a schedule is one.
///
/// # Errors
/// What is wrong with it.
pub fn check(schedule: &str) -> Result<(), String> {
    if schedule.contains("TZ") {
        return Err("cannot use TZ or CRON_TZ in schedule, use timeZone field instead".to_owned());
    }
    if schedule.starts_with('@') {
        return descriptor(schedule);
    }
    let fields: Vec<_> = schedule.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(format!(
            "expected exactly 5 fields, found {}: [{}]",
            fields.len(),
            fields.join(" ")
        ));
    }
    for (text, (lowest, highest, names)) in fields.into_iter().zip(FIELDS) {
        for range in text.split(',').filter(|range| !range.is_empty()) {
            self::range(range, lowest, highest, names)?;
        }
    }
    Ok(())
}

fn descriptor(text: &str) -> Result<(), String> {
    if let Some(every) = text.strip_prefix("@every ") {
        return duration(every).then_some(()).ok_or_else(|| {
            format!("failed to parse duration {text}: time: invalid duration {every:?}")
        });
    }
    match text {
        "@yearly" | "@annually" | "@monthly" | "@weekly" | "@daily" | "@midnight" | "@hourly" => {
            Ok(())
        }
        _ => Err(format!("unrecognized descriptor: {text}")),
    }
}

/// `1h30m`: numbers and units.
fn duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    let mut any = false;
    while !rest.is_empty() {
        let number = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let digits = rest.len() - number.len();
        let number_text = rest.get(..digits).unwrap_or_default();
        if number_text.parse::<f64>().is_err() {
            return false;
        }
        let units = ["ns", "us", "µs", "ms", "s", "m", "h"];
        let next = number.trim_start_matches(|c: char| !c.is_ascii_digit() && c != '.');
        let unit = number.get(..number.len() - next.len()).unwrap_or_default();
        if !units.contains(&unit) {
            return false;
        }
        (rest, any) = (next, true);
    }
    any
}

/// `*`, `*/5`, `1-5`, `1-5/2`, `mon`
fn range(text: &str, lowest: u32, highest: u32, names: &[&str]) -> Result<(), String> {
    let mut parts = text.split('/');
    let span = parts.next().unwrap_or_default();
    let step = parts.next();
    if parts.next().is_some() {
        return Err(format!("too many slashes: {text}"));
    }
    let mut bounds = span.split('-');
    let first = bounds.next().unwrap_or_default();
    let last = bounds.next();
    let (start, end) = if matches!(first, "*" | "?") {
        (lowest, highest)
    } else {
        let start = number(first, lowest, names)?;
        let end = match last {
            Some(last) => number(last, lowest, names)?,
            None if step.is_some() => highest,
            None => start,
        };
        if bounds.next().is_some() {
            return Err(format!("too many hyphens: {text}"));
        }
        (start, end)
    };
    if let Some(step) = step
        && number(step, lowest, &[])? == 0
    {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    if start < lowest {
        return Err(format!(
            "beginning of range ({start}) below minimum ({lowest}): {text}"
        ));
    }
    if end > highest {
        return Err(format!(
            "end of range ({end}) above maximum ({highest}): {text}"
        ));
    }
    if start > end {
        return Err(format!(
            "beginning of range ({start}) beyond end of range ({end}): {text}"
        ));
    }
    Ok(())
}

fn number(text: &str, lowest: u32, names: &[&str]) -> Result<u32, String> {
    let lower = text.to_lowercase();
    if let Some(index) = names.iter().position(|name| **name == lower) {
        return Ok(lowest + u32::try_from(index).unwrap_or(0));
    }
    text.parse().map_err(|_| {
        if text.parse::<i64>().is_ok_and(|number| number < 0) {
            format!("negative number ({text}) not allowed: {text}")
        } else {
            format!(
                "failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"
            )
        }
    })
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn schedules_are_told_from_what_is_none() {
        for right in [
            "*/5 * * * *",
            "0 0 1,15 * mon-fri",
            "0 22-23 * JAN 0",
            "5/15 * ? * *",
            "@daily",
            "@every 1h30m",
            "1-59/2 * * * *",
        ] {
            assert_eq!(check(right), Ok(()), "{right}");
        }
        for (wrong, why) in [
            ("* * *", "expected exactly 5 fields, found 3: [* * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            (
                "5-1 * * * *",
                "beginning of range (5) beyond end of range (1): 5-1",
            ),
            (
                "*/0 * * * *",
                "step of range should be a positive number: */0",
            ),
            ("@never", "unrecognized descriptor: @never"),
            (
                "TZ=UTC * * * * *",
                "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
            ),
            (
                "x * * * *",
                "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax",
            ),
        ] {
            assert_eq!(check(wrong), Err(why.to_owned()));
        }
        for wrong in [
            "@every",
            "@every 1x",
            "@every ",
            "1/2/3 * * * *",
            "1-2-3 * * * *",
        ] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }
}
