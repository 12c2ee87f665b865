//! One watch stream carrying two watches: the subnets and the network configuration.

use etcd_client::{Client, EventType, WatchOptions, WatchStream};

use super::{connect, entry};
use crate::lease::store::{Batch, Error, Event, LeaseWatch};

/// An open stream; closing it ends both watches.
pub struct EtcdWatch {
    stream: WatchStream,
    prefix: String,
    config: String,
}

impl EtcdWatch {
    /// Opens the stream; the first event has at least this revision.
    pub(super) async fn open(
        client: Client,
        prefix: String,
        config: String,
        revision: i64,
    ) -> Result<Self, etcd_client::Error> {
        let subnets = WatchOptions::new()
            .with_prefix()
            .with_start_revision(revision);
        let mut stream = client
            .watch_client()
            .watch(prefix.clone(), Some(subnets))
            .await?;
        let single = WatchOptions::new().with_start_revision(revision);
        stream.watch(config.clone(), Some(single)).await?;
        Ok(Self {
            stream,
            prefix,
            config,
        })
    }

    fn event(&self, event: &etcd_client::Event) -> Option<Event> {
        let kv = event.kv()?;
        let deleted = event.event_type() == EventType::Delete;
        if kv.key() == self.config.as_bytes() {
            let text = (!deleted).then(|| String::from_utf8_lossy(kv.value()).into_owned());
            return Some(Event::Config(text));
        }
        if deleted {
            let key = String::from_utf8_lossy(kv.key())
                .strip_prefix(&self.prefix)?
                .to_owned();
            return Some(Event::Delete { key });
        }
        entry(kv, &self.prefix).map(Event::Put)
    }
}

impl LeaseWatch for EtcdWatch {
    async fn next(&mut self) -> Result<Batch, Error> {
        let what = format!("watch {}", self.prefix);
        let response = match self.stream.message().await {
            Ok(Some(response)) => response,
            Ok(None) => return Err(Error::Unavailable(format!("{what}: the stream ended"))),
            Err(error) => return Err(connect::translate(&what, &error)),
        };
        if response.compact_revision() > 0 {
            let oldest = response.compact_revision();
            return Err(Error::Compacted(format!(
                "{what}: compacted up to revision {oldest}"
            )));
        }
        if response.canceled() {
            return Err(Error::Refused(format!(
                "{what}: cancelled: {}",
                response.cancel_reason()
            )));
        }
        let events: Vec<Event> = response
            .events()
            .iter()
            .filter_map(|event| self.event(event))
            .collect();
        // Only the subnets' own events count: the other watch may be ahead, and a response without
        // events carries the store's revision, which may lie beyond events not yet sent.
        let of_subnets = response
            .events()
            .iter()
            .filter_map(|event| event.kv())
            .filter(|kv| kv.key().starts_with(self.prefix.as_bytes()));
        let last = of_subnets.map(|kv| kv.mod_revision()).max();
        Ok(Batch {
            events,
            revision: last.unwrap_or_default(),
        })
    }
}
