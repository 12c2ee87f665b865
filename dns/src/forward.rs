//! Names that are not the cluster's: asked of other servers.

mod answer;
mod exchange;
mod settings;

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::Name;

pub use answer::Reply;
pub use settings::{CacheSettings, Settings, Timeouts};

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nobody may be asked for such a name.
    #[error("no upstream for {0}: name one with --upstream, or in the host's resolv.conf")]
    NoUpstream(Name),
    /// The limit is reached.
    #[error(
        "{0} queries wait for upstreams already; raise max_concurrent if the upstreams are well"
    )]
    Busy(usize),
    /// Nobody answered.
    #[error("{0}")]
    Unanswered(Arc<str>),
}

impl Failure {
    /// What the client is told.
    pub fn code(&self) -> ResponseCode {
        ResponseCode::ServFail
    }
}

/// The forwarder.
pub struct Forward {
    settings: ArcSwap<Settings>,
}

impl Forward {
    /// Registers its metrics with `registry`. Errors: a series of the same name is there already.
    pub fn new(
        settings: Settings,
        _registry: &prometheus::Registry,
    ) -> prometheus::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            settings: ArcSwap::from_pointee(settings),
        }))
    }

    /// Takes new settings. Queries on their way end as they began.
    pub fn reload(&self, settings: Settings) {
        self.settings.store(Arc::new(settings));
    }

    /// Searches for loops and looks after upstreams that fail, for ever. Start it once the listeners answer.
    pub async fn run(self: Arc<Self>) {
        std::future::pending::<()>().await;
    }

    /// Whether a question is our own search for loops, which came back. The upstream that brought it is then out.
    /// Call it for questions of type HINFO; answer with REFUSED if so.
    pub fn is_probe(&self, _name: &Name) -> bool {
        false
    }

    /// Asks the upstreams that are there for the name. The answer has the name's case as asked. Call it inside a tokio
    /// runtime: the question goes on when the caller is gone, so that others profit from its answer.
    pub async fn resolve(
        self: &Arc<Self>,
        query: &Query,
        dnssec_ok: bool,
    ) -> Result<Reply, Failure> {
        let settings = self.settings.load_full();
        let mut servers: &Vec<SocketAddr> = &settings.upstreams;
        let mut labels = 0;
        for (domain, stub) in &settings.stubs {
            if domain.zone_of(&query.name) && domain.num_labels() >= labels {
                labels = domain.num_labels();
                servers = stub;
            }
        }
        let mut why = Failure::NoUpstream(query.name.clone());
        for server in servers
            .iter()
            .filter(|server| !settings.own.contains(server))
        {
            let asked = exchange::ask(*server, query, dnssec_ok, |_| {});
            let told = tokio::time::timeout(settings.timeouts.first, asked).await;
            let reply = told
                .unwrap_or(Err(exchange::Fault::Silent))
                .and_then(|message| answer::distil(message, query, dnssec_ok));
            match reply {
                Ok(reply) => return Ok(reply),
                Err(fault) => why = Failure::Unanswered(format!("{server}: {fault}").into()),
            }
        }
        Err(why)
    }
}
