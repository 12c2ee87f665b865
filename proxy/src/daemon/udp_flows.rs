//! The thread that forgets UDP flows to where a Service no longer is, off the path of the syncs.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;

use kernel::conntrack::{self, Tuple};

use crate::driver::PortChange;
use crate::metrics::Metrics;
use crate::model::{Family, Protocol};
use crate::stale::{self, Flow, FrontChange};

/// The handle of the thread; it ends when this is dropped.
pub struct UdpFlows {
    work: Sender<Work>,
}

struct Work {
    family: Family,
    changes: Vec<FrontChange>,
    local: BTreeSet<IpAddr>,
}

impl UdpFlows {
    /// Starts it, in the calling thread's network namespace.
    pub fn start(metrics: Arc<Metrics>) -> std::io::Result<Self> {
        let (work, waiting) = channel::<Work>();
        std::thread::Builder::new()
            .name("udp-flows".to_owned())
            .spawn(move || {
                while let Ok(work) = waiting.recv() {
                    forget(&work, &metrics);
                }
            })?;
        Ok(Self { work })
    }

    /// Has it look after a sync that changed these ports. `local` are the node's addresses.
    pub fn look(&self, family: Family, ports: Vec<PortChange>, local: BTreeSet<IpAddr>) {
        let changes: Vec<FrontChange> = ports
            .iter()
            .flat_map(|port| {
                let old = port.old.as_deref().map(Into::into);
                stale::changes(old, port.new.as_deref().map(Into::into))
            })
            .collect();
        if changes.is_empty() {
            return;
        }
        let work = Work {
            family,
            changes,
            local,
        };
        if self.work.send(work).is_err() {
            tracing::error!("the thread that forgets UDP flows is gone");
        }
    }
}

fn forget(work: &Work, metrics: &Metrics) {
    let since = Instant::now();
    let ports: BTreeSet<u16> = work.changes.iter().map(|change| change.port).collect();
    let mut flows = Vec::new();
    let ipv6 = work.family == Family::V6;
    // The table may be large, and few flows in it are to these ports.
    let listed = conntrack::flows(ipv6, Protocol::Udp.number(), |flow| {
        if ports.contains(&flow.original.destination.port()) {
            flows.push(Flow {
                protocol: Protocol::Udp,
                orig_src: flow.original.source,
                orig_dst: flow.original.destination,
                reply_src: flow.reply.source,
            });
        }
    });
    let stale: Vec<Tuple> = stale::plan(&work.changes, &work.local, flows)
        .into_iter()
        .map(|flow| Tuple {
            protocol: Protocol::Udp.number(),
            source: flow.orig_src,
            destination: flow.orig_dst,
        })
        .collect();
    let deleted = listed.and_then(|()| conntrack::delete(&stale));
    match deleted {
        Ok(0) => {}
        Ok(count) => tracing::debug!("{}: forgot {count} UDP flows", work.family.label()),
        Err(error) => tracing::warn!("{}: {error}", work.family.label()),
    }
    metrics.conntrack(work.family, since.elapsed(), stale.len());
}
