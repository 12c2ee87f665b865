//! Tests of the zone.

mod life;
mod oracle;
mod properties;
pub(crate) mod samples;
mod table;

use hickory_proto::rr::{Name, Record, RecordType};
use ipnet::IpNet;

use super::{Found, PodMode, Settings, Zone};
use crate::model::{Event, Kind};
use crate::objects;

const ALL: [Kind; 3] = [Kind::Services, Kind::Slices, Kind::Pods];

pub(crate) fn name(text: &str) -> Name {
    let labels = text.split('.').filter(|label| !label.is_empty());
    Name::from_labels(labels.map(str::as_bytes)).unwrap()
}

/// The settings that the table of answers is for.
pub(crate) fn settings() -> Settings {
    let own = [
        "10.96.0.0/12",
        "10.244.0.0/16",
        "fd00:96::/112",
        "fd00:244::/32",
    ];
    Settings {
        own_reverse: own
            .iter()
            .map(|net| net.parse::<IpNet>().unwrap())
            .collect(),
        servers: vec!["10.96.0.10".parse().unwrap(), "fd00:96::a".parse().unwrap()],
        ..Settings::new(name("Cluster.Local"))
    }
}

/// The cluster that the table of answers is for.
pub(crate) fn cluster() -> Vec<Event> {
    let objects: Vec<serde_json::Value> =
        serde_json::from_str(include_str!("../../tests/data/cluster.json")).unwrap();
    let told = objects.into_iter().map(|object| {
        let word = |field| {
            object
                .pointer(field)
                .and_then(serde_json::Value::as_str)
                .unwrap()
        };
        let kind = objects::kind_of(word("/kind"), Some(word("/apiVersion"))).unwrap();
        objects::parse(kind, object).unwrap().event
    });
    told.chain(ALL.map(Event::Listed)).collect()
}

pub(crate) fn zone_of(settings: Settings, events: Vec<Event>) -> Zone {
    let mut zone = Zone::new(settings);
    zone.apply(events);
    zone
}

/// What was found, as lines of the table.
fn show(found: &Found) -> Vec<String> {
    let line = |record: &Record| record.to_string().trim_end().to_owned();
    match found {
        Found::Records {
            answers,
            additionals,
        } => {
            let answers = answers.iter().map(|record| format!("    {}", line(record)));
            let additionals = additionals
                .iter()
                .map(|record| format!("  + {}", line(record)));
            answers.chain(additionals).collect()
        }
        Found::Alias(record) => vec![format!("    ALIAS {}", line(record))],
        Found::NoData => vec!["    NODATA".to_owned()],
        Found::NoName => vec!["    NXDOMAIN".to_owned()],
        Found::Foreign => vec!["    FOREIGN".to_owned()],
        Found::Unknown => vec!["    SERVFAIL".to_owned()],
    }
}

fn ask(zone: &Zone, asked: &str, kind: RecordType) -> String {
    let lines = show(&zone.resolve(&name(asked), kind));
    lines
        .iter()
        .map(|line| line.trim())
        .collect::<Vec<_>>()
        .join("\n")
}
