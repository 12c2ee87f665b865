//! What is left in a namespace that is being deleted, and the conditions that say so, as Kubernetes words them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::NamespaceCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::discovery::ApiResource;

/// What is left.
#[derive(Debug, Default)]
pub struct Left {
    /// A phrase for each kind.
    kinds: Vec<String>,
    /// How many objects each finalizer holds.
    finalizers: BTreeMap<String, usize>,
}

impl Left {
    /// So many objects of a kind, and what holds them.
    pub fn of(kind: &ApiResource, count: usize, finalizers: BTreeMap<String, usize>) -> Self {
        let phrase = format!(
            "{}.{} has {count} resource instances",
            kind.plural, kind.group
        );
        Self {
            kinds: (count > 0).then_some(phrase).into_iter().collect(),
            finalizers,
        }
    }

    /// Counts what is left of another kind.
    pub fn add(&mut self, other: Self) {
        self.kinds.extend(other.kinds);
        for (name, count) in other.finalizers {
            *self.finalizers.entry(name).or_default() += count;
        }
    }

    /// Whether the namespace is empty.
    pub fn is_nothing(&self) -> bool {
        self.kinds.is_empty()
    }
}

/// The conditions; what has not changed keeps its time.
pub fn of(left: &Left, had: &[NamespaceCondition], now: Timestamp) -> Vec<NamespaceCondition> {
    let finalizers = left.finalizers.iter();
    let finalizers: Vec<_> = finalizers
        .map(|(name, count)| format!("{name} in {count} resource instances"))
        .collect();
    let fine = [
        (
            "DiscoveryFailure",
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        (
            "GroupVersionParsingFailure",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        (
            "ContentFailure",
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
    ];
    let mut rows: Vec<(String, bool, &str, String)> = fine
        .map(|(kind, reason, message)| {
            (
                format!("NamespaceDeletion{kind}"),
                false,
                reason,
                message.to_owned(),
            )
        })
        .into();
    let remaining = format!("Some resources are remaining: {}", left.kinds.join(", "));
    rows.push((
        "NamespaceContentRemaining".into(),
        true,
        "SomeResourcesRemain",
        remaining,
    ));
    rows.push(if finalizers.is_empty() {
        (
            "NamespaceFinalizersRemaining".into(),
            false,
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished".into(),
        )
    } else {
        (
            "NamespaceFinalizersRemaining".into(),
            true,
            "SomeFinalizersRemain",
            format!(
                "Some content in the namespace has finalizers remaining: {}",
                finalizers.join(", ")
            ),
        )
    });
    let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    rows.into_iter()
        .map(|(kind, holds, reason, message)| {
            let status = if holds { "True" } else { "False" };
            let before = had
                .iter()
                .find(|had| had.type_ == kind && had.status == status);
            NamespaceCondition {
                last_transition_time: before
                    .and_then(|before| before.last_transition_time.clone())
                    .or_else(|| Some(now.clone())),
                message: Some(message),
                reason: Some(reason.to_owned()),
                status: status.to_owned(),
                type_: kind,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_said_and_old_conditions_keep_their_time() {
        let pods = ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&());
        let mut left = Left::default();
        assert!(left.is_nothing());
        left.add(Left::of(&pods, 2, BTreeMap::from([("x/y".into(), 1)])));
        let first = of(&left, &[], Timestamp::UNIX_EPOCH);
        let text = |index: usize, of: &[NamespaceCondition]| of[index].message.clone().unwrap();
        assert_eq!(
            text(3, &first),
            "Some resources are remaining: pods. has 2 resource instances"
        );
        assert_eq!(
            text(4, &first),
            "Some content in the namespace has finalizers remaining: x/y in 1 resource instances"
        );
        let later = Timestamp::from_second(60).unwrap();
        let second = of(&Left::of(&pods, 1, BTreeMap::new()), &first, later);
        assert_eq!(
            second[3].last_transition_time,
            first[3].last_transition_time
        );
        assert_eq!(second[4].status, "False");
        assert_eq!(second[4].last_transition_time, Some(Time(later)));
    }
}
