//! Amounts of resources (`resource.Quantity`), to be added up and compared.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Amounts by the resource's name (`cpu`, `memory`, `example.com/gpu`), in units of 10⁻⁹.
pub type Amounts = BTreeMap<String, u128>;

const NANO: u128 = 1_000_000_000;
/// More than any machine has; sums of these do not overflow.
const MOST: u128 = 1 << 100;

/// An amount in units of 10⁻⁹, rounded up; nothing for what is no amount or below zero, as an API server keeps neither.
pub fn parse(text: &str) -> u128 {
    let text = text.strip_prefix('+').unwrap_or(text);
    let end = text
        .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let Some((factor, divisor)) = factor(suffix) else {
        return 0;
    };
    let Some(whole) = digits(whole) else { return 0 };
    // What is behind the ninth digit of a fraction is below any unit that is kept.
    let kept = fraction.get(..fraction.len().min(9)).unwrap_or_default();
    let Some(part) = digits(kept) else { return 0 };
    let scale = 10_u128.pow(u32::try_from(kept.len()).unwrap_or(0));
    let whole = whole.saturating_mul(NANO).saturating_mul(factor);
    let part = part
        .saturating_mul(NANO)
        .saturating_mul(factor)
        .div_ceil(scale);
    whole.saturating_add(part).div_ceil(divisor).min(MOST)
}

fn digits(text: &str) -> Option<u128> {
    if text.is_empty() {
        return Some(0);
    }
    text.parse().ok()
}

/// What a suffix multiplies by, and divides by.
fn factor(suffix: &str) -> Option<(u128, u128)> {
    let known = match suffix {
        "n" => (1, NANO),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "" => (1, 1),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (NANO, 1),
        "T" => (1000 * NANO, 1),
        "P" => (1_000_000 * NANO, 1),
        "E" => (NANO * NANO, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        _ => {
            let power: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let scale = 10_u128.pow(power.unsigned_abs().min(30));
            return Some(if power < 0 { (1, scale) } else { (scale, 1) });
        }
    };
    Some(known)
}

/// The amounts of a list of resources.
pub fn amounts(list: Option<&BTreeMap<String, Quantity>>) -> Amounts {
    let entries = list.into_iter().flatten();
    entries
        .map(|(name, quantity)| (name.clone(), parse(&quantity.0)))
        .collect()
}

/// Adds amounts to others.
pub fn add(to: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = to.entry(name.clone()).or_default();
        *sum = sum.saturating_add(*amount);
    }
}

/// The larger of each.
fn raise(to: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let known = to.entry(name.clone()).or_default();
        *known = (*known).max(*amount);
    }
}

/// What a Pod asks of a node: its containers together, or an init container with those that go on beside it if that
/// is more; what the Pod asks as a whole stands above what its containers do; and its overhead.
///
/// Source: <https://kubernetes.io/docs/concepts/workloads/pods/init-containers/#resource-sharing-within-containers>
pub fn requests(pod: &Pod) -> Amounts {
    let Some(spec) = &pod.spec else {
        return Amounts::new();
    };
    let mut together = Amounts::new();
    for container in &spec.containers {
        add(&mut together, &of(container.resources.as_ref()));
    }
    // Init containers that go on run beside all that start after them.
    let mut beside = Amounts::new();
    let mut starting = Amounts::new();
    for container in spec.init_containers.iter().flatten() {
        let own = of(container.resources.as_ref());
        if goes_on(container) {
            add(&mut beside, &own);
            raise(&mut starting, &beside);
        } else {
            let mut sum = beside.clone();
            add(&mut sum, &own);
            raise(&mut starting, &sum);
        }
    }
    add(&mut together, &beside);
    raise(&mut together, &starting);
    for (name, amount) in of(spec.resources.as_ref()) {
        together.insert(name, amount);
    }
    add(&mut together, &amounts(spec.overhead.as_ref()));
    together
}

fn of(resources: Option<&ResourceRequirements>) -> Amounts {
    amounts(resources.and_then(|resources| resources.requests.as_ref()))
}

fn goes_on(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn amounts_are_read_as_kubernetes_writes_them() {
        for (text, nano) in [
            ("0", 0),
            ("1", NANO),
            ("100m", NANO / 10),
            ("0.5", NANO / 2),
            (".5", NANO / 2),
            ("1500m", NANO * 3 / 2),
            ("1n", 1),
            ("1.5n", 2),
            ("1Ki", 1024 * NANO),
            ("1.5Gi", (3 << 29) * NANO),
            ("2e3", 2000 * NANO),
            ("2E", 2 * NANO * NANO * NANO),
            ("25e-1", NANO * 5 / 2),
            ("-1", 0),
            ("x", 0),
            ("", 0),
            ("1K", 0),
        ] {
            assert_eq!(parse(text), nano, "{text}");
        }
        assert_eq!(parse("99999999999999999999999999999999999999E"), MOST);
        assert_eq!(parse("999999999999999999999999999999999999999999"), 0);
    }

    #[test]
    fn a_pod_needs_its_containers_together_or_its_largest_beginning() {
        let asks = |cpu: &str| json!({"requests": {"cpu": cpu}});
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "overhead": {"cpu": "1"},
            "initContainers": [
                {"name": "a", "resources": asks("3")},
                {"name": "b", "restartPolicy": "Always", "resources": asks("2")},
                {"name": "c", "resources": asks("7")},
            ],
            "containers": [{"name": "d", "resources": asks("4")}, {"name": "e", "resources": asks("1")}, {"name": "f"}],
        }}))
        .unwrap();
        assert_eq!(requests(&pod)["cpu"], 10 * NANO);
    }

    #[test]
    fn what_the_pod_asks_as_a_whole_counts() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "resources": {"requests": {"cpu": "5"}},
            "containers": [{"name": "d", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}],
        }}))
        .unwrap();
        assert_eq!(requests(&pod)["cpu"], 5 * NANO);
        assert_eq!(requests(&pod)["memory"], (1 << 30) * NANO);
    }
}
