//! The cluster DNS as a part of the node, and what Pods are told of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::bail;
use controllers::cluster_dns::SERVES;
use dns::listen::Sockets;
use dns::{config, daemon, local};

use super::{Site, show};
use crate::parts::Part;
use crate::server::cluster_dns;

/// A value of `--cluster-dns`: an address, or none.
///
/// # Errors
/// It is neither.
pub fn server(text: &str) -> Result<Given, String> {
    let wrong = |_| "an address is wanted, or \"\"".to_owned();
    let address = (!text.is_empty()).then(|| text.parse().map_err(wrong));
    address.transpose().map(Given)
}

/// What `--cluster-dns` says.
#[derive(Clone, Copy, Debug)]
pub struct Given(Option<IpAddr>);

/// Where Pods ask: the server on their node, and Service `kube-dns` while that is away.
pub fn servers(site: &Site) -> Vec<IpAddr> {
    let arguments = &site.arguments;
    if !arguments.cluster_dns.is_empty() {
        return arguments
            .cluster_dns
            .iter()
            .filter_map(|given| given.0)
            .collect();
    }
    let own = (!arguments.no_dns).then_some(local::ADDRESS);
    own.into_iter()
        .chain(cluster_dns(&arguments.service_cidr))
        .collect()
}

/// Labels of the Node: whether it serves names.
pub fn labels(site: &Site) -> BTreeMap<String, String> {
    let serves = !site.arguments.no_dns;
    BTreeMap::from([(SERVES.to_owned(), serves.to_string())])
}

/// The server. Its sockets outlive a restart of the part: what was asked meanwhile is answered then.
pub fn part(site: Site) -> Part {
    let kept = Arc::new(Mutex::new(None));
    Part::new("dns", move |end| {
        let (site, kept) = (site.clone(), Arc::clone(&kept));
        async move {
            let config = config(&site)?;
            local::set_up(&config.local_addresses, config::PORT)?;
            let sockets = open(&kept, &config.listen)?;
            daemon::run_until(config, sockets, daemon::signals()?, end.wait()).await
        }
    })
}

/// The sockets of the first start, once more.
fn open(kept: &Mutex<Option<Sockets>>, listen: &[SocketAddr]) -> anyhow::Result<Sockets> {
    // A start that panicked has left them as they were.
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    let sockets = match kept.take() {
        Some(sockets) => sockets,
        None => Sockets::open(listen)?,
    };
    let again = sockets.try_clone();
    *kept = Some(sockets);
    Ok(again?)
}

fn config(site: &Site) -> anyhow::Result<config::Config> {
    let arguments = &site.arguments;
    let mut words = vec![
        "weft-dns".to_owned(),
        format!("--kubeconfig={}", site.kubeconfig.display()),
        format!("--node-name={}", site.name),
        format!("--listen={}:{}", show(site.ip), config::PORT),
        format!("--local-address={}", local::ADDRESS),
        format!("--metrics-bind-address={}:9153", show(site.ip)),
        format!("--cluster-domain={}", arguments.cluster_domain),
        format!("--snapshot={}", site.file("dns.json").display()),
    ];
    let own = arguments.cluster_cidr.iter().chain(&arguments.service_cidr);
    words.extend(own.map(|network| format!("--own-network={network}")));
    let file = site.file("dns.yaml");
    if file.exists() {
        words.push(format!("--config={}", file.display()));
    }
    match config::parse(words.into_iter().map(Into::into), &site.name)? {
        config::Parsed::Run(config) => Ok(*config),
        other => bail!("{other:?}"),
    }
}
