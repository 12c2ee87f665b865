//! Who is served where: traffic policies, endpoints that are missing or on their way out, topology.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::net::SocketAddr;
use tests::pod::Family;
use tests::proxy::{
    Conditions, Endpoints, Mode, Options, Port, Service, Site, cluster_ip, external_ip,
};
use tests::topology;
use tests::traffic::Transport::{Tcp, Udp};
use tests::{Namespace, cluster::Stack, eventually, http};

tests::on_every_mode!(
    internal_local,
    external_local,
    health_check_node_port,
    no_endpoints_are_refused,
    terminating_fallback,
    topology_hints,
);

fn internal_local(mode: Mode) -> Result<()> {
    let Some(site) = Site::start(&Options::new(mode))? else {
        return Ok(());
    };
    let (client1, client2) = (site.pod(0)?, site.pod(1)?);
    let (near, far) = (site.backend(0, 8080)?, site.backend(1, 8080)?);
    let service = Service::web("web", &site.cluster_ips(1)).internal_local();
    site.manifests.service(&service)?;
    site.manifests.endpoints(&Endpoints::web("web", &[&near]))?;
    let inside1 = [&client1.namespace, &site.nodes[0].namespace];
    let inside2 = [&client2.namespace, &site.nodes[1].namespace];
    for &family in site.families() {
        let at = SocketAddr::new(cluster_ip(family, 1), 80);
        for transport in [Tcp, Udp] {
            for client in inside1 {
                site.answers(client, at, transport, &[near.address(family)?])?;
            }
            // Endpoints are elsewhere only: silence.
            for client in inside2 {
                site.silent(client, at, transport)?;
            }
        }
    }
    // With an endpoint on each node, each client has its own node's.
    let both = Endpoints::web("web", &[&near, &far]);
    site.manifests.endpoints(&both)?;
    for &family in site.families() {
        let at = SocketAddr::new(cluster_ip(family, 1), 80);
        for (client, server) in [(&client1, &near), (&client2, &far)] {
            site.answers_alone(&client.namespace, at, Tcp, server.address(family)?)?;
        }
    }
    Ok(())
}

fn external_local(mode: Mode) -> Result<()> {
    let Some(site) = Site::start(&Options::new(mode))? else {
        return Ok(());
    };
    let client2 = site.pod(1)?;
    let backend = site.backend(0, 8080)?;
    let service = Service::new("web", &site.cluster_ips(1))
        .node_port(Port::tcp("http", 80), 30080)
        .node_port(Port::udp("dns", 80), 30080)
        .load_balancer(&site.external_ips(2))
        .external_ips(&site.external_ips(1))
        .external_local();
    site.manifests.service(&service)?;
    site.manifests
        .endpoints(&Endpoints::web("web", &[&backend]))?;
    let outside = &site.underlay.outside;
    let [n1, n2] = &site.nodes[..] else {
        anyhow::bail!("not two nodes");
    };
    for &family in site.families() {
        let server = backend.address(family)?;
        let world = topology::outside_for(server.ip());
        let seen = match mode.keeps_source() {
            true => world,
            false => site.masqueraded(0, &backend.pod, family),
        };
        let fronts = [
            SocketAddr::new(n1.ip(family), 30080),
            SocketAddr::new(external_ip(family, 1), 80),
            SocketAddr::new(external_ip(family, 2), 80),
        ];
        for transport in [Tcp, Udp] {
            for at in fronts {
                // The endpoint sees the client itself.
                site.answers_seeing(outside, at, transport, server, seen)?;
            }
            let elsewhere = SocketAddr::new(n2.ip(family), 30080);
            site.silent(outside, elsewhere, transport)?;
            // A Pod and the node itself are served all the same, by any endpoint.
            let pod_seen = match mode.keeps_source() {
                true => client2.ip(family)?,
                false => site.masqueraded(1, &backend.pod, family),
            };
            for at in [elsewhere, fronts[1], fronts[2]] {
                site.answers_seeing(&client2.namespace, at, transport, server, pod_seen)?;
            }
            let node_seen = site.masqueraded(1, &backend.pod, family);
            site.answers_seeing(&n2.namespace, elsewhere, transport, server, node_seen)?;
            // The cluster IP is not concerned.
            let inner = SocketAddr::new(cluster_ip(family, 1), 80);
            site.answers(&client2.namespace, inner, transport, &[server])?;
        }
    }
    Ok(())
}

fn health_check_node_port(mode: Mode) -> Result<()> {
    let options = Options::new(mode);
    let Some(site) = Site::start(&options)? else {
        return Ok(());
    };
    let backends = [site.backend(0, 8080)?, site.backend(0, 8080)?];
    let service = Service::new("web", &site.cluster_ips(1))
        .node_port(Port::tcp("http", 80), 30080)
        .load_balancer(&site.external_ips(2))
        .external_local()
        .set("healthCheckNodePort", 32000);
    site.manifests.service(&service)?;
    let [first, second] = &backends;
    let both = Endpoints::web("web", &[first, second]);
    site.manifests.endpoints(&both)?;
    let outside = &site.underlay.outside;
    for &family in site.families() {
        health(&site, outside, 0, family, 200, 2)?;
        health(&site, outside, 1, family, 503, 0)?;
    }
    // Terminating endpoints still get traffic, but a balancer is to go away.
    let leaving = Endpoints::of("web")
        .port(first.tcp("http"))
        .at_being(&first.pod, Conditions::TERMINATING);
    site.manifests.endpoints(&leaving)?;
    health(&site, outside, 0, Family::V4, 503, 0)?;
    let at = SocketAddr::new(site.nodes[0].ip(Family::V4), 30080);
    site.answers(outside, at, Tcp, &[first.address(Family::V4)?])?;
    // Without the port nobody listens.
    site.manifests
        .service(&service.set("externalTrafficPolicy", "Cluster"))?;
    let gone = SocketAddr::new(site.nodes[0].ip(Family::V4), 32000);
    site.refused(outside, gone, Tcp)
}

/// Waits until the health-check node port of node `index` says so.
fn health(
    site: &Site,
    from: &Namespace,
    index: usize,
    family: Family,
    status: u16,
    endpoints: u32,
) -> Result<()> {
    let at = SocketAddr::new(site.nodes[index].ip(family), 32000);
    let page = eventually("the health port", std::time::Duration::from_secs(5), || {
        let page = from.run(|| http::get(at, "anything"))?;
        ensure!(page.status == status, "{at}: {} {}", page.status, page.body);
        let weight = page.header("X-Load-Balancing-Endpoint-Weight");
        ensure!(
            weight == Some(&*endpoints.to_string()),
            "{at}: weight {weight:?}"
        );
        Ok(page)
    });
    let page = page.with_context(|| format!("{}\n{}", site.mode, site.logs()))?;
    let body: serde_json::Value = serde_json::from_str(&page.body)?;
    let service = json!({ "namespace": "default", "name": "web" });
    ensure!(
        body["service"] == service
            && body["localEndpoints"] == endpoints
            && body["serviceProxyHealthy"] == true,
        "{at}: {body}"
    );
    ensure!(page.header("Content-Type") == Some("application/json"));
    ensure!(page.header("X-Content-Type-Options") == Some("nosniff"));
    Ok(())
}

/// On every front, for every client, at once; and served as soon as there is an endpoint.
fn no_endpoints_are_refused(mode: Mode) -> Result<()> {
    let Some(site) = Site::start(&Options::new(mode))? else {
        return Ok(());
    };
    let client = site.pod(0)?;
    let service = Service::new("web", &site.cluster_ips(1))
        .node_port(Port::tcp("http", 80), 30080)
        .node_port(Port::udp("dns", 80), 30080)
        .external_ips(&site.external_ips(1))
        .load_balancer(&site.external_ips(2));
    site.manifests.service(&service)?;
    let outside = &site.underlay.outside;
    let n1 = &site.nodes[0];
    let fronts = |family| {
        let inner = SocketAddr::new(cluster_ip(family, 1), 80);
        let port = SocketAddr::new(n1.ip(family), 30080);
        let [external, balancer] =
            [1, 2].map(|number| SocketAddr::new(external_ip(family, number), 80));
        [
            (&client.namespace, inner),
            (&n1.namespace, inner),
            (outside, port),
            (outside, external),
            (outside, balancer),
        ]
    };
    for &family in site.families() {
        for (from, at) in fronts(family) {
            for transport in [Udp, Tcp] {
                site.refused(from, at, transport)?;
            }
        }
    }
    let backend = site.backend(1, 8080)?;
    let endpoints = Endpoints::web("web", &[&backend]);
    site.manifests.endpoints(&endpoints)?;
    for &family in site.families() {
        for (from, at) in fronts(family) {
            for transport in [Udp, Tcp] {
                site.answers(from, at, transport, &[backend.address(family)?])?;
            }
        }
    }
    // An endpoint that answers nothing yet is none.
    let unready = Endpoints::of("web")
        .port(backend.tcp("http"))
        .at_being(&backend.pod, Conditions::UNREADY);
    site.manifests.endpoints(&unready)?;
    let [(from, at), ..] = fronts(Family::V4);
    site.refused(from, at, Tcp)?;
    site.manifests.endpoints(&endpoints)?;
    site.answers(from, at, Tcp, &[backend.address(Family::V4)?])?;
    site.manifests.remove_endpoints("web")?;
    site.refused(from, at, Tcp)
}

/// Endpoints on their way out serve when there is no ready one, in the cluster list and in the
/// local one.
fn terminating_fallback(mode: Mode) -> Result<()> {
    let options = Options::new(mode).stack(Stack::V4);
    let Some(site) = Site::start(&options)? else {
        return Ok(());
    };
    let (client1, client2) = (site.pod(0)?, site.pod(1)?);
    let (near, far) = (site.backend(0, 8080)?, site.backend(1, 8080)?);
    let [near_at, far_at] = [near.address(Family::V4)?, far.address(Family::V4)?];
    let endpoints = |of_near, of_far| {
        Endpoints::of("web")
            .port(near.tcp("http"))
            .port(near.udp("dns"))
            .at_being(&near.pod, of_near)
            .at_being(&far.pod, of_far)
    };
    let at = SocketAddr::new(cluster_ip(Family::V4, 1), 80);
    let only = |from: &Namespace, server| site.answers_alone(from, at, Tcp, server);
    let (ready, leaving) = (Conditions::READY, Conditions::TERMINATING);
    let service = Service::web("web", &site.cluster_ips(1));
    site.manifests.service(&service)?;
    // A ready one: the other gets nothing.
    site.manifests.endpoints(&endpoints(leaving, ready))?;
    only(&client1.namespace, far_at)?;
    // None ready: all that still serve.
    site.manifests.endpoints(&endpoints(leaving, leaving))?;
    site.answers(&client1.namespace, at, Tcp, &[near_at])?;
    site.answers(&client1.namespace, at, Tcp, &[far_at])?;
    // One of them no longer serves.
    let deaf = Conditions {
        serving: false,
        ..leaving
    };
    site.manifests.endpoints(&endpoints(deaf, leaving))?;
    only(&client1.namespace, far_at)?;
    site.manifests.endpoints(&endpoints(deaf, deaf))?;
    site.refused(&client1.namespace, at, Tcp)?;
    // The local list falls back by itself, although there is a ready endpoint elsewhere.
    site.manifests.service(&service.internal_local())?;
    site.manifests.endpoints(&endpoints(leaving, ready))?;
    only(&client1.namespace, near_at)?;
    only(&client2.namespace, far_at)
}

/// Hints for zones, then for nodes, each all or nothing.
fn topology_hints(mode: Mode) -> Result<()> {
    let options = Options::new(mode).stack(Stack::V4);
    let Some(mut site) = Site::prepare(&options)? else {
        return Ok(());
    };
    for node in &site.nodes {
        let value = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {
                "name": node.name,
                "labels": { "topology.kubernetes.io/zone": format!("zone-{}", node.name) },
            },
            "status": { "addresses": [
                { "type": "InternalIP", "address": node.ip(Family::V4) },
            ] },
        });
        site.manifests
            .object(&format!("node-{}.json", node.name), &value)?;
    }
    for node in &mut site.nodes {
        node.start_proxy()?;
    }
    let clients = [site.pod(0)?, site.pod(1)?];
    let backends = [site.backend(0, 8080)?, site.backend(1, 8080)?];
    let at = SocketAddr::new(cluster_ip(Family::V4, 1), 80);
    site.manifests
        .service(&Service::web("web", &site.cluster_ips(1)))?;
    // `hints[i]` is endpoint i's.
    let write = |hints: [serde_json::Value; 2]| {
        let mut list = Endpoints::web("web", &[&backends[0], &backends[1]]).value();
        for (index, hint) in hints.into_iter().enumerate() {
            list["items"][0]["endpoints"][index]["hints"] = hint;
        }
        site.manifests.object("endpoints-web.json", &list)
    };
    let zone = |node: &str| json!({ "forZones": [{ "name": format!("zone-{node}") }] });
    let node = |node: &str| json!({ "forNodes": [{ "name": node }] });
    // Crossed, so that a hint that is not followed cannot look like a local preference.
    let crossed = |server: usize| -> Result<()> {
        for (index, client) in clients.iter().enumerate() {
            let server = backends[index ^ server].address(Family::V4)?;
            site.answers_alone(&client.namespace, at, Tcp, server)?;
        }
        Ok(())
    };
    write([zone("n2"), zone("n1")])?;
    crossed(1)?;
    // A hint is missing: all endpoints for everyone.
    write([zone("n2"), json!(null)])?;
    for client in &clients {
        for backend in &backends {
            let server = backend.address(Family::V4)?;
            site.answers(&client.namespace, at, Tcp, &[server])?;
        }
    }
    write([node("n1"), node("n2")])?;
    crossed(0)?;
    write([node("n2"), node("n1")])?;
    crossed(1)
}
