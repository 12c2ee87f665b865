//! What an operator types: `--dry-run`, `--once`, `show`, `trace`; and the pages that the proxy serves.

use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;
use std::time::Duration;
use tests::cluster::Stack;
use tests::pod::Family;
use tests::proxy::{Endpoints, Mode, Options, Port, Service, Site, cluster_ip};
use tests::traffic::Transport::Tcp;
use tests::{eventually, http, snapshot};

tests::on_every_mode!(show_trace_and_pages; kernel: dry_run_and_once);

fn at() -> SocketAddr {
    SocketAddr::new(cluster_ip(Family::V4, 1), 80)
}

fn dry_run_and_once(mode: Mode) -> Result<()> {
    let Some(site) = Site::prepare(&Options::new(mode).stack(Stack::V4))? else {
        return Ok(());
    };
    let (client, backend) = (site.pod(0)?, site.backend(1, 8080)?);
    site.manifests
        .service(&Service::web("web", &site.cluster_ips(1)))?;
    site.manifests
        .endpoints(&Endpoints::web("web", &[&backend]))?;
    let node = &site.nodes[0];
    let before = snapshot::of_firewall(&node.namespace)?;
    let text = node.proxy.run(&["--dry-run"])?;
    let server = backend.address(Family::V4)?;
    for part in [at().ip().to_string(), server.ip().to_string()] {
        ensure!(text.contains(&part), "{mode}: no {part} in\n{text}");
    }
    let after = snapshot::of_firewall(&node.namespace)?;
    snapshot::ensure_same(&format!("{mode}: a dry run"), &before, &after)?;
    site.unanswered(&client.namespace, at(), Tcp)?;
    // Once: it ends, and what it wrote stays.
    node.proxy.run(&["--once"])?;
    site.answers(&client.namespace, at(), Tcp, &[server])?;
    // Now there is nothing to do.
    let text = node.proxy.run(&["--dry-run"])?;
    ensure!(
        !text.contains(&server.ip().to_string()),
        "{mode}: after --once a dry run still wants\n{text}"
    );
    Ok(())
}

fn show_trace_and_pages(mode: Mode) -> Result<()> {
    let Some(site) = Site::start(&Options::new(mode).stack(Stack::V4))? else {
        return Ok(());
    };
    let (client, backend) = (site.pod(0)?, site.backend(1, 8080)?);
    let service = Service::new("web", &site.cluster_ips(1))
        .node_port(Port::tcp("http", 80), 30080)
        .port(Port {
            name: "assoc",
            protocol: "SCTP",
            number: 99,
        });
    site.manifests.service(&service)?;
    let endpoints = Endpoints::web("web", &[&backend]).port(Port {
        name: "assoc",
        protocol: "SCTP",
        number: 9999,
    });
    site.manifests.endpoints(&endpoints)?;
    let server = backend.address(Family::V4)?;
    site.answers(&client.namespace, at(), Tcp, &[server])?;
    let node = &site.nodes[0];
    let endpoint = server.ip().to_string();
    let shown = node.proxy.run(&["show", "default/web"])?;
    for part in ["default/web", "http", "30080", "10.96.0.1", &endpoint] {
        ensure!(shown.contains(part), "{mode}: show: no {part} in\n{shown}");
    }
    let all = node.proxy.run(&["show"])?;
    ensure!(all.contains("default/web"), "{mode}: show:\n{all}");
    let source = client.ip(Family::V4)?.to_string();
    let traced = node
        .proxy
        .run(&["trace", &source, &format!("{}/tcp", at())]);
    match (mode, traced) {
        // A process has no rules; it says so, and what to ask instead.
        (Mode::Userspace, Err(error)) => {
            let told = format!("{error:#}");
            ensure!(told.contains("show"), "{mode}: trace: {told}");
        }
        (Mode::Userspace, Ok(text)) => anyhow::bail!("{mode}: trace: {text}"),
        (_, traced) => {
            let traced = traced?;
            ensure!(
                traced.contains(&endpoint),
                "{mode}: trace: no {endpoint} in\n{traced}"
            );
        }
    }
    // This kernel has no SCTP sockets: the rules must be there all the same.
    let rules = match mode {
        Mode::Nftables => node.namespace.sh("nft list ruleset")?,
        Mode::IptablesNft => node.namespace.sh("iptables-nft-save -t nat")?,
        Mode::IptablesLegacy => node.namespace.sh("iptables-legacy-save -t nat")?,
        Mode::Userspace => String::new(),
    };
    ensure!(
        mode == Mode::Userspace || (rules.contains("sctp") && rules.contains("9999")),
        "{mode}: no SCTP in\n{rules}"
    );
    let get = |address: &str, path: &str| {
        let page = node.namespace.run(|| http::get(address, path))?;
        ensure!(page.status == 200, "{path}: {} {}", page.status, page.body);
        Ok(page.body)
    };
    for path in ["healthz", "livez"] {
        let page: serde_json::Value = serde_json::from_str(&get("127.0.0.1:10256", path)?)?;
        ensure!(page["healthy"] == true, "{mode}: /{path}: {page}");
    }
    // One change beyond what the first list had.
    let more = Service::new("more", &site.cluster_ips(2)).port(Port::tcp("http", 80));
    site.manifests.service(&more)?;
    let partial = "kubeproxy_sync_partial_proxy_rules_duration_seconds_count";
    eventually("a partial sync", Duration::from_secs(5), || {
        ensure!(node.proxy.metric(partial)? > 0.0, "none yet");
        Ok(())
    })?;
    let said = get("127.0.0.1:10249", "proxyMode")?;
    let word = mode.to_string();
    let word = word.split(' ').next().context("a mode has a name")?;
    ensure!(said.trim() == word, "{mode}: /proxyMode says {said:?}");
    for name in [
        "kubeproxy_sync_proxy_rules_duration_seconds_count",
        "kubeproxy_sync_full_proxy_rules_duration_seconds_count",
        "kubeproxy_sync_partial_proxy_rules_duration_seconds_count",
        "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
        "kubeproxy_sync_proxy_rules_service_changes_total",
        "kubeproxy_sync_proxy_rules_endpoint_changes_total",
        "kubeproxy_proxy_healthz_total",
    ] {
        let value = node.proxy.metric(name)?;
        ensure!(value > 0.0, "{mode}: {name} is {value}");
    }
    Ok(())
}
