//! How many Pods a Deployment may have too many, and how many too few.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The bounds of a Deployment. All are numbers of Pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many are wanted.
    pub wanted: i32,
    /// How many more there may be while Pods are replaced.
    pub surge: i32,
    /// How many of the wanted may be unavailable.
    pub unavailable: i32,
}

/// Whether all old Pods must have ended before new ones are made.
pub fn recreates(deployment: &Deployment) -> bool {
    let strategy = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

/// The bounds that the specification gives. Percentages are of the wanted Pods; the surge is rounded up and the
/// unavailable down, and where both come to nothing one may be unavailable, or nothing could ever be replaced.
pub fn limits(deployment: &Deployment) -> Limits {
    let spec = deployment.spec.as_ref();
    let wanted = spec.and_then(|spec| spec.replicas).unwrap_or(1).max(0);
    if recreates(deployment) {
        return Limits {
            wanted,
            surge: 0,
            unavailable: 0,
        };
    }
    let rolling = |spec: &DeploymentSpec| spec.strategy.as_ref()?.rolling_update.clone();
    let rolling = spec.and_then(rolling).unwrap_or_default();
    let quarter = IntOrString::String("25%".into());
    let surge = pods(rolling.max_surge.as_ref().unwrap_or(&quarter), wanted, true);
    let mut unavailable = pods(
        rolling.max_unavailable.as_ref().unwrap_or(&quarter),
        wanted,
        false,
    );
    if surge == 0 && unavailable == 0 {
        unavailable = 1;
    }
    Limits {
        wanted,
        surge,
        unavailable: unavailable.min(wanted),
    }
}

impl Limits {
    /// The most Pods that there may be.
    pub fn most(self) -> i32 {
        self.wanted.saturating_add(self.surge)
    }

    /// The fewest Pods that must be available.
    pub fn fewest(self) -> i32 {
        self.wanted - self.unavailable
    }
}

/// A number of Pods, or a percentage of `wanted`. What is neither counts as none, as the server refuses it.
fn pods(value: &IntOrString, wanted: i32, round_up: bool) -> i32 {
    match value {
        IntOrString::Int(number) => (*number).max(0),
        IntOrString::String(text) => {
            let percent = text
                .strip_suffix('%')
                .and_then(|number| number.parse::<u32>().ok())
                .unwrap_or(0);
            let hundredths = i64::from(wanted) * i64::from(percent);
            let pods = if round_up {
                (hundredths + 99) / 100
            } else {
                hundredths / 100
            };
            i32::try_from(pods).unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(replicas: i32, surge: Value, unavailable: Value) -> (i32, i32) {
        let rolling = json!({"maxSurge": surge, "maxUnavailable": unavailable});
        let spec = json!({"replicas": replicas, "selector": {}, "template": {}, "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling}});
        let limits =
            limits(&serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap());
        (limits.surge, limits.unavailable)
    }

    #[test]
    fn percentages_are_rounded_towards_more_pods() {
        assert_eq!(of(10, json!("25%"), json!("25%")), (3, 2));
        assert_eq!(of(3, Value::Null, Value::Null), (1, 0));
        assert_eq!(of(4, json!("100%"), json!(1)), (4, 1));
        assert_eq!(
            of(2, json!(0), json!("25%")),
            (0, 1),
            "one must be able to go"
        );
        assert_eq!(of(2, json!(5), json!(7)), (5, 2));
        assert_eq!(of(0, json!("25%"), json!("25%")), (0, 0));
    }
}
