//! Verdicts.

use k8s_openapi::api::core::v1::Probe;

use super::count::Count;

#[test]
fn so_many_in_a_row() {
    let probe = Probe {
        success_threshold: Some(2),
        failure_threshold: Some(3),
        ..Probe::default()
    };
    let mut count = Count::new(&probe);
    let told: Vec<_> = [
        true, false, true, true, false, false, true, false, false, false, false,
    ]
    .into_iter()
    .map(|outcome| count.count(outcome))
    .collect();
    let (yes, no) = (Some(true), Some(false));
    assert_eq!(
        told,
        [None, None, None, yes, None, None, None, None, None, no, no]
    );
}
