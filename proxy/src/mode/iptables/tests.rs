//! The planner: packets through its rules, and histories against plans from scratch.

mod golden;
mod histories;

use super::{Options, trace::Chains};
use crate::{model::Family, trace::cases};

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
