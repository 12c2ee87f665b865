//! What holds whatever is told and asked.

use std::collections::BTreeSet;

use hickory_proto::rr::RData;
use proptest::prelude::*;

use super::oracle::{Objects, arpa};
use super::samples::{
    CLUSTER_IPS, ENDPOINTS, HOSTNAMES, NAMESPACES, PORTS, PROTOCOLS, SERVICES, event, ip,
};
use super::*;

const KINDS: [RecordType; 7] = [
    RecordType::A,
    RecordType::AAAA,
    RecordType::SRV,
    RecordType::CNAME,
    RecordType::PTR,
    RecordType::TXT,
    RecordType::ANY,
];

/// Names below `svc.<zone>`, and reverse names: all that the samples can make, and some more.
fn questions() -> Vec<String> {
    let mut names = vec!["none.svc.cluster.local.".to_owned()];
    for namespace in NAMESPACES {
        names.push(format!("{namespace}.svc.cluster.local."));
        for service in SERVICES.into_iter().chain(["none"]) {
            let name = format!("{service}.{namespace}.svc.cluster.local.");
            let dashed = ENDPOINTS.map(|ip| ip.replace(['.', ':'], "-"));
            let labels = HOSTNAMES.map(str::to_owned).into_iter().chain(dashed);
            names.extend(labels.map(|label| format!("{label}.{name}")));
            for (protocol, _) in PROTOCOLS {
                names.push(format!("{protocol}.{name}"));
                let ports = PORTS.into_iter().chain(["none"]);
                names.extend(ports.map(|port| format!("_{port}.{protocol}.{name}")));
            }
            names.push(name);
        }
    }
    names.extend(
        ENDPOINTS
            .into_iter()
            .chain(CLUSTER_IPS)
            .map(|text| arpa(ip(text))),
    );
    names
}

/// The data of records as the oracle writes it.
fn said(record: &Record) -> String {
    match &record.data {
        RData::SRV(srv) => format!("{} {}", srv.port, srv.target.to_string().replace('\\', "")),
        RData::PTR(name) => name.0.to_string().replace('\\', ""),
        RData::CNAME(name) => name.0.to_string(),
        data => data.to_string(),
    }
}

fn all_answers(zone: &Zone) -> Vec<(String, RecordType, Found)> {
    let mut answers = Vec::new();
    for question in questions() {
        for kind in KINDS {
            answers.push((question.clone(), kind, zone.resolve(&name(&question), kind)));
        }
    }
    for pod in [
        "10-0-0-1.shop.pod",
        "fd00--1.lab.pod",
        "shop.pod",
        "lab.pod",
    ] {
        let question = format!("{pod}.cluster.local.");
        let found = zone.resolve(&name(&question), RecordType::A);
        answers.push((question, RecordType::A, found));
    }
    answers
}

/// The endpoints of the samples are in no own network, so that their reverse names are others' until they exist.
fn verified() -> Settings {
    Settings {
        pods: PodMode::Verified,
        ..settings()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_zone_is_what_the_specification_says(events in prop::collection::vec(event(), 0..40)) {
        let listed = ALL.map(Event::Listed);
        let events: Vec<_> = events.into_iter().chain(listed).collect();
        let objects = Objects::after(&events);
        let zone = zone_of(verified(), events);
        let expected = objects.records();
        let names: BTreeSet<_> = expected.keys().map(|(name, _)| name.clone()).chain(objects.namespaces()).collect();
        let exists = |name: &str| names.iter().any(|known| known == name || known.ends_with(&format!(".{name}")));
        for (question, kind, found) in all_answers(&zone).into_iter().filter(|(name, ..)| !name.contains(".pod.")) {
            let records = expected.get(&(question.clone(), kind)).cloned();
            let alias = expected.get(&(question.clone(), RecordType::CNAME));
            let why = format!("{question} {kind}: {found:?}");
            match (found, records) {
                (Found::Records { answers, additionals }, Some(records)) => {
                    let answered: BTreeSet<_> = answers.iter().map(said).collect();
                    prop_assert_eq!(answers.len(), answered.len(), "twice: {}", why);
                    prop_assert_eq!(answered, records, "{}", why);
                    for record in answers.iter() {
                        prop_assert!(record.name.eq_case(&name(&question)), "{}", why);
                        prop_assert_eq!(record.ttl, 5);
                        if let RData::SRV(srv) = &record.data {
                            prop_assert_eq!(srv.priority, 0);
                            let weight = u16::try_from(100 / answers.len()).unwrap();
                            prop_assert_eq!(srv.weight, weight);
                            prop_assert!(additionals.iter().any(|record| record.name == srv.target), "{}", why);
                        }
                    }
                    for record in &additionals {
                        match zone.resolve(&record.name, record.record_type()) {
                            Found::Records { answers, .. } => prop_assert!(answers.contains(record), "{}", why),
                            other => prop_assert!(false, "{}: additional is {:?}", why, other),
                        }
                    }
                }
                (Found::Alias(record), None) => {
                    let alias = alias.cloned().unwrap_or_default();
                    prop_assert_eq!(BTreeSet::from([said(&record)]), alias, "{}", why);
                }
                (Found::NoData, None) => prop_assert!(exists(&question), "{}", why),
                (Found::NoName, None) => prop_assert!(!exists(&question), "{}", why),
                (Found::Foreign, None) => prop_assert!(question.ends_with(".arpa.") && !exists(&question), "{}", why),
                (_, records) => prop_assert!(false, "{}, expected {:?}", why, records),
            }
        }
        // Every name that exists was asked for.
        let asked: BTreeSet<_> = questions().into_iter().collect();
        for (name, _) in expected.keys() {
            prop_assert!(asked.contains(name), "{}", name);
        }
    }

    #[test]
    fn any_order_of_news_ends_in_the_same_zone(
        events in prop::collection::vec(event(), 0..40),
        cuts in prop::collection::vec(0..40_usize, 0..4),
        order in any::<prop::sample::Index>(),
    ) {
        let mut zone = Zone::new(verified());
        let mut rest = events.clone();
        for cut in cuts {
            zone.apply(rest.drain(..cut.min(rest.len())).collect());
        }
        zone.apply(rest);
        let objects = Objects::after(&events);
        let mut anew = objects.events();
        let lists = anew.split_off(anew.len() - objects.listed.len());
        if !anew.is_empty() {
            let middle = order.index(anew.len());
            anew.rotate_left(middle);
        }
        anew.extend(lists);
        let anew = zone_of(verified(), anew);
        prop_assert_eq!(zone.counts(), anew.counts());
        prop_assert_eq!(all_answers(&zone), all_answers(&anew));
        let again = zone_of(verified(), zone.told().collect());
        prop_assert_eq!(all_answers(&zone), all_answers(&again));
        for kind in ALL {
            zone.apply(vec![Event::Restarted(kind), Event::Listed(kind)]);
        }
        prop_assert!(zone.store.is_empty());
    }

    #[test]
    fn the_reverse_of_forward_holds(events in prop::collection::vec(event(), 0..40)) {
        let zone = zone_of(verified(), events.into_iter().chain(ALL.map(Event::Listed)).collect());
        for question in questions() {
            for kind in [RecordType::A, RecordType::AAAA] {
                let Found::Records { answers, .. } = zone.resolve(&name(&question), kind) else {
                    continue;
                };
                for record in answers {
                    let ip = record.data.ip_addr().unwrap();
                    let Found::Records { answers, .. } = zone.resolve(&Name::from(ip), RecordType::PTR) else {
                        return Err(TestCaseError::fail(format!("{question}: {ip} has no name")));
                    };
                    for reverse in answers {
                        let RData::PTR(target) = reverse.data else {
                            return Err(TestCaseError::fail(format!("{ip}: {reverse:?}")));
                        };
                        let Found::Records { answers, .. } = zone.resolve(&target.0, kind) else {
                            return Err(TestCaseError::fail(format!("{} has no address", target.0)));
                        };
                        prop_assert!(answers.iter().any(|record| record.data.ip_addr() == Some(ip)));
                    }
                }
            }
        }
    }

    #[test]
    fn any_name_can_be_asked(
        labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..12), 0..8),
        words in prop::collection::vec(prop::sample::select(vec![
            "svc", "pod", "dns", "shop", "web", "_tcp", "_http", "10-0-0-1", "1", "f", "--", "-", "256",
        ]), 0..5),
        end in prop::sample::select(vec!["cluster.local", "Cluster.Local", "in-addr.arpa", "ip6.arpa", "arpa", "local", ""]),
        kind in any::<u16>(),
        events in prop::collection::vec(event(), 0..10),
    ) {
        let zone = zone_of(settings(), events.into_iter().chain(ALL.map(Event::Listed)).collect());
        let ends = end.split('.').filter(|label| !label.is_empty()).map(str::as_bytes);
        let labels = labels.iter().map(Vec::as_slice).chain(words.iter().map(|word| word.as_bytes())).chain(ends);
        if let Ok(asked) = Name::from_labels(labels) {
            let found = zone.resolve(&asked, RecordType::from(kind));
            let _ = zone.soa_for(&asked);
            prop_assert!(found != Found::Foreign || !name("cluster.local").zone_of(&asked));
            prop_assert!(found != Found::Unknown);
        }
    }
}
