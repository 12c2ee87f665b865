//! What the zone of a large cluster costs in memory: 5,000 Services and 25,000 endpoints.
//!
//! Alone in its program, so that nothing else grows meanwhile.

use std::net::IpAddr;

use dns::model::{Endpoint, Event, Kind, ObjectName, Port, Protocol, Service, Slice, Target};
use dns::zone::{Found, Settings, Zone};
use hickory_proto::rr::{Name, RecordType};

const SERVICES: u32 = 5_000;
const ENDPOINTS: u32 = 5;

/// Resident bytes of this process (proc_pid_status(5)).
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes * 1024
}

fn name(service: u32, suffix: &str) -> ObjectName {
    ObjectName {
        namespace: format!("team-{}", service % 50).into(),
        name: format!("service-{service}{suffix}").into(),
    }
}

fn http(number: u16) -> Box<[Port]> {
    [Port {
        name: "http".into(),
        protocol: Protocol::Tcp,
        number,
    }]
    .into()
}

/// Every fourth Service is headless, of Pods with host names, as StatefulSets are.
fn told(service: u32) -> Vec<Event> {
    let headless = service.is_multiple_of(4);
    let target = match headless {
        true => Target::Headless,
        false => Target::ClusterIps([IpAddr::from((0x0a60_0000 + service).to_be_bytes())].into()),
    };
    let endpoint = |number: u32| Endpoint {
        addresses: [IpAddr::from(
            (0x0af4_0000 + service * ENDPOINTS + number).to_be_bytes(),
        )]
        .into(),
        hostname: headless.then(|| format!("service-{service}-{number}").into()),
        ready: true,
    };
    vec![
        Event::Service(Service {
            name: name(service, ""),
            target,
            ports: http(80),
            publish_not_ready: false,
        }),
        Event::Slice(Slice {
            name: name(service, "-x7k2p"),
            service: name(service, "").name,
            endpoints: (0..ENDPOINTS).map(endpoint).collect(),
            changed: None,
            ports: http(8080),
        }),
    ]
}

#[test]
fn a_large_zone_is_small() {
    let domain = Name::from_ascii("cluster.local.").unwrap();
    let mut zone = Zone::new(Settings::new(domain));
    let before = resident();
    for service in 0..SERVICES {
        zone.apply(told(service));
    }
    zone.apply(vec![
        Event::Listed(Kind::Services),
        Event::Listed(Kind::Slices),
    ]);
    let once = resident().saturating_sub(before);
    // All is listed again, as after a disconnection: what is replaced is not kept.
    for kind in [Kind::Services, Kind::Slices] {
        zone.apply(vec![Event::Restarted(kind)]);
    }
    for service in 0..SERVICES {
        zone.apply(told(service));
    }
    zone.apply(vec![
        Event::Listed(Kind::Services),
        Event::Listed(Kind::Slices),
    ]);
    let twice = resident().saturating_sub(before);
    println!(
        "{SERVICES} Services, {} endpoints: {once} bytes, {twice} after a second list",
        SERVICES * ENDPOINTS
    );
    assert_eq!(zone.counts(), [5_000, 5_000, 0]);
    let asked = Name::from_ascii("service-4-3.service-4.team-4.svc.cluster.local.").unwrap();
    assert!(matches!(
        zone.resolve(&asked, RecordType::A),
        Found::Records { .. }
    ));
    let snapshot = dns::snapshot::render(&zone, std::time::UNIX_EPOCH)
        .unwrap()
        .len();
    println!("its snapshot: {snapshot} bytes");
    assert!(snapshot < 4 << 20, "{snapshot} bytes");
    assert!(once < 8 << 20, "{once} bytes");
    assert!(twice < 8 << 20, "{twice} bytes");
}
