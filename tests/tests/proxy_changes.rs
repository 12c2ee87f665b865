//! What changes while the proxy runs: labels, clashes, broken manifests, endpoints under flows.

use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;
use std::time::Duration;
use tests::cluster::Stack;
use tests::pod::Family;
use tests::proxy::{
    Backend, Conditions, Endpoints, Mode, Options, Pod, Port, Service, Site, cluster_ip,
};
use tests::traffic::Transport::{Tcp, Udp};
use tests::traffic::{Outcome, Stream, UdpClient, UdpServer};
use tests::{Namespace, eventually};

tests::on_every_mode!(
    labels_are_followed,
    clashing_node_ports,
    broken_manifests,
    udp_follows_its_endpoint; kernel:
    connections_outlive_their_endpoint
);

/// A site of one family with a client on n1 and a backend on each node.
fn site(mode: Mode) -> Result<Option<(Site, Pod, [Backend; 2])>> {
    let options = Options::new(mode).stack(Stack::V4);
    let Some(site) = Site::start(&options)? else {
        return Ok(None);
    };
    let client = site.pod(0)?;
    let backends = [site.backend(0, 8080)?, site.backend(1, 8080)?];
    Ok(Some((site, client, backends)))
}

fn at() -> SocketAddr {
    SocketAddr::new(cluster_ip(Family::V4, 1), 80)
}

fn labels_are_followed(mode: Mode) -> Result<()> {
    let Some((site, client, [backend, _])) = site(mode)? else {
        return Ok(());
    };
    let server = backend.address(Family::V4)?;
    let service = Service::web("web", &site.cluster_ips(1));
    let endpoints = Endpoints::web("web", &[&backend]);
    let other = service
        .clone()
        .label("service.kubernetes.io/service-proxy-name", "someone-else");
    let headless = endpoints
        .clone()
        .label("service.kubernetes.io/headless", "");
    site.manifests.service(&service)?;
    site.manifests.endpoints(&endpoints)?;
    for _ in 0..2 {
        site.answers(&client.namespace, at(), Tcp, &[server])?;
        // Another proxy's Service is none of ours, from now on, and then it is again.
        site.manifests.service(&other)?;
        site.unanswered(&client.namespace, at(), Tcp)?;
        site.manifests.service(&service)?;
        site.answers(&client.namespace, at(), Tcp, &[server])?;
        // Slices of a headless Service do not count.
        site.manifests.endpoints(&headless)?;
        site.refused(&client.namespace, at(), Tcp)?;
        site.manifests.endpoints(&endpoints)?;
    }
    site.answers(&client.namespace, at(), Tcp, &[server])?;
    // The same Service with another address.
    let moved = SocketAddr::new(cluster_ip(Family::V4, 7), 80);
    site.manifests
        .service(&Service::web("web", &site.cluster_ips(7)))?;
    site.answers(&client.namespace, moved, Tcp, &[server])?;
    site.unanswered(&client.namespace, at(), Tcp)
}

/// The older of two Services has the port that both want; the rest of the younger works.
fn clashing_node_ports(mode: Mode) -> Result<()> {
    let Some((site, client, [first, second])) = site(mode)? else {
        return Ok(());
    };
    let port = SocketAddr::new(site.nodes[0].ip(Family::V4), 30080);
    let inner = |number| SocketAddr::new(cluster_ip(Family::V4, number), 80);
    // The younger one is first by name and first to be there.
    for (name, number, created, backend) in [
        ("a-younger", 2, "2026-02-01T00:00:00Z", &second),
        ("b-older", 1, "2026-01-01T00:00:00Z", &first),
    ] {
        let service = Service::new(name, &site.cluster_ips(number))
            .node_port(Port::tcp("http", 80), 30080)
            .created(created);
        site.manifests.service(&service)?;
        site.manifests
            .endpoints(&Endpoints::web(name, &[backend]))?;
        // Each has the port to itself, or takes it away.
        let server = backend.address(Family::V4)?;
        site.answers(&site.underlay.outside, port, Tcp, &[server])?;
    }
    for (number, backend) in [(1, &first), (2, &second)] {
        let server = backend.address(Family::V4)?;
        site.answers(&client.namespace, inner(number), Tcp, &[server])?;
    }
    for _ in 0..10 {
        let servers = [first.address(Family::V4)?];
        site.answers(&site.underlay.outside, port, Tcp, &servers)?;
    }
    let log = site.nodes[0].daemon.as_ref().context("no daemon")?.log()?;
    let told = log.lines().any(|line| {
        line.contains("30080") && line.contains("a-younger") && line.contains("b-older")
    });
    ensure!(told, "{mode}: the clash is not told:\n{log}");
    site.manifests.remove_service("b-older")?;
    let server = second.address(Family::V4)?;
    site.answers(&site.underlay.outside, port, Tcp, &[server])
        .map(drop)
}

/// A broken file is named; what it said before stays, and everything else goes on.
fn broken_manifests(mode: Mode) -> Result<()> {
    let Some((site, client, [first, second])) = site(mode)? else {
        return Ok(());
    };
    let [one, two] = [first.address(Family::V4)?, second.address(Family::V4)?];
    site.manifests
        .service(&Service::web("web", &site.cluster_ips(1)))?;
    site.manifests
        .endpoints(&Endpoints::web("web", &[&first]))?;
    site.answers(&client.namespace, at(), Tcp, &[one])?;
    site.manifests
        .text("endpoints-web.json", "{ \"kind\": \"EndpointSlice\", ")?;
    site.manifests.text("other.yaml", "kind: [Service\n")?;
    let daemon = site.nodes[0].daemon.as_ref().context("no daemon")?;
    eventually("both files are named", Duration::from_secs(5), || {
        let log = daemon.log()?;
        for name in ["endpoints-web.json", "other.yaml"] {
            ensure!(log.contains(name), "no {name} in\n{log}");
        }
        Ok(())
    })?;
    site.answers(&client.namespace, at(), Tcp, &[one])?;
    // Others are still followed: here in YAML, two documents in a file.
    let second_at = SocketAddr::new(cluster_ip(Family::V4, 2), 80);
    let yaml = format!(
        "# by hand
apiVersion: v1
kind: Service
metadata: {{name: written, namespace: default, creationTimestamp: null}}
spec:
  clusterIP: {ip}
  ports:
  - {{port: 80, targetPort: 8080}}
  surplus: [of, no, meaning]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: written-1
  namespace: default
  labels: {{kubernetes.io/service-name: written}}
addressType: IPv4
ports:
- port: 8080
endpoints:
- addresses: [\"{endpoint}\"]
---
# nothing here
",
        ip = second_at.ip(),
        endpoint = two.ip()
    );
    site.manifests.text("written.yaml", &yaml)?;
    site.answers(&client.namespace, second_at, Tcp, &[two])?;
    // Mended.
    site.manifests
        .endpoints(&Endpoints::web("web", &[&second]))?;
    site.answers(&client.namespace, at(), Tcp, &[two])?;
    // Objects that are half filled or out of range do not lose the others of their file.
    site.manifests.object(
        "odd.json",
        &serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": [
            { "apiVersion": "v1", "kind": "Service", "metadata": { "name": "no-spec", "namespace": "default" } },
            { "apiVersion": "v1", "kind": "Service", "metadata": { "name": "zero", "namespace": "default" },
              "spec": { "clusterIP": "10.96.0.9", "ports": [{ "port": 0 }, { "name": "big", "port": 70000 }] } },
            { "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "c", "namespace": "default" } },
            Service::web("good", &site.cluster_ips(3)).value(),
            Endpoints::web("good", &[&first]).value()["items"][0],
        ] }),
    )?;
    let good = SocketAddr::new(cluster_ip(Family::V4, 3), 80);
    site.answers(&client.namespace, good, Tcp, &[one]).map(drop)
}

/// One client socket, whose endpoint is replaced: by another, by none, by one again.
fn udp_follows_its_endpoint(mode: Mode) -> Result<()> {
    let Some((site, client, [first, second])) = site(mode)? else {
        return Ok(());
    };
    let [one, two] = [first.address(Family::V4)?, second.address(Family::V4)?];
    let service = Service::new("web", &site.cluster_ips(1)).node_port(Port::udp("dns", 80), 30080);
    site.manifests.service(&service)?;
    let only = |backend: &Backend, conditions| {
        Endpoints::of("web")
            .port(backend.udp("dns"))
            .at_being(&backend.pod, conditions)
    };
    site.manifests.endpoints(&only(&first, Conditions::READY))?;
    let port = SocketAddr::new(site.nodes[0].ip(Family::V4), 30080);
    let clients: [(&Namespace, SocketAddr); 3] = [
        (&client.namespace, at()),
        (&site.nodes[0].namespace, at()),
        (&site.underlay.outside, port),
    ];
    for (from, at) in clients {
        site.answers(from, at, Udp, &[one])?;
    }
    let sockets = clients.map(|(from, at)| UdpClient::new(from, at));
    let sockets = sockets.into_iter().collect::<Result<Vec<_>>>()?;
    let all_reach = |server: SocketAddr| -> Result<()> {
        for (socket, (from, at)) in sockets.iter().zip(clients) {
            eventually(
                "the same socket reaches it",
                Duration::from_secs(5),
                || match socket.ask(Duration::from_millis(300))? {
                    Outcome::Answered(answer) if answer.by == server => Ok(()),
                    other => anyhow::bail!("{other}"),
                },
            )
            .with_context(|| {
                format!(
                    "{mode}: {server} by {at} from {}\n{}",
                    from.name(),
                    site.logs()
                )
            })?;
        }
        Ok(())
    };
    all_reach(one)?;
    // Replaced.
    site.manifests
        .endpoints(&only(&second, Conditions::READY))?;
    all_reach(two)?;
    // Not ready, and ready again: what the client sent in between must not hold it back.
    site.manifests
        .endpoints(&only(&second, Conditions::UNREADY))?;
    site.refused(&client.namespace, at(), Udp)?;
    for socket in &sockets {
        let outcome = socket.ask(Duration::from_millis(100))?;
        ensure!(
            // A Service without endpoints is left alone: its flows may live on.
            matches!(outcome, Outcome::Refused | Outcome::Silence)
                || matches!(outcome, Outcome::Answered(answer) if answer.by == two),
            "{mode}: {outcome}"
        );
    }
    site.manifests.endpoints(&only(&first, Conditions::READY))?;
    all_reach(one)?;
    // The same endpoint on another port.
    let moved = UdpServer::start(&first.pod.namespace, one.ip(), 9090)?;
    let endpoints = Endpoints::of("web").port(Port::udp("dns", 9090));
    site.manifests.endpoints(&endpoints.at(&first.pod))?;
    all_reach(moved.address)?;
    site.manifests.endpoints(&only(&first, Conditions::READY))?;
    all_reach(one)?;
    // A client that is served well stays where it is when others come.
    let both = Endpoints::of("web")
        .port(first.udp("dns"))
        .at(&first.pod)
        .at(&second.pod);
    site.manifests.endpoints(&both)?;
    site.answers(&client.namespace, at(), Udp, &[two])?;
    all_reach(one)?;
    for socket in &sockets {
        for _ in 0..10 {
            let outcome = socket.ask(Duration::from_secs(1))?;
            ensure!(
                matches!(outcome, Outcome::Answered(answer) if answer.by == one),
                "{mode}: a flow moved: {outcome}"
            );
        }
    }
    Ok(())
}

/// An endpoint that leaves the list gets no new connection, and keeps those that it has.
fn connections_outlive_their_endpoint(mode: Mode) -> Result<()> {
    let Some((site, client, [first, second])) = site(mode)? else {
        return Ok(());
    };
    let [one, two] = [first.address(Family::V4)?, second.address(Family::V4)?];
    site.manifests
        .service(&Service::web("web", &site.cluster_ips(1)))?;
    site.manifests
        .endpoints(&Endpoints::web("web", &[&first]))?;
    site.answers(&client.namespace, at(), Tcp, &[one])?;
    let stream = Stream::start(&client.namespace, at())?;
    site.manifests
        .endpoints(&Endpoints::web("web", &[&first, &second]))?;
    site.answers(&client.namespace, at(), Tcp, &[two])?;
    site.manifests
        .endpoints(&Endpoints::web("web", &[&second]))?;
    eventually("the first gets no new one", Duration::from_secs(5), || {
        let counts = site.spread(&client.namespace, at(), Tcp, 20)?;
        ensure!(!counts.contains_key(&one), "{counts:?}");
        Ok(())
    })?;
    site.manifests.remove_service("web")?;
    site.unanswered(&client.namespace, at(), Tcp)?;
    let report = stream
        .finish()
        .context("the connection of a gone endpoint")?;
    ensure!(
        report.longest_gap < Duration::from_secs(1),
        "{mode}: a gap of {:?}",
        report.longest_gap
    );
    Ok(())
}
