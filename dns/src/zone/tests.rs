//! Tests of the zone.

use std::net::IpAddr;

use hickory_proto::rr::{Name, RecordType};

use super::{Found, Settings, Zone};
use crate::model::{Endpoint, Event, Kind, ObjectName, Port, Protocol, Service, Slice, Target};

#[test]
fn a_service_is_found_once_all_is_listed() {
    let name = |name: &str| ObjectName {
        namespace: "default".into(),
        name: name.into(),
    };
    let http = |number| Port {
        name: "http".into(),
        protocol: Protocol::Tcp,
        number,
    };
    let mut zone = Zone::new(Settings::new(Name::from_ascii("Cluster.Local").unwrap()));
    let asked = |text: &str| Name::from_ascii(text).unwrap();
    let web = asked("Web.default.svc.cluster.local.");
    let ips = |zone: &Zone, name: &Name, kind| match zone.resolve(name, kind) {
        Found::Records { answers, .. } => {
            assert!(answers.iter().all(|record| record.name.eq_case(name)));
            Ok(answers
                .iter()
                .map(|record| record.data.ip_addr().unwrap())
                .collect::<Vec<_>>())
        }
        other => Err(other),
    };
    assert_eq!(zone.resolve(&web, RecordType::A), Found::Unknown);
    zone.apply(vec![
        Event::Service(Service {
            name: name("web"),
            target: Target::ClusterIps(["10.96.0.1".parse().unwrap()].into()),
            ports: [http(80)].into(),
            publish_not_ready: false,
        }),
        Event::Service(Service {
            name: name("db"),
            target: Target::Headless,
            ports: [http(80)].into(),
            publish_not_ready: false,
        }),
        Event::Slice(Slice {
            name: name("db-1"),
            service: "db".into(),
            endpoints: [Endpoint {
                addresses: ["10.0.0.1".parse().unwrap()].into(),
                hostname: Some("db-0".into()),
                ready: true,
            }]
            .into(),
            ports: [http(8080)].into(),
        }),
        Event::Listed(Kind::Services),
        Event::Listed(Kind::Slices),
    ]);
    assert_eq!(
        ips(&zone, &web, RecordType::A),
        Ok(vec![IpAddr::from([10, 96, 0, 1])])
    );
    assert_eq!(ips(&zone, &web, RecordType::AAAA), Err(Found::NoData));
    let db = asked("db-0.db.default.svc.cluster.local.");
    assert_eq!(
        ips(&zone, &db, RecordType::A),
        Ok(vec![IpAddr::from([10, 0, 0, 1])])
    );
}
