//! `host-local`: gives out addresses of ranges, each kept as a file on this host.
//!
//! Files, locks and order are those of the reference plugin (containernetworking/plugins, 1.9), so
//! that either binary can release what the other reserved. Invariant: a reservation is made and
//! written under the store's lock, so one that is found empty under the lock is the trace of a
//! crash and belongs to nobody.

mod allocate;
mod config;
mod range;
mod resolv_conf;
mod store;

use crate::cni::config::Attachment;
use crate::cni::{Call, CniResult, Error, IpConfig, Plugin, Result, code, with_undo};
use config::{Config, Location};
use std::collections::BTreeSet;
use store::{Holder, Reservation, Store};

/// The plugin.
pub struct HostLocal;

impl Plugin for HostLocal {
    fn name(&self) -> &'static str {
        "host-local"
    }

    fn add(&self, call: &Call) -> Result<CniResult> {
        let config = Config::load(call)?;
        let dns = match &config.resolv_conf {
            Some(path) => resolv_conf::read(path)?,
            None => crate::cni::Dns::default(),
        };
        let store = Store::open(&Location::load(call)?.directory)?;
        let reservations = store.observe()?;
        let holder = holder(call);
        let mut last = Vec::new();
        for set in 0..config.ranges.len() {
            last.push(store.last_reserved(set)?);
        }
        let allocations = allocate::plan(
            &config.ranges,
            &config.requested,
            &reservations,
            &last,
            &holder,
        )?;
        with_undo(|undo| {
            for (set, allocation) in allocations.iter().enumerate() {
                store.reserve(allocation.ip, &holder, set)?;
                let store = &store;
                undo.push(format!("release {}", allocation.ip), move || {
                    store.release(allocation.ip)
                });
            }
            Ok(())
        })?;
        Ok(CniResult {
            ips: allocations
                .iter()
                .map(|a| IpConfig::new(a.address(), Some(a.gateway)))
                .collect(),
            routes: config.routes,
            dns,
            ..CniResult::default()
        })
    }

    fn del(&self, call: &Call) -> Result<()> {
        // Ranges are not looked at: what was reserved is released however they changed since.
        let Some(store) = Store::open_existing(&Location::load(call)?.directory)? else {
            return Ok(());
        };
        let reservations = store.observe()?;
        store.release_all(held_by(&reservations, &holder(call)))
    }

    fn check(&self, call: &Call) -> Result<()> {
        Config::load(call)?;
        let missing = || {
            Error::generic(format!(
                "host-local: Failed to find address added by container {}",
                call.container_id
            ))
        };
        let store = Store::open_existing(&Location::load(call)?.directory)?.ok_or_else(missing)?;
        let reservations = store.observe()?;
        match held_by(&reservations, &holder(call)).first() {
            Some(_) => Ok(()),
            None => Err(missing()),
        }
    }

    fn status(&self, call: &Call) -> Result<()> {
        let config = Config::load(call)?;
        if let Some(path) = &config.resolv_conf {
            resolv_conf::read(path)?;
        }
        let Some(store) = Store::open_existing(&Location::load(call)?.directory)? else {
            return Ok(());
        };
        allocate::any_free(&config.ranges, &store.observe()?)
            .map_err(|e| Error::new(code::NOT_AVAILABLE, e.msg))
    }

    fn gc(&self, call: &Call) -> Result<()> {
        let valid = call.valid_attachments()?;
        let Some(store) = Store::open_existing(&Location::load(call)?.directory)? else {
            return Ok(());
        };
        store.release_all(stale(&store.observe()?, &valid))
    }
}

fn holder(call: &Call) -> Holder {
    Holder {
        container_id: call.container_id.clone(),
        ifname: Some(call.ifname.clone()),
    }
}

/// The addresses that a container's interface holds; failing that, those that a version which did
/// not write interface names reserved for the container.
fn held_by(reservations: &[Reservation], holder: &Holder) -> Vec<std::net::IpAddr> {
    let of = |wanted: &Holder| {
        reservations
            .iter()
            .filter(|r| r.holder.as_ref() == Some(wanted))
            .map(|r| r.ip)
            .collect::<Vec<_>>()
    };
    let exact = of(holder);
    if !exact.is_empty() {
        return exact;
    }
    of(&Holder {
        ifname: None,
        ..holder.clone()
    })
}

/// The addresses that no valid attachment holds.
fn stale(reservations: &[Reservation], valid: &BTreeSet<Attachment>) -> Vec<std::net::IpAddr> {
    let is_valid = |holder: &Holder| {
        valid.iter().any(|attachment| {
            attachment.container_id == holder.container_id
                && holder
                    .ifname
                    .as_ref()
                    .is_none_or(|ifname| *ifname == attachment.ifname)
        })
    };
    reservations
        .iter()
        .filter(|r| !r.holder.as_ref().is_some_and(is_valid))
        .map(|r| r.ip)
        .collect()
}

#[cfg(test)]
mod tests;
