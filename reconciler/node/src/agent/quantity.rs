//! Quantities of resources: `500m`, `1Gi`, `2e3`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Container;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::runtime::Limits;

/// Thousandths, rounded up. Absent if it is no quantity.
pub fn thousandths(text: &str) -> Option<u128> {
    let end = text
        .find(|letter: char| !(letter.is_ascii_digit() || letter == '.' || letter == '+'))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let number = number.strip_prefix('+').unwrap_or(number);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.len() > 18 {
        return None;
    }
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let (times, per) = factor(suffix)?;
    let value = digits.checked_mul(times)?.checked_mul(1000)?;
    Some(value.div_ceil(scale.checked_mul(per)?))
}

/// Multiplier and divisor of a suffix.
fn factor(suffix: &str) -> Option<(u128, u128)> {
    let power = |base: u128, exponent: u32| base.checked_pow(exponent);
    let small = |exponent: u32| Some((1, 10_u128.pow(exponent)));
    match suffix {
        "" => Some((1, 1)),
        "n" => small(9),
        "u" => small(6),
        "m" => small(3),
        "k" => Some((power(1000, 1)?, 1)),
        "M" => Some((power(1000, 2)?, 1)),
        "G" => Some((power(1000, 3)?, 1)),
        "T" => Some((power(1000, 4)?, 1)),
        "P" => Some((power(1000, 5)?, 1)),
        "E" => Some((power(1000, 6)?, 1)),
        "Ki" => Some((power(1024, 1)?, 1)),
        "Mi" => Some((power(1024, 2)?, 1)),
        "Gi" => Some((power(1024, 3)?, 1)),
        "Ti" => Some((power(1024, 4)?, 1)),
        "Pi" => Some((power(1024, 5)?, 1)),
        "Ei" => Some((power(1024, 6)?, 1)),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let size = power(10, exponent.unsigned_abs())?;
            Some(if exponent < 0 { (1, size) } else { (size, 1) })
        }
    }
}

/// One resource of a list in its own unit, rounded up: bytes, devices; thousandths for `cpu`.
pub fn of(list: Option<&BTreeMap<String, Quantity>>, resource: &str) -> Option<u64> {
    let value = thousandths(&list?.get(resource)?.0)?;
    u64::try_from(if resource == "cpu" {
        value
    } else {
        value.div_ceil(1000)
    })
    .ok()
}

/// Limits of a container.
pub fn limits(container: &Container) -> Limits {
    let resources = container.resources.as_ref();
    let limits = resources.and_then(|resources| resources.limits.as_ref());
    let requests = resources.and_then(|resources| resources.requests.as_ref());
    Limits {
        memory: of(limits, "memory").unwrap_or(0),
        cpu: of(limits, "cpu").unwrap_or(0),
        cpu_request: of(requests, "cpu").or(of(limits, "cpu")).unwrap_or(0),
    }
}

/// Limits of a Pod: the sum of its containers' where each has one.
pub fn pod_limits(containers: &[Container]) -> Limits {
    let all: Vec<Limits> = containers.iter().map(limits).collect();
    let sum = |of: fn(&Limits) -> u64| all.iter().map(of).fold(0_u64, u64::saturating_add);
    let bounded = |of: fn(&Limits) -> u64| {
        if all.iter().any(|limits| of(limits) == 0) {
            0
        } else {
            sum(of)
        }
    };
    Limits {
        memory: bounded(|limits| limits.memory),
        cpu: bounded(|limits| limits.cpu),
        cpu_request: sum(|limits| limits.cpu_request),
    }
}

/// Thousandths in units of `divisor` (`1m`, `1Mi`; `0` and nonsense are 1), rounded up.
pub fn divided(value: u128, divisor: &str) -> u128 {
    let divisor = match thousandths(divisor) {
        Some(0) | None => 1000,
        Some(divisor) => divisor,
    };
    value.div_ceil(divisor)
}
