//! Names in a Pod: its host name, `/etc/hosts`, `/etc/resolv.conf`.

#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;

use super::spec;

/// What a resolver takes: servers, search domains, characters of the search line.
const SERVERS: usize = 3;
const SEARCHES: usize = 32;
const SEARCH_LENGTH: usize = 2048;
/// What a host name may have.
const HOSTNAME_LENGTH: usize = 63;
const FULL_NAME_LENGTH: usize = 64;

/// What of names the node decides.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// The cluster's servers; empty is none.
    pub servers: &'a [IpAddr],
    /// `cluster.local`
    pub domain: &'a str,
    /// The text of the node's own resolv.conf.
    pub resolv_conf: &'a str,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Resolver {
    servers: Vec<String>,
    searches: Vec<String>,
    options: Vec<String>,
}

/// The host name, and the Pod's full name if it has a subdomain and the host name is not that already.
///
/// # Errors
/// `setHostnameAsFQDN`, and the full name is too long.
pub fn hostname(pod: &Pod, domain: &str) -> Result<(String, Option<String>), String> {
    let pod_spec = spec::spec(pod);
    let own = pod_spec
        .and_then(|spec| spec.hostname.as_deref())
        .filter(|name| !name.is_empty());
    let mut name: String = own
        .unwrap_or_else(|| spec::name(pod))
        .chars()
        .take(HOSTNAME_LENGTH)
        .collect();
    name.truncate(name.trim_end_matches(['-', '.']).len());
    let subdomain = pod_spec
        .and_then(|spec| spec.subdomain.as_deref())
        .filter(|name| !name.is_empty());
    let full = subdomain
        .map(|subdomain| format!("{name}.{subdomain}.{}.svc.{domain}", spec::namespace(pod)));
    if pod_spec.and_then(|spec| spec.set_hostname_as_fqdn) == Some(true)
        && let Some(full) = &full
    {
        if full.len() > FULL_NAME_LENGTH {
            return Err(format!(
                "failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long ({FULL_NAME_LENGTH} characters is the max, {} characters requested)",
                full.len()
            ));
        }
        return Ok((full.clone(), None));
    }
    Ok((name, full))
}

/// `/etc/hosts` without the Pod's own line. `node`: the node's own file, for Pods in its network.
pub fn hosts(pod: &Pod, node: Option<&str>) -> String {
    let mut text = match node {
        Some(node) => format!(
            "# Kubernetes-managed hosts file (host network).\n{}\n",
            node.trim_end()
        ),
        None => "# Kubernetes-managed hosts file.\n\
            127.0.0.1\tlocalhost\n\
            ::1\tlocalhost ip6-localhost ip6-loopback\n\
            fe00::0\tip6-localnet\n\
            fe00::0\tip6-mcastprefix\n\
            fe00::1\tip6-allnodes\n\
            fe00::2\tip6-allrouters\n"
            .to_owned(),
    };
    let aliases = spec::spec(pod)
        .and_then(|spec| spec.host_aliases.as_deref())
        .unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
    }
    for alias in aliases {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        // Writing to a String does not fail.
        let _ = writeln!(text, "{}\t{names}", alias.ip);
    }
    text
}

/// `/etc/resolv.conf`, and what had to be left out or changed, as pairs of an event's reason and message.
pub fn resolv_conf(pod: &Pod, site: Site<'_>) -> (String, Vec<(&'static str, String)>) {
    let mut complaints = Vec::new();
    let host = parse(site.resolv_conf);
    let policy = spec::spec(pod).and_then(|spec| spec.dns_policy.as_deref());
    let mut resolver = match policy.unwrap_or("ClusterFirst") {
        "None" => Resolver::default(),
        "Default" => host,
        "ClusterFirst" if spec::host_network(pod) => host,
        // That there are none is told of the node, once.
        _ if site.servers.is_empty() => host,
        _ => cluster(pod, site, host),
    };
    amend(pod, &mut resolver);
    limit(&mut resolver, &mut complaints);
    (render(&resolver), complaints)
}

fn cluster(pod: &Pod, site: Site<'_>, host: Resolver) -> Resolver {
    let domain = site.domain;
    let mut searches = vec![
        format!("{}.svc.{domain}", spec::namespace(pod)),
        format!("svc.{domain}"),
        domain.to_owned(),
    ];
    searches.extend(host.searches);
    Resolver {
        servers: site.servers.iter().map(ToString::to_string).collect(),
        searches: unique(searches),
        options: vec!["ndots:5".to_owned()],
    }
}

/// `dnsConfig`: adds servers and searches; its options replace those of the same name.
fn amend(pod: &Pod, resolver: &mut Resolver) {
    let Some(config) = spec::spec(pod).and_then(|spec| spec.dns_config.as_ref()) else {
        return;
    };
    let servers = std::mem::take(&mut resolver.servers);
    resolver.servers = unique(
        servers
            .into_iter()
            .chain(config.nameservers.iter().flatten().cloned()),
    );
    let searches = std::mem::take(&mut resolver.searches);
    resolver.searches = unique(
        searches
            .into_iter()
            .chain(config.searches.iter().flatten().cloned()),
    );
    for option in config.options.iter().flatten() {
        let Some(name) = &option.name else { continue };
        resolver
            .options
            .retain(|known| known.split(':').next() != Some(name));
        resolver.options.push(match option.value.as_deref() {
            Some(value) if !value.is_empty() => format!("{name}:{value}"),
            _ => name.clone(),
        });
    }
}

fn limit(resolver: &mut Resolver, complaints: &mut Vec<(&'static str, String)>) {
    if resolver.servers.len() > SERVERS {
        resolver.servers.truncate(SERVERS);
        complaints.push((
            "DNSConfigForming",
            format!(
                "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
                resolver.servers.join(" ")
            ),
        ));
    }
    let before = resolver.searches.len();
    resolver.searches.truncate(SEARCHES);
    while resolver.searches.join(" ").len() > SEARCH_LENGTH {
        resolver.searches.pop();
    }
    if resolver.searches.len() < before {
        complaints.push((
            "DNSConfigForming",
            format!(
                "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
                resolver.searches.join(" ")
            ),
        ));
    }
}

fn parse(text: &str) -> Resolver {
    let mut resolver = Resolver::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let keyword = words.next();
        let words = words.map(str::to_owned);
        match keyword {
            Some("nameserver") => resolver.servers.extend(words.take(1)),
            // The last one counts.
            Some("search" | "domain") => {
                resolver.searches = words.filter(|word| word != ".").collect()
            }
            Some("options") => resolver.options.extend(words),
            _ => {}
        }
    }
    resolver
}

fn render(resolver: &Resolver) -> String {
    let mut text = String::new();
    if !resolver.searches.is_empty() {
        text.push_str(&format!("search {}\n", resolver.searches.join(" ")));
    }
    for server in &resolver.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !resolver.options.is_empty() {
        text.push_str(&format!("options {}\n", resolver.options.join(" ")));
    }
    text
}

fn unique(words: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut kept = Vec::new();
    for word in words {
        if !kept.contains(&word) {
            kept.push(word);
        }
    }
    kept
}
