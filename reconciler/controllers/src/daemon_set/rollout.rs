//! How a DaemonSet's Pods get a new template: none (OnDelete), old ones removed a few at a time (maxUnavailable), or
//! new ones beside the old first (maxSurge).

use super::daemon::Fit;
use super::plan::{ByNode, Observed, Plan, is_new, min_ready};
use crate::pod;
use k8s_openapi::api::apps::v1::{DaemonSet, RollingUpdateDaemonSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;

/// Adds the rollout's next step.
pub fn plan(
    observed: &Observed<'_>,
    by_node: &ByNode<'_>,
    fits: &BTreeMap<&str, Fit>,
    plan: &mut Plan,
) {
    let Some(rolling) = rolling(observed.set) else {
        return;
    };
    let desired = fits.values().filter(|fit| **fit == Fit::Run).count();
    let surge = amount(rolling.max_surge.as_ref(), desired).unwrap_or(0);
    let unavailable = amount(rolling.max_unavailable.as_ref(), desired).unwrap_or(1);
    if surge > 0 {
        surge_step(observed, by_node, fits, surge, plan);
    } else {
        // Both zero would never move.
        remove_step(observed, by_node, unavailable.max(1), plan);
    }
}

/// How many Pods more than one a node there may be, of `desired` nodes.
pub fn max_surge(set: &DaemonSet, desired: usize) -> usize {
    let rolling = rolling(set);
    rolling
        .and_then(|rolling| amount(rolling.max_surge.as_ref(), desired))
        .unwrap_or(0)
}

/// None: OnDelete.
fn rolling(set: &DaemonSet) -> Option<RollingUpdateDaemonSet> {
    let strategy = set
        .spec
        .as_ref()?
        .update_strategy
        .clone()
        .unwrap_or_default();
    let on_delete = strategy.type_.as_deref() == Some("OnDelete");
    (!on_delete).then(|| strategy.rolling_update.unwrap_or_default())
}

/// A number, or a part of `whole` in percent, rounded up.
fn amount(value: Option<&IntOrString>, whole: usize) -> Option<usize> {
    match value? {
        IntOrString::Int(number) => usize::try_from(*number).ok(),
        IntOrString::String(text) => {
            let percent: usize = text.strip_suffix('%')?.parse().ok()?;
            Some(whole.saturating_mul(percent).div_ceil(100))
        }
    }
}

/// The node's Pod of the new template and its Pod of an old one, of those that stay. None: there are several of one.
fn new_and_old<'a>(
    observed: &Observed<'_>,
    pods: &[&'a Pod],
) -> Option<(Option<&'a Pod>, Option<&'a Pod>)> {
    let staying = pods.iter().filter(|pod| !pod::is_terminating(pod));
    let (new, old): (Vec<&Pod>, Vec<&Pod>) = staying.partition(|pod| is_new(observed, pod));
    (new.len() <= 1 && old.len() <= 1).then(|| (new.first().copied(), old.first().copied()))
}

fn is_available(observed: &Observed<'_>, pod: &Pod) -> bool {
    pod::is_available(pod, min_ready(observed.set), observed.now)
}

/// Old Pods that are not available go at once; of the others as many as may be missing.
fn remove_step(observed: &Observed<'_>, by_node: &ByNode<'_>, limit: usize, plan: &mut Plan) {
    let mut missing = plan.create.len();
    let mut candidates = Vec::new();
    for pods in by_node.values() {
        match new_and_old(observed, pods) {
            Some((Some(new), None)) if is_available(observed, new) => {}
            Some((None, Some(old))) if is_available(observed, old) => candidates.push(old),
            Some((None, Some(old))) => {
                missing += 1;
                // A failed one waits for its turn; see the back-off.
                if !pod::has_ended(old) {
                    plan.replace([old]);
                }
            }
            _ => missing += 1,
        }
    }
    plan.replace(candidates.into_iter().take(limit.saturating_sub(missing)));
}

/// New Pods come beside old ones: at once where the old one is not available, else as many as may be too many. An old
/// Pod goes when the new one is available.
fn surge_step(
    observed: &Observed<'_>,
    by_node: &ByNode<'_>,
    fits: &BTreeMap<&str, Fit>,
    limit: usize,
    plan: &mut Plan,
) {
    let mut surplus = 0;
    let mut candidates = Vec::new();
    let here = by_node
        .iter()
        .filter(|(node, _)| fits.get(*node) == Some(&Fit::Run));
    for (&node, pods) in here {
        match new_and_old(observed, pods) {
            None => surplus += 1,
            Some((_, None)) => {}
            Some((None, Some(old))) if is_available(observed, old) => candidates.push(node),
            Some((None, Some(old))) if pod::has_ended(old) => {}
            Some((None, Some(_))) => {
                plan.create.insert(node.to_owned());
            }
            Some((Some(new), Some(old))) if is_available(observed, new) => plan.replace([old]),
            Some((Some(_), Some(_))) => surplus += 1,
        }
    }
    let more = candidates.into_iter().take(limit.saturating_sub(surplus));
    plan.create.extend(more.map(str::to_owned));
}
