//! Whatever happens in whatever order, what comes out is what the objects at the end come to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::model::NodeInfo;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn ip(family: Family, last: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 0, 0, last).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last.into()).into(),
    }
}

fn any_ip() -> impl Strategy<Value = IpAddr> {
    (any::<bool>(), 1u8..5).prop_map(|(six, last)| ip(FAMILIES[usize::from(six)], last))
}

fn any_policy() -> impl Strategy<Value = Policy> {
    prop_oneof![Just(Policy::Cluster), Just(Policy::Local)]
}

fn any_port() -> impl Strategy<Value = ServicePort> {
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
    let name = prop_oneof![Just(""), Just("http")];
    let node_port = prop::option::of(30000u16..30002);
    (name, protocol, 80u16..82, node_port).prop_map(|(name, protocol, port, node_port)| {
        ServicePort {
            name: name.into(),
            protocol,
            port,
            node_port,
        }
    })
}

/// Few addresses and ports, so that they clash.
fn any_service() -> impl Strategy<Value = Service> {
    let ips = || prop::collection::vec(any_ip(), 0..2);
    let identity = (prop::sample::select(&NAMES[..]), 0i64..3);
    let addresses = (1u8..5, 0usize..3, ips(), ips());
    let ports = prop::collection::vec(any_port(), 0..3);
    let policies = (any_policy(), any_policy(), prop::option::of(Just(32000u16)));
    (identity, addresses, ports, policies).prop_map(|(identity, addresses, ports, policies)| {
        let (last, families, external, balanced) = addresses;
        let all = [ip(Family::V4, last), ip(Family::V6, last)];
        let cluster_ips = match families {
            0 => all.to_vec(),
            1 => all[..1].to_vec(),
            _ => all[1..].to_vec(),
        };
        Service {
            name: ObjectName::new("shop", identity.0),
            created: identity.1,
            cluster_ips,
            external_ips: external,
            load_balancer_ips: balanced,
            ports,
            internal_policy: policies.0,
            external_policy: policies.1,
            health_check_node_port: policies.2,
            ..service("x", &[])
        }
    })
}

fn any_endpoint(family: Family) -> impl Strategy<Value = SliceEndpoint> {
    let hint = || prop::collection::vec(prop::sample::select(&["n1", "n2"][..]), 0..2);
    let flags = any::<[bool; 3]>();
    let node = prop::option::of(prop::sample::select(&["n1", "n2"][..]));
    (1u8..6, flags, node, hint(), hint()).prop_map(move |(last, flags, node, zones, nodes)| {
        SliceEndpoint {
            address: ip(family, last + 100),
            ready: flags[0],
            serving: flags[1],
            terminating: flags[2],
            node: node.map(Arc::from),
            zone_hints: zones.into_iter().map(Arc::from).collect(),
            node_hints: nodes.into_iter().map(Arc::from).collect(),
        }
    })
}

fn any_slice() -> impl Strategy<Value = Slice> {
    let name = prop::sample::select(&["s1", "s2", "s3", "s4"][..]);
    let service = prop::sample::select(&NAMES[..]);
    let ports = prop::collection::vec((any_port(), 8080u16..8082), 0..3);
    (name, service, any::<bool>(), ports).prop_flat_map(|(name, service, six, ports)| {
        let family = FAMILIES[usize::from(six)];
        prop::collection::vec(any_endpoint(family), 0..4).prop_map(move |endpoints| Slice {
            name: ObjectName::new("shop", name),
            service: ObjectName::new("shop", service),
            family,
            ports: ports
                .iter()
                .map(|(port, number)| SlicePort {
                    name: port.name.clone(),
                    protocol: port.protocol,
                    port: *number,
                })
                .collect(),
            endpoints,
            triggered: None,
        })
    })
}

fn any_event() -> impl Strategy<Value = Event> {
    let zone = prop::option::of(prop::sample::select(&["n1", "n2"][..]));
    let node = zone.prop_map(|zone| {
        zone.map(|zone| NodeInfo {
            zone: Some(zone.into()),
            ..NodeInfo::default()
        })
    });
    let name = |names: &'static [&'static str]| {
        prop::sample::select(names).prop_map(|name| ObjectName::new("shop", name))
    };
    let kind = || prop_oneof![Just(Kind::Services), Just(Kind::Slices), Just(Kind::Node)];
    prop_oneof![
        6 => any_service().prop_map(has),
        2 => name(&NAMES).prop_map(Event::ServiceGone),
        6 => any_slice().prop_map(has_slice),
        2 => name(&["s1", "s2", "s3", "s4"]).prop_map(Event::SliceGone),
        1 => node.prop_map(Event::Node),
        1 => kind().prop_map(Event::Restarted),
        1 => kind().prop_map(Event::Listed),
    ]
}

/// The objects that are there after all events, by the plainest reading of what events mean.
#[derive(Default)]
struct Objects {
    services: BTreeMap<ObjectName, Arc<Service>>,
    slices: BTreeMap<ObjectName, Arc<Slice>>,
    node: Option<NodeInfo>,
    /// Since the last `Restarted`; `None`: none is under way.
    named: BTreeMap<Kind, BTreeSet<ObjectName>>,
}

impl Objects {
    fn name(&mut self, kind: Kind, name: &ObjectName) {
        self.named.entry(kind).and_modify(|named| {
            named.insert(name.clone());
        });
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Service(service) => {
                self.name(Kind::Services, &service.name);
                self.services.insert(service.name.clone(), service);
            }
            Event::ServiceGone(name) => {
                self.services.remove(&name);
            }
            Event::Slice(slice) => {
                self.name(Kind::Slices, &slice.name);
                self.slices.insert(slice.name.clone(), slice);
            }
            Event::SliceGone(name) => {
                self.slices.remove(&name);
            }
            Event::Node(node) => {
                self.name(Kind::Node, &ObjectName::new("", "n1"));
                self.node = node;
            }
            Event::ServiceCidrs(_) => {}
            Event::Restarted(kind) => {
                self.named.insert(kind, BTreeSet::new());
            }
            Event::Listed(kind) => {
                let Some(named) = self.named.remove(&kind) else {
                    return;
                };
                match kind {
                    Kind::Services => self.services.retain(|name, _| named.contains(name)),
                    Kind::Slices => self.slices.retain(|name, _| named.contains(name)),
                    Kind::Node if named.is_empty() => self.node = None,
                    Kind::Node => {}
                }
            }
        }
    }

    /// A state that has only ever heard of these.
    fn start_anew(self) -> State {
        let mut state = state();
        self.services
            .into_values()
            .for_each(|one| state.apply(Event::Service(one)));
        state.apply(Event::Node(self.node));
        self.slices
            .into_values()
            .for_each(|one| state.apply(Event::Slice(one)));
        state
    }
}

/// What can be seen of a state for one family, after [`State::take`].
fn seen(state: &State, family: Family) -> impl PartialEq + std::fmt::Debug + use<> {
    (
        state.wanted(family).cloned(),
        state.health(family),
        state.no_local(family),
        state.clashes().cloned().collect::<Vec<_>>(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn events_one_by_one_come_to_what_the_objects_come_to(
        events in prop::collection::vec((any_event(), any::<[bool; 2]>()), 0..40),
    ) {
        let mut state = state();
        let mut objects = Objects::default();
        let mut copies: [Option<Wanted>; 2] = [None, None];
        for (event, take) in events {
            objects.apply(event.clone());
            state.apply(event);
            for ((family, copy), take) in FAMILIES.into_iter().zip(&mut copies).zip(take) {
                if !take {
                    continue;
                }
                let before = copy.clone();
                if let Some(update) = state.take(family) {
                    let changed = update.apply(copy);
                    names_all_that_differs(&changed, before.as_ref(), copy.as_ref())?;
                }
                prop_assert_eq!(copy.as_ref(), state.wanted(family));
            }
        }
        let mut scratch = objects.start_anew();
        for family in FAMILIES {
            state.take(family);
            scratch.take(family);
            prop_assert_eq!(seen(&state, family), seen(&scratch, family));
            fronts_are_not_double(state.wanted(family).unwrap())?;
        }
    }
}

fn names_all_that_differs(
    changed: &Changed,
    before: Option<&Wanted>,
    after: Option<&Wanted>,
) -> Result<(), TestCaseError> {
    let (Changed::Ports(named), Some(before), Some(after)) = (changed, before, after) else {
        prop_assert!(before.is_none(), "everything is said to have changed");
        return Ok(());
    };
    prop_assert_eq!(&before.site, &after.site);
    let ports = before.balancers.keys().chain(after.balancers.keys());
    for port in ports {
        let differs = before.balancers.get(port) != after.balancers.get(port);
        prop_assert!(!differs || named.contains(port), "{} is not named", port);
    }
    Ok(())
}

fn fronts_are_not_double(wanted: &Wanted) -> Result<(), TestCaseError> {
    let mut taken = BTreeSet::new();
    for (port, balancer) in &wanted.balancers {
        for front in &balancer.fronts {
            let spot = (front.ip, front.port, port.protocol);
            prop_assert!(taken.insert(spot), "{spot:?} is there twice");
        }
    }
    Ok(())
}
