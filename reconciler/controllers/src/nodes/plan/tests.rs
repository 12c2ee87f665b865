use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

const GRACE: Duration = Duration::from_secs(40);

fn node(name: &str, ready: &str, spec: Value) -> Arc<Node> {
    let kinds = CONDITIONS.map(|kind| {
        let usual = if kind == "Ready" { "True" } else { "False" };
        let status = if ready == "True" || (ready == "False" && kind != "Ready") {
            usual
        } else {
            ready
        };
        json!({"type": kind, "status": status})
    });
    let node = json!({
        "metadata": {"name": name, "uid": name}, "spec": spec, "status": {"conditions": kinds},
    });
    Arc::new(serde_json::from_value(node).unwrap())
}

fn lease(name: &str, second: i64) -> Arc<Lease> {
    let time = Timestamp::from_second(second).unwrap().to_string();
    let lease = json!({"metadata": {"name": name}, "spec": {"renewTime": time}});
    Arc::new(serde_json::from_value(lease).unwrap())
}

fn taints(change: &Change) -> Vec<String> {
    let taints = change.taints.as_ref().unwrap();
    taints
        .iter()
        .map(|taint| format!("{}:{}", taint.key, taint.effect))
        .collect()
}

/// The node as it is after a change.
fn changed(change: &Change) -> Arc<Node> {
    let mut node = (*change.node).clone();
    for condition in &change.conditions {
        let conditions = node
            .status
            .get_or_insert_default()
            .conditions
            .get_or_insert_default();
        conditions.retain(|had| had.type_ != condition.type_);
        conditions.push(condition.clone());
    }
    if let Some(taints) = &change.taints {
        node.spec.get_or_insert_default().taints = Some(taints.clone());
    }
    Arc::new(node)
}

#[test]
fn a_silent_node_is_marked_and_tainted_at_the_end_of_its_grace() {
    let start = Instant::now();
    let after = |seconds| start + Duration::from_secs(seconds);
    let nodes = [node("n1", "True", json!({})), node("n2", "True", json!({}))];
    let mut memory = Memory::default();
    memory.hear(&nodes, &[lease("n1", 0), lease("n2", 0)], start);
    let clock = Timestamp::from_second(1_795_000_000).unwrap();
    memory.hear(&nodes, &[lease("n1", 10), lease("n2", 0)], after(10));
    let early = plan(&nodes, &memory, GRACE, after(39), clock);
    assert!(early.changes.is_empty());
    assert_eq!(early.wake, Some(after(40)));
    assert!(!memory.overdue(&nodes, GRACE, after(39)));
    assert!(memory.overdue(&nodes, GRACE, after(40)));
    let late = plan(&nodes, &memory, GRACE, after(40), clock);
    assert_eq!(late.wake, Some(after(50)));
    let [change] = late.changes.as_slice() else {
        panic!("{late:?}")
    };
    assert_eq!(change.node.metadata.name.as_deref(), Some("n2"));
    assert_eq!(
        taints(change),
        [
            "node.kubernetes.io/unreachable:NoSchedule",
            "node.kubernetes.io/unreachable:NoExecute"
        ]
    );
    let condition = serde_json::to_value(&change.conditions[0]).unwrap();
    assert_eq!(condition["type"], "Ready");
    assert_eq!(condition["status"], "Unknown");
    assert_eq!(condition["reason"], "NodeStatusUnknown");
    assert_eq!(condition["message"], "Kubelet stopped posting node status.");
    assert_eq!(condition["lastTransitionTime"], "2026-11-18T11:06:40Z");
    // Written once, it stays.
    let lost = changed(change);
    let nodes = [nodes[0].clone(), lost];
    assert!(
        plan(&nodes, &memory, GRACE, after(41), clock)
            .changes
            .is_empty()
    );
    assert!(!memory.overdue(&nodes, GRACE, after(41)));
    // It is back.
    let nodes = [
        nodes[0].clone(),
        node(
            "n2",
            "True",
            json!({"taints": nodes[1].spec.as_ref().unwrap().taints}),
        ),
    ];
    memory.hear(&nodes, &[lease("n2", 42)], after(42));
    let back = plan(&nodes, &memory, GRACE, after(42), clock);
    assert!(taints(&back.changes[0]).is_empty());
}

#[test]
fn nobody_is_evicted_when_no_node_is_ready() {
    let start = Instant::now();
    let nodes = [node("n1", "True", json!({})), node("n2", "True", json!({}))];
    let mut memory = Memory::default();
    memory.hear(&nodes, &[], start);
    let late = plan(&nodes, &memory, GRACE, start + GRACE, Timestamp::UNIX_EPOCH);
    assert_eq!(late.changes.len(), 2);
    for change in &late.changes {
        assert_eq!(
            taints(change),
            ["node.kubernetes.io/unreachable:NoSchedule"]
        );
    }
    // One returns: the other is lost indeed.
    let nodes = [node("n1", "True", json!({})), changed(&late.changes[1])];
    memory.hear(&nodes, &[lease("n1", 1)], start + GRACE);
    let late = plan(&nodes, &memory, GRACE, start + GRACE, Timestamp::UNIX_EPOCH);
    assert_eq!(
        taints(&late.changes[0]),
        [
            "node.kubernetes.io/unreachable:NoSchedule",
            "node.kubernetes.io/unreachable:NoExecute"
        ]
    );
}

#[test]
fn taints_follow_the_node_and_those_of_others_stay() {
    let other = json!({"key": "mine", "effect": "NoExecute"});
    let initial = json!({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"});
    let ready = node("n1", "True", json!({}));
    let of = |node: Arc<Node>| {
        let nodes = [node, ready.clone()];
        let mut memory = Memory::default();
        memory.hear(&nodes, &[], Instant::now());
        let plan = plan(
            &nodes,
            &memory,
            GRACE,
            Instant::now(),
            Timestamp::UNIX_EPOCH,
        );
        plan.changes.first().map(taints)
    };
    let spec = json!({"taints": [initial, other]});
    assert_eq!(
        of(node("n2", "True", spec)),
        Some(vec!["mine:NoExecute".into()])
    );
    assert_eq!(
        of(node("n2", "False", json!({"taints": [initial, other]}))),
        Some(vec![
            "node.kubernetes.io/not-ready:NoSchedule".into(),
            "mine:NoExecute".into(),
            "node.kubernetes.io/not-ready:NoExecute".into(),
        ])
    );
    assert_eq!(
        of(node("n2", "True", json!({"unschedulable": true}))),
        Some(vec!["node.kubernetes.io/unschedulable:NoSchedule".into()])
    );
    assert_eq!(of(node("n2", "True", json!({"taints": [other]}))), None);
}

#[test]
fn a_node_that_never_spoke_is_said_to_have_never_spoken() {
    let node: Node = serde_json::from_value(
        json!({"metadata": {"name": "n2", "uid": "n2", "creationTimestamp": "2026-11-21T06:49:31Z"}}),
    )
    .unwrap();
    let nodes = [Arc::new(node)];
    let start = Instant::now();
    let mut memory = Memory::default();
    memory.hear(&nodes, &[], start);
    let late = plan(&nodes, &memory, GRACE, start + GRACE, Timestamp::UNIX_EPOCH);
    let condition = serde_json::to_value(&late.changes[0].conditions[1]).unwrap();
    assert_eq!(condition["type"], "MemoryPressure");
    assert_eq!(condition["reason"], "NodeStatusNeverUpdated");
    assert_eq!(condition["message"], "Kubelet never posted node status.");
    assert_eq!(condition["lastHeartbeatTime"], "2026-11-21T06:49:31Z");
}

#[test]
fn ready_pods_of_silent_nodes_are_found() {
    let nodes = [
        node("n1", "True", json!({})),
        node("n2", "Unknown", json!({})),
    ];
    let pod = |name: &str, node: &str, ready: &str| -> Arc<Pod> {
        let pod = json!({
            "metadata": {"name": name}, "spec": {"nodeName": node, "containers": []},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        });
        Arc::new(serde_json::from_value(pod).unwrap())
    };
    let pods = [
        pod("a", "n1", "True"),
        pod("b", "n2", "True"),
        pod("c", "n2", "False"),
    ];
    let found = unready(&nodes, &pods);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].metadata.name.as_deref(), Some("b"));
}

proptest! {
    /// Whatever has been heard, in whatever order: once every change is written there is nothing left to change, a node
    /// is `Unknown` exactly if it was silent for its grace, and its taints say the same as its conditions.
    #[test]
    fn nodes_converge(
        heard in prop::collection::vec((0_usize..3, 0_i64..90, 0_u64..90), 0..20),
        said in prop::collection::vec(prop::sample::select(vec!["True", "False", "Unknown"]), 3),
        now in 90_u64..140,
    ) {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut nodes: Vec<_> = said.iter().enumerate().map(|(i, ready)| node(&format!("n{i}"), ready, json!({}))).collect();
        let mut memory = Memory::default();
        memory.hear(&nodes, &[], start);
        let mut last = [0; 3];
        let mut newest = [-1; 3];
        let mut heard = heard;
        heard.sort_by_key(|(_, _, at)| *at);
        for (which, renewed, at) in heard {
            memory.hear(&nodes, &[lease(&format!("n{which}"), renewed)], after(at));
            if renewed > newest[which] {
                (newest[which], last[which]) = (renewed, at);
            }
        }
        let once = plan(&nodes, &memory, GRACE, after(now), Timestamp::UNIX_EPOCH);
        for change in &once.changes {
            let index = nodes.iter().position(|node| node.metadata.name == change.node.metadata.name).unwrap();
            nodes[index] = changed(change);
        }
        let again = plan(&nodes, &memory, GRACE, after(now), Timestamp::UNIX_EPOCH);
        prop_assert!(again.changes.is_empty(), "{:?}", again.changes);
        let disrupted = !nodes.iter().any(|node| taints::ready(node) == "True");
        for (i, node) in nodes.iter().enumerate() {
            let lost = last[i] + 40 <= now;
            let ready = taints::ready(node);
            prop_assert_eq!(ready == "Unknown", lost || said[i] == "Unknown");
            let has = node.spec.as_ref().unwrap().taints.clone().unwrap_or_default();
            let expected = if ready == "True" { 0 } else if disrupted { 1 } else { 2 };
            prop_assert_eq!(has.len(), expected);
        }
    }
}
