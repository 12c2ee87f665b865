//! Search-path absorption: a query that a Pod's search list made is answered with what the last name of that list would
//! yield, in one trip.
//!
//! A kubelet gives Pods `search NS.svc.ZONE svc.ZONE ZONE` and the host's domains, with `ndots:5`: to find `example.com` a Pod
//! asks for `example.com.NS.svc.ZONE` first, and on, each time for both address families. The first of these tells what was
//! meant, provided that the client is a Pod of namespace NS. The names that the Pod's resolver would ask are then tried here,
//! in its order; the first that exists answers, behind a CNAME from the asked name.
//!
//! Whether a name exists does not depend on the type asked for, so both families find the same one. A name that exists as asked
//! is never touched: the search begins only after its NXDOMAIN.
//!
//! Pure: no I/O.

use hickory_proto::rr::Name;

/// The host's search domains that are tried, at most: each may cost a query upstream.
const HOST_DOMAINS: usize = 6;

/// The search list of this node's Pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// The cluster's domain.
    domain: Name,
    /// `svc.` and the domain.
    services: Name,
    /// The host's domains, which end a Pod's search list.
    host: Vec<Name>,
    /// A name with this many dots is tried as it is before the list.
    ndots: usize,
}

impl Search {
    /// The list of a kubelet's Pods: `domain` is the cluster's, `host` the search domains of the host, `ndots` what its Pods
    /// have in their resolv.conf (5 by a kubelet). Errors: the domain is too long to have names below it.
    pub fn new(
        domain: Name,
        host: Vec<Name>,
        ndots: usize,
    ) -> Result<Self, hickory_proto::ProtoError> {
        let services = domain.prepend_label("svc")?;
        let mut host = host;
        for name in &mut host {
            name.set_fqdn(true);
        }
        host.retain(|name| !name.is_root());
        host.truncate(HOST_DOMAINS);
        Ok(Self {
            domain,
            services,
            host,
            ndots,
        })
    }

    /// The names that come after `asked` in the search of a Pod of this namespace; none if its search did not make that name.
    pub fn rest(&self, asked: &Name, namespace: &str) -> Option<Vec<Name>> {
        let base = self.base(asked, namespace)?;
        let mut rest = Vec::with_capacity(3 + self.host.len());
        // A name that would be too long was never asked for by the resolver either.
        rest.extend(
            [&self.services, &self.domain]
                .into_iter()
                .chain(&self.host)
                .filter_map(|domain| base.clone().append_domain(domain).ok()),
        );
        // With this many dots it was asked for first, and did not exist.
        if usize::from(base.num_labels()) <= self.ndots {
            let mut alone = base;
            alone.set_fqdn(true);
            rest.push(alone);
        }
        Some(rest)
    }

    /// What was searched for: `asked` without `NAMESPACE.svc.ZONE`.
    fn base(&self, asked: &Name, namespace: &str) -> Option<Name> {
        let suffix = usize::from(self.services.num_labels()) + 1;
        let labels = usize::from(asked.num_labels())
            .checked_sub(suffix)
            .filter(|labels| *labels > 0)?;
        if !self.services.zone_of(asked)
            || !asked
                .iter()
                .nth(labels)?
                .eq_ignore_ascii_case(namespace.as_bytes())
        {
            return None;
        }
        let mut base = Name::from_labels(asked.iter().take(labels)).ok()?;
        base.set_fqdn(false);
        Some(base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn search(host: &[&str]) -> Search {
        Search::new(
            name("cluster.local."),
            host.iter().map(|domain| name(domain)).collect(),
            5,
        )
        .unwrap()
    }

    fn rest(search: &Search, asked: &str, namespace: &str) -> Option<Vec<String>> {
        Some(
            search
                .rest(&name(asked), namespace)?
                .iter()
                .map(Name::to_ascii)
                .collect(),
        )
    }

    #[test]
    fn the_rest_of_a_search_is_in_the_resolver_s_order() {
        let found = rest(
            &search(&["corp.example.", "example"]),
            "web.example.com.shop.svc.cluster.local.",
            "shop",
        )
        .unwrap();
        assert_eq!(
            found,
            [
                "web.example.com.svc.cluster.local.",
                "web.example.com.cluster.local.",
                "web.example.com.corp.example.",
                "web.example.com.example.",
                "web.example.com.",
            ]
        );
    }

    #[test]
    fn only_the_client_s_own_namespace_was_searched() {
        let search = search(&[]);
        assert_eq!(rest(&search, "web.shop.svc.cluster.local.", "other"), None);
        assert_eq!(rest(&search, "shop.svc.cluster.local.", "shop"), None);
        assert_eq!(rest(&search, "web.shop.pod.cluster.local.", "shop"), None);
        assert_eq!(rest(&search, "web.shop.svc.example.", "shop"), None);
        assert_eq!(rest(&search, "web.", "shop"), None);
        assert_eq!(rest(&search, ".", "shop"), None);
        assert!(rest(&search, "WEB.Shop.SVC.Cluster.Local.", "shop").is_some());
    }

    #[test]
    fn a_name_with_ndots_dots_was_asked_for_as_it_is_already() {
        let search = search(&[]);
        let last = |asked: &str| rest(&search, asked, "shop").unwrap().pop().unwrap();
        assert_eq!(
            last("a.b.c.d.e.shop.svc.cluster.local."),
            "a.b.c.d.e.",
            "four dots"
        );
        assert_eq!(
            last("a.b.c.d.e.f.shop.svc.cluster.local."),
            "a.b.c.d.e.f.cluster.local.",
            "five dots"
        );
    }

    #[test]
    fn names_that_would_be_too_long_are_left_out() {
        let label = "x".repeat(60);
        let search = search(&["a-domain-of-some-length.example."]);
        // 224 bytes, and 27 behind it: the asked name has 251 of the 255 that a name may have.
        let base = format!("{label}.{label}.{label}.{}", "x".repeat(39));
        let found = rest(&search, &format!("{base}.shop.svc.cluster.local."), "shop").unwrap();
        assert_eq!(found.len(), 3, "{found:?}");
    }
}
