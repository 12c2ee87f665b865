//! Names of Pods by their addresses.

use std::net::IpAddr;

use hickory_proto::rr::{Name, RecordType};

use super::{Found, PodMode, Zone, labels, records};
use crate::model::Kind;

impl Zone {
    /// A name below `pod.<zone>`; `rest` from there outwards.
    pub(super) fn pod_form(&self, asked: &Name, rest: &[&str], kind: RecordType) -> Found {
        match (self.settings.pods, rest) {
            (PodMode::Disabled, _) => Found::NoName,
            (PodMode::Insecure, [_]) => Found::NoData,
            (PodMode::Insecure, [_, label]) => match labels::dashed(label) {
                Some(ip) => records::few_addresses(asked, kind, self.settings.ttl, &[ip]),
                None => Found::NoName,
            },
            (PodMode::Insecure, _) => Found::NoName,
            (PodMode::Verified, _) if !self.store.is_listed(Kind::Pods) => Found::Unknown,
            (PodMode::Verified, [namespace]) => match self.store.namespace(namespace) {
                Some(_) => Found::NoData,
                None => Found::NoName,
            },
            (PodMode::Verified, [namespace, label]) => {
                let there = |ip: &IpAddr| {
                    self.store
                        .pods_at(*ip)
                        .any(|pod| *pod.namespace == **namespace)
                };
                match labels::dashed(label).filter(there) {
                    Some(ip) => records::few_addresses(asked, kind, self.settings.ttl, &[ip]),
                    None => Found::NoName,
                }
            }
            (PodMode::Verified, _) => Found::NoName,
        }
    }
}
