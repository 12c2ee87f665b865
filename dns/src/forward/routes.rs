//! Who is asked for which name, as one set of settings has it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use hickory_proto::rr::Name;
use tracing::warn;

use super::cache::Cache;
use super::flights::Flights;
use super::settings::Settings;
use super::upstream::Upstream;

/// A domain and its servers.
pub(super) struct Route {
    pub domain: Name,
    pub upstreams: Vec<Arc<Upstream>>,
}

/// All of them, and the questions on their way.
pub(super) struct Routes {
    pub settings: Settings,
    /// The longest domain first; the last is the root.
    pub all: Vec<Route>,
    pub flights: Arc<Flights>,
    pub cache: Arc<Mutex<Cache>>,
}

impl Routes {
    /// What `before` knows of servers goes on to hold. So does what it remembers of answers if the servers are the same.
    pub(super) fn new(settings: Settings, before: Option<&Self>) -> Self {
        let mut known: BTreeMap<SocketAddr, Arc<Upstream>> = before
            .into_iter()
            .flat_map(Self::upstreams)
            .map(|one| (one.address, Arc::clone(one)))
            .collect();
        let mut route = |domain: &Name, servers: &[SocketAddr]| {
            Route {
            domain: domain.to_lowercase(),
            upstreams: servers
                .iter()
                .filter(|server| {
                    let own = is_own(&settings.own, **server);
                    if own {
                        warn!(
                            "upstream {server} for {domain} is this server itself and is not asked; name another"
                        );
                    }
                    !own
                })
                .map(|server| {
                    let new = || Arc::new(Upstream::new(*server));
                    Arc::clone(known.entry(*server).or_insert_with(new))
                })
                .collect(),
        }
        };
        let mut all: Vec<Route> = settings
            .stubs
            .iter()
            .map(|(domain, servers)| route(domain, servers))
            .collect();
        all.push(route(&Name::root(), &settings.upstreams));
        all.sort_by_key(|route| std::cmp::Reverse(route.domain.iter().len()));
        let cache = before
            .filter(|before| {
                before.settings.upstreams == settings.upstreams
                    && before.settings.stubs == settings.stubs
                    && before.settings.own == settings.own
                    && before.settings.cache == settings.cache
            })
            .map_or_else(
                || Arc::new(Mutex::new(Cache::new(settings.cache.clone()))),
                |before| Arc::clone(&before.cache),
            );
        Self {
            settings,
            all,
            flights: Arc::default(),
            cache,
        }
    }

    /// The servers for a name.
    pub(super) fn servers(&self, name: &Name) -> &[Arc<Upstream>] {
        self.all
            .iter()
            .find(|route| route.domain.zone_of(name))
            .map_or(&[], |route| &route.upstreams)
    }

    /// Every server; one that is named twice is there twice.
    pub(super) fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.all.iter().flat_map(|route| &route.upstreams)
    }
}

/// Whether a server is one of the addresses that we listen on; `0.0.0.0` and `::` stand for the host's loopback ones.
fn is_own(own: &[SocketAddr], server: SocketAddr) -> bool {
    own.iter().any(|own| {
        own.port() == server.port()
            && (own.ip().to_canonical() == server.ip().to_canonical()
                || (own.ip().is_unspecified() && server.ip().to_canonical().is_loopback()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn server(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 53))
    }

    fn asked(routes: &Routes, text: &str) -> Vec<SocketAddr> {
        let servers = routes.servers(&name(text));
        servers.iter().map(|one| one.address).collect()
    }

    fn settings() -> Settings {
        Settings {
            upstreams: vec![server(1), server(9)],
            stubs: vec![
                (name("corp.example."), vec![server(2)]),
                (name("Deep.corp.example."), vec![server(3)]),
                (name("nobody.example."), vec![]),
            ],
            own: vec![server(9)],
            ..Settings::default()
        }
    }

    #[test]
    fn the_longest_domain_decides_whatever_the_case() {
        let routes = Routes::new(settings(), None);
        assert_eq!(asked(&routes, "corp.example."), [server(2)]);
        assert_eq!(asked(&routes, "a.b.CORP.example."), [server(2)]);
        assert_eq!(asked(&routes, "x.deep.Corp.example."), [server(3)]);
        assert_eq!(asked(&routes, "xcorp.example."), [server(1)]);
        assert_eq!(asked(&routes, "."), [server(1)]);
        assert!(asked(&routes, "www.nobody.example.").is_empty());
    }

    #[test]
    fn its_own_addresses_are_no_upstreams() {
        let any = [SocketAddr::from(([0, 0, 0, 0], 53))];
        assert!(is_own(&any, "127.0.0.53:53".parse().unwrap()));
        assert!(is_own(&any, "[::ffff:127.0.0.1]:53".parse().unwrap()));
        assert!(!is_own(&any, "127.0.0.53:54".parse().unwrap()));
        assert!(!is_own(&any, server(1)));
        assert!(is_own(&[server(1)], server(1)));
    }

    #[test]
    fn a_reload_keeps_what_is_known() {
        let first = Routes::new(settings(), None);
        first.servers(&name("x.")).iter().for_each(|one| {
            one.set_looping(true);
        });
        let same = Routes::new(settings(), Some(&first));
        assert!(Arc::ptr_eq(&first.cache, &same.cache));
        assert!(same.servers(&name("x."))[0].rank().is_none());
        let mut other = settings();
        other.stubs.clear();
        let other = Routes::new(other, Some(&same));
        assert!(
            !Arc::ptr_eq(&first.cache, &other.cache),
            "answers of others"
        );
        assert!(other.servers(&name("x."))[0].rank().is_none());
    }
}
