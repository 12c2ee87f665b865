//! Following the external interface: its addresses, its MTU, its coming and going.

use super::{Node, Parts};
use crate::daemon::datapath::{Preparation, Prepared};
use crate::daemon::startup;
use crate::health::Part;
use crate::uplink::{self, Uplink};

/// A changed external interface that the backend is being prepared for.
pub(super) struct Preparing {
    uplink: Uplink,
    preparation: Preparation,
}

/// Waits for the preparation under way, for ever without one.
pub(super) async fn outcome(preparing: &mut Option<Preparing>) -> anyhow::Result<Prepared> {
    match preparing {
        Some(preparing) => preparing.preparation.outcome().await,
        None => std::future::pending().await,
    }
}

impl Node<'_> {
    /// Looks at the external interface. True when the backend is being prepared for a change of it:
    /// a full look at the data path will follow.
    pub(super) fn follow_uplink(&mut self) -> bool {
        let Parts {
            options,
            config,
            uplink: current,
            health,
            ..
        } = &self.parts;
        let preparing = self.preparing.as_ref().map(|preparing| &preparing.uplink);
        let latest = preparing.unwrap_or(current);
        let found = uplink::observe(&mut self.netlink, &options.iface)
            .map_err(|error| error.to_string())
            .and_then(|host| {
                uplink::follow(&host, &options.iface, startup::families(config), latest)
                    .map_err(|e| e.to_string())
            });
        let uplink = match found {
            Ok(uplink) => uplink,
            Err(why) => {
                if health.set(Part::Uplink, Err(why.clone())) {
                    tracing::warn!(
                        "external interface: {why}; keeping {} as it was",
                        current.name
                    );
                }
                self.uplink_lost = true;
                if self.retry_at.is_none() {
                    self.retry_later();
                }
                return false;
            }
        };
        health.set(Part::Uplink, Ok(()));
        self.uplink_lost = false;
        if uplink == *latest && (preparing.is_some() || self.unprepared.is_none()) {
            return preparing.is_some();
        }
        if uplink != *latest {
            let announced = startup::announced(&uplink);
            tracing::info!(
                "external interface is now {}, MTU {}, announcing {announced}",
                uplink.name,
                uplink.mtu
            );
        }
        let preparation = self
            .parts
            .datapath
            .prepare(uplink.clone(), self.own.clone());
        self.preparing = Some(Preparing {
            uplink,
            preparation,
        });
        true
    }

    /// The backend stands on the new external interface, or cannot yet.
    pub(super) fn take_prepared(&mut self, outcome: anyhow::Result<Prepared>) {
        let Some(Preparing { uplink, .. }) = self.preparing.take() else {
            return;
        };
        match outcome {
            Ok(prepared) => {
                if prepared.mtu != self.parts.prepared.mtu {
                    tracing::warn!(
                        "Pods made from now on get MTU {}, before {}",
                        prepared.mtu,
                        self.parts.prepared.mtu
                    );
                }
                self.parts.prepared = prepared;
                self.unprepared = None;
            }
            Err(error) => {
                let why = format!("{error:#}");
                if self.unprepared.as_ref() != Some(&why) {
                    tracing::warn!("{why}; trying again");
                }
                self.unprepared = Some(why);
                self.retry_later();
            }
        }
        self.show(Part::Backend);
        self.parts.uplink = uplink;
        let outcome = self.tracker.set_rules(self.rules());
        self.log(&outcome);
        self.publish();
        self.reconcile("interface");
    }
}
