//! For any history, what has been written bit by bit is what would be written from scratch.

mod tables;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proptest::prelude::*;

use super::super::{
    Parts, names::Table, observed::Observed, plan, plan::Committed, script::Script,
};
use crate::model::{
    Balancer, Changed, Endpoint, Family, Front, FrontKind, LocalDetector, NodePortAddresses,
    ObjectName, Policy, PortName, Protocol, Site, Wanted,
};
use tables::Tables;

fn site() -> Site {
    Site {
        family: Family::V4,
        node: "node1".into(),
        masquerade_all: false,
        masquerade_mark: 0x4000,
        local: LocalDetector::Cidrs(vec!["10.180.0.0/16".parse().unwrap()]),
        node_port_addresses: NodePortAddresses::All,
        service_cidrs: Vec::new(),
        affinity_by_hash: false,
        localhost_node_ports: true,
        conntrack_liberal: false,
    }
}

fn name(number: u8) -> PortName {
    PortName {
        service: ObjectName::new("ns", &format!("s{number}")),
        port: "p".into(),
        protocol: Protocol::Tcp,
    }
}

/// A service port with fronts of its own, by some numbers.
fn balancer(number: u8, shape: u8, endpoints: u8) -> Balancer {
    let bit = |bit: u8| shape >> bit & 1 == 1;
    let policy = |local| {
        if local {
            Policy::Local
        } else {
            Policy::Cluster
        }
    };
    // Few low bytes, so that branches fill up.
    let low = number % 7 * 16 + number % 3;
    let node_port = 30000 + u16::from(number % 4) * 600 + u16::from(number);
    let mut fronts = vec![Front {
        kind: FrontKind::ClusterIp,
        ip: Some([172, 30, number, low].into()),
        port: 80,
    }];
    if bit(0) {
        fronts.push(Front {
            kind: FrontKind::LoadBalancer,
            ip: Some([198, 51, number, low].into()),
            port: 80,
        });
    }
    if bit(1) {
        fronts.push(Front {
            kind: FrontKind::NodePort,
            ip: None,
            port: node_port,
        });
    }
    let cluster: Vec<_> = (0..endpoints)
        .map(|host| Endpoint {
            ip: [10, 180, number, host].into(),
            port: 80,
            local: host % 2 == 0,
        })
        .collect();
    let local = bit(2) || bit(3);
    Balancer {
        fronts,
        internal_policy: policy(bit(2)),
        external_policy: policy(bit(3)),
        affinity: bit(4).then_some(100),
        source_ranges: if bit(5) {
            vec!["203.0.113.0/24".parse().unwrap()]
        } else {
            Vec::new()
        },
        local: cluster
            .iter()
            .filter(|endpoint| local && endpoint.local)
            .copied()
            .collect(),
        any_endpoint: !cluster.is_empty(),
        cluster,
    }
}

/// What is wanted, as tables.
fn from_scratch(wanted: &Wanted) -> Tables {
    let mut tables = Tables::built_in();
    for ((table, chain), rules) in plan::all_chains(wanted, Parts::default(), 2000) {
        let rules = rules.lines().map(str::to_owned).collect();
        tables.chains.insert((table, chain), rules);
    }
    // Which `all_chains` has no part in: it is not ours alone.
    let firewall = vec![super::super::jumps::firewall_rule(true)];
    let filter = |chain: &str| (Table::Filter, chain.to_owned());
    tables.chains.insert(filter("KUBE-FIREWALL"), firewall);
    for chain in ["INPUT", "OUTPUT"] {
        let rules = tables.chains.get_mut(&filter(chain)).unwrap();
        rules.insert(0, "-j KUBE-FIREWALL".to_owned());
    }
    tables
}

fn full(wanted: &Wanted, tables: &Tables) -> (Committed, Script) {
    let observed = Observed::new(
        super::super::ownership::Whose::Ours,
        tables.save(Table::Filter),
        tables.save(Table::Nat),
    );
    Committed::full(wanted, Parts::default(), 2000, &observed)
}

fn apply(tables: &mut Tables, script: Script, lines: usize) {
    for text in script.texts(lines) {
        tables.restore(&text);
    }
}

/// Carries out a history and compares.
fn run(steps: &[(Changed, BTreeMap<PortName, Arc<Balancer>>)], lines: usize) {
    let mut tables = Tables::built_in();
    let mut wanted = Wanted {
        site: site(),
        balancers: BTreeMap::new(),
    };
    let (mut committed, script) = full(&wanted, &tables);
    apply(&mut tables, script, lines);
    tables.assert_same(&from_scratch(&wanted));
    for (changed, balancers) in steps {
        wanted.balancers.clone_from(balancers);
        let script = match changed {
            Changed::Ports(ports) => committed.update(&wanted, ports),
            Changed::All => {
                let (anew, script) = full(&wanted, &tables);
                committed = anew;
                script
            }
        };
        apply(&mut tables, script, lines);
        tables.assert_same(&from_scratch(&wanted));
    }
    let (_, script) = full(&wanted, &tables);
    assert_eq!(script, Script::default(), "a restart has something to do");
}

/// Service ports changed, made and removed; now and then a full sync.
#[derive(Clone, Debug)]
struct Step {
    full: bool,
    ports: Vec<(u8, u8, u8)>,
}

fn step() -> impl Strategy<Value = Step> {
    let ports = prop::collection::vec((0u8..60, any::<u8>(), 0u8..6), 1..25);
    (prop::bool::weighted(0.1), ports).prop_map(|(full, ports)| Step { full, ports })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn bit_by_bit_is_from_scratch(steps in prop::collection::vec(step(), 1..12), lines in 1usize..400) {
        let mut balancers = BTreeMap::new();
        let steps: Vec<_> = steps
            .into_iter()
            .map(|step| {
                let mut touched = BTreeSet::new();
                for (number, shape, endpoints) in step.ports {
                    touched.insert(name(number));
                    if shape >= 192 {
                        balancers.remove(&name(number));
                    } else {
                        let balancer = Arc::new(balancer(number, shape, endpoints));
                        balancers.insert(name(number), balancer);
                    }
                }
                let changed = if step.full { Changed::All } else { Changed::Ports(touched) };
                (changed, balancers.clone())
            })
            .collect();
        run(&steps, lines);
    }
}

#[test]
fn comments_go_when_there_are_more_than_a_thousand_endpoints_and_come_back() {
    let mut balancers = BTreeMap::new();
    let mut steps = Vec::new();
    for number in 0..6 {
        balancers.insert(name(number), Arc::new(balancer(number, 0, 200)));
        let touched = BTreeSet::from([name(number)]);
        steps.push((Changed::Ports(touched), balancers.clone()));
    }
    balancers.remove(&name(3));
    steps.push((Changed::Ports(BTreeSet::from([name(3)])), balancers.clone()));
    let text = |step: usize| {
        let wanted = Wanted {
            site: site(),
            balancers: steps[step].1.clone(),
        };
        from_scratch(&wanted).save(Table::Nat)
    };
    for (step, commented) in [(4, true), (5, false), (6, true)] {
        assert_eq!(text(step).contains("ns/s0:p -> 10.180.0.1:80"), commented);
    }
    run(&steps, 4000);
}

#[test]
fn one_service_among_many_rewrites_few_lines() {
    let mut wanted = Wanted {
        site: site(),
        balancers: (0..5000u32)
            .map(|number| {
                let mut balancer = balancer(0, 0, 5);
                balancer.fronts[0].ip = Some(std::net::Ipv4Addr::from(0xac1e_0000 + number).into());
                let mut name = name(0);
                name.service = ObjectName::new("ns", &format!("s{number}"));
                (name, Arc::new(balancer))
            })
            .collect(),
    };
    let (mut committed, _) = full(&wanted, &Tables::built_in());
    let mut balancer = balancer(0, 0, 5);
    balancer.fronts[0].ip = Some([172, 30, 200, 7].into());
    wanted.balancers.insert(name(1), Arc::new(balancer));
    let script = committed.update(&wanted, &BTreeSet::from([name(1)]));
    // Its own chains (5 endpoints of 2 rules, 5 + 1 to choose) and one branch of about 20.
    assert!(script.changes() < 60, "{} lines", script.changes());
}

#[test]
fn an_endpoint_more_moves_one_of_a_sample() {
    let many = |count: u16| {
        let endpoints = (0..count).map(|number| Endpoint {
            ip: std::net::Ipv4Addr::from(0x0ab4_0000 + u32::from(number)).into(),
            port: 80,
            local: false,
        });
        let mut wanted = Wanted {
            site: site(),
            balancers: BTreeMap::new(),
        };
        let mut balancer = balancer(0, 0, 0);
        balancer.cluster = endpoints.collect();
        balancer.any_endpoint = true;
        wanted.balancers.insert(name(0), Arc::new(balancer));
        let chains = plan::all_chains(&wanted, Parts::default(), 100);
        chains
            .into_keys()
            .filter(|(_, chain)| chain.starts_with("KUBE-SEP-"))
            .collect::<BTreeSet<_>>()
    };
    let (before, after) = (many(3000), many(3001));
    assert_eq!((before.len(), after.len()), (100, 100));
    assert!(before.difference(&after).count() <= 1);
    assert_eq!(many(99).len(), 99);
}
