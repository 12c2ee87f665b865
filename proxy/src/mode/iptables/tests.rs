//! The planner: packets through its rules, and histories against plans from scratch.

mod golden;
mod histories;

use std::collections::BTreeSet;

use super::{Options, trace::Chains};
use crate::{model::Family, trace::cases};

#[test]
fn many_services_lead_to_the_same_endpoints_as_one() {
    for family in Family::ALL {
        for case in cases::all(family).iter().step_by(11) {
            let mut wanted = case.wanted.clone();
            cases::crowd(&mut wanted, 500);
            let chains = Chains::planned(&wanted, &Options::default());
            let outcome = chains.trace(&case.packet).unwrap();
            case.check(&outcome);
            assert!(outcome.steps.len() < 40, "{}", outcome.steps.join("\n"));
        }
    }
}

#[test]
fn a_service_is_shown_with_all_its_rules_and_no_others() {
    let case = cases::all(Family::V4).swap_remove(0);
    let mut wanted = case.wanted.clone();
    cases::crowd(&mut wanted, 300);
    let port = cases::port(crate::model::Protocol::Tcp);
    let chains = Chains::planned(&wanted, &Options::default());
    let alone: BTreeSet<_> = Chains::planned(&case.wanted, &Options::default())
        .of(&port)
        .into_iter()
        .map(|rule| rule.split_once(" -A ").unwrap().1.to_owned())
        .map(|rule| rule.split_once(' ').unwrap().1.to_owned())
        .collect();
    let shown: BTreeSet<_> = chains
        .of(&port)
        .into_iter()
        .map(|rule| rule.split_once(" -A ").unwrap().1.to_owned())
        .map(|rule| rule.split_once(' ').unwrap().1.to_owned())
        .collect();
    assert!(alone.len() > 10);
    assert_eq!(shown.len(), alone.len(), "{shown:#?}");
}

#[test]
fn packets_go_where_they_must() {
    for family in Family::ALL {
        let cases = cases::all(family);
        assert!(cases.len() > 50);
        for case in cases {
            let chains = Chains::planned(&case.wanted, &Options::default());
            case.check(&chains.trace(&case.packet).unwrap());
        }
    }
}
