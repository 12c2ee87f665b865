//! Following the external interface: its addresses, its MTU, its coming and going.

use super::{Node, Parts};
use crate::daemon::startup;
use crate::health::Part;
use crate::uplink;

impl Node<'_> {
    /// Takes up a change of the external interface. True when a full look was ordered.
    pub(super) async fn follow_uplink(&mut self) -> bool {
        let Parts {
            options,
            config,
            uplink: current,
            health,
            ..
        } = &self.parts;
        let found = uplink::observe(&mut self.netlink, &options.iface)
            .map_err(|error| error.to_string())
            .and_then(|host| {
                uplink::follow(&host, &options.iface, startup::families(config), current)
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
                return false;
            }
        };
        health.set(Part::Uplink, Ok(()));
        if uplink == *current && !self.unprepared {
            return false;
        }
        if uplink != *current {
            let announced = startup::announced(&uplink);
            tracing::info!(
                "external interface is now {}, MTU {}, announcing {announced}",
                uplink.name,
                uplink.mtu
            );
        }
        match self
            .parts
            .datapath
            .prepare(uplink.clone(), self.own.clone())
            .await
        {
            Ok(prepared) => {
                if prepared.mtu != self.parts.prepared.mtu {
                    tracing::warn!(
                        "Pods made from now on get MTU {}, before {}",
                        prepared.mtu,
                        self.parts.prepared.mtu
                    );
                }
                self.parts.prepared = prepared;
                self.unprepared = false;
            }
            Err(error) => {
                let why = format!("{error:#}");
                if self.parts.health.set(Part::Backend, Err(why.clone())) {
                    tracing::warn!("{why}; trying again");
                }
                self.unprepared = true;
                self.retry_later();
            }
        }
        self.parts.uplink = uplink;
        let outcome = self.tracker.set_rules(self.rules());
        self.log(&outcome);
        self.publish();
        self.reconcile("interface");
        true
    }
}
