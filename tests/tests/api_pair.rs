//! Several API servers over one etcd, and etcd that goes away, comes back and forgets.

#[path = "api/client.rs"]
mod client;

use std::collections::BTreeSet;
use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use client::{Lines, SOON, ask, brief, config, get, revision, service};
use futures_util::{StreamExt, future};
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tests::apiserver::etcd::LoopbackEtcd;
use tests::{ApiServer, requirement};

const CONFIGS: &str = "/api/v1/namespaces/default/configmaps";
const FLAGS: [&str; 2] = [
    "--service-cidr=10.97.0.0/24",
    "--service-node-port-range=30000-30119",
];

/// One server over an etcd, and its administrator.
async fn server(etcd: &LoopbackEtcd) -> Result<(ApiServer, Client)> {
    let server = ApiServer::start(&[&etcd.flag(), FLAGS[0], FLAGS[1]])?;
    let client = client::client(&server.kubeconfig()).await?;
    Ok((server, client))
}

/// Waits until it holds.
async fn until<F: Future<Output = Result<()>>>(
    what: &str,
    mut check: impl FnMut() -> F,
) -> Result<()> {
    let end = Instant::now() + SOON;
    loop {
        match check().await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > end => {
                return Err(error).context(format!("until {what}"));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// The addresses and node ports that Services have, none twice.
async fn held(client: &Client) -> Result<BTreeSet<String>> {
    let services: Api<Service> = Api::all(client.clone());
    let mut all = BTreeSet::new();
    for service in services.list(&ListParams::default()).await? {
        let name = service.name_any();
        let spec = service.spec.context("no spec")?;
        let ips = spec.cluster_ips.unwrap_or_default();
        let ports = spec.ports.unwrap_or_default();
        let ips = ips.into_iter().map(|ip| format!("serviceips/{ip}"));
        let ports = ports.iter().filter_map(|port| port.node_port);
        for key in ips.chain(ports.map(|port| format!("servicenodeports/{port}"))) {
            ensure!(
                all.insert(key.clone()),
                "{name} has {key}, and another Service too"
            );
        }
    }
    Ok(all)
}

fn claims(etcd: &LoopbackEtcd) -> Result<BTreeSet<String>> {
    let prefix = "/registry/ranges/";
    let keys = etcd.keys(prefix)?;
    Ok(keys
        .iter()
        .filter_map(|key| key.strip_prefix(prefix))
        .map(str::to_owned)
        .collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_are_one_cluster() -> Result<()> {
    if !requirement::has_programs(&["etcd", "etcdctl"]) {
        return Ok(());
    }
    let etcd = LoopbackEtcd::start()?;
    let ((mut one, to_one), (other, to_other)) = tokio::try_join!(server(&etcd), server(&etcd))?;
    // What is written through one is watched through the other, at the same revision.
    let start = revision(&get(&to_one, CONFIGS).await?)?;
    let mut watch = Lines::open(
        &to_other,
        &format!("{CONFIGS}?watch=1&resourceVersion={start}"),
    )
    .await?;
    let post =
        |n: u32| json!({"metadata": {"name": format!("c{n}")}, "data": {"n": n.to_string()}});
    for n in 0..20 {
        let client = if n % 2 == 0 { &to_one } else { &to_other };
        let made = ask(client, "POST", CONFIGS, &post(n)).await?.json()?;
        ensure!(watch.event().await? == json!({"type": "ADDED", "object": made}));
    }
    // Through whichever server, a revision that was answered is not too new.
    let newest = revision(&get(&to_one, CONFIGS).await?)?;
    get(
        &to_other,
        &format!("{CONFIGS}?resourceVersion={newest}&resourceVersionMatch=NotOlderThan"),
    )
    .await?;

    // Services through both.
    let tasks = (0..8).map(|task| {
        let client = if task % 2 == 0 { &to_one } else { &to_other };
        let services: Api<Service> = Api::namespaced(client.clone(), "default");
        tokio::spawn(async move {
            for step in 0..12 {
                let name = format!("s{task}-{step}");
                services
                    .create(&PostParams::default(), &service(&name, "NodePort")?)
                    .await?;
                if step % 3 == 2 {
                    services.delete(&name, &DeleteParams::default()).await?;
                }
            }
            Ok::<_, anyhow::Error>(())
        })
    });
    for done in future::join_all(tasks).await {
        done??;
    }
    let now = held(&to_one).await?;
    // 64 with a port each, and `kubernetes`.
    ensure!(now.len() == 129, "{} are held", now.len());
    ensure!(now == held(&to_other).await?);
    ensure!(now == claims(&etcd)?);

    one.kill()?;
    let made = ask(&to_other, "POST", CONFIGS, &post(99)).await?.json()?;
    ensure!(watch.event().await? == json!({"type": "ADDED", "object": made}));
    one.resume()?;
    let to_one = client::client(&one.kubeconfig()).await?;
    ensure!(get(&to_one, &format!("{CONFIGS}/c99")).await? == made);
    let services: Api<Service> = Api::namespaced(to_one.clone(), "default");
    for name in services
        .list(&ListParams::default())
        .await?
        .iter()
        .map(ResourceExt::name_any)
    {
        if name != "kubernetes" {
            services.delete(&name, &DeleteParams::default()).await?;
        }
    }
    ensure!(claims(&etcd)? == BTreeSet::from(["serviceips/10.97.0.1".to_owned()]));
    for server in [&one, &other] {
        ensure!(!server.log()?.contains("panicked"));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_goes_and_comes_back() -> Result<()> {
    if !requirement::has_programs(&["etcd", "etcdctl"]) {
        return Ok(());
    }
    let mut etcd = LoopbackEtcd::start()?;
    let (mut server, client) = server(&etcd).await?;
    let configs: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    configs
        .create(&PostParams::default(), &config("before", 1))
        .await?;
    let (reader, writer) = reflector::store::<ConfigMap>();
    let stream = reflector(
        writer,
        watcher(configs.clone(), watcher::Config::default()).default_backoff(),
    );
    let following = tokio::spawn(stream.for_each(|_| future::ready(())));
    tokio::time::timeout(SOON, reader.wait_until_ready()).await??;
    let known = |name: &'static str| {
        let reader = reader.clone();
        move || {
            let there = reader.state().iter().any(|one| one.name_any() == name);
            async move {
                ensure!(there, "the client does not see {name}");
                Ok(())
            }
        }
    };
    until("the client sees it", known("before")).await?;
    let start = revision(&get(&client, CONFIGS).await?)?;
    let mut watch = Lines::open(
        &client,
        &format!("{CONFIGS}?watch=1&resourceVersion={start}"),
    )
    .await?;

    etcd.stop()?;
    for (method, path, body) in [
        ("GET", CONFIGS, Value::Null),
        (
            "GET",
            "/api/v1/namespaces/default/configmaps/before",
            Value::Null,
        ),
        ("POST", CONFIGS, json!({"metadata": {"name": "lost"}})),
        (
            "DELETE",
            "/api/v1/namespaces/default/configmaps/before",
            Value::Null,
        ),
    ] {
        let begun = Instant::now();
        let answer = ask(&client, method, path, &body).await?;
        ensure!(
            (answer.code, answer.reason()?.as_str()) == (503, "ServiceUnavailable"),
            "{answer:?}"
        );
        ensure!(answer.header("retry-after") == "1", "{answer:?}");
        ensure!(
            begun.elapsed() < Duration::from_secs(9),
            "{:?}",
            begun.elapsed()
        );
    }
    ensure!(ask(&client, "GET", "/readyz", &Value::Null).await?.code == 500);
    ensure!(ask(&client, "GET", "/livez", &Value::Null).await?.code == 200);

    etcd.resume()?;
    until("it is ready again", || async {
        let answer = ask(&client, "GET", "/readyz", &Value::Null).await?;
        ensure!(answer.code == 200, "{answer:?}");
        Ok(())
    })
    .await?;
    get(&client, &format!("{CONFIGS}/before")).await?;
    configs
        .create(&PostParams::default(), &config("after", 1))
        .await?;
    until("the client sees it", known("after")).await?;
    // The raw watch has gone on, or has ended as it should.
    if let Some(event) = watch.next().await? {
        ensure!(brief(&event) == "ADDED after", "{event}");
    }

    // Compacted while it runs: those who are up to date do not notice.
    etcd.compact()?;
    configs
        .create(&PostParams::default(), &config("compacted", 1))
        .await?;
    until("the client sees it", known("compacted")).await?;
    // Compacted while the server is away: the client starts over.
    ensure!(server.stop()?.success());
    let (other, to_other) = crate::server(&etcd).await?;
    let there: Api<ConfigMap> = Api::namespaced(to_other, "default");
    for n in 0..20 {
        there
            .create(
                &PostParams::default(),
                &config(&format!("while-away-{n}"), n),
            )
            .await?;
    }
    there.delete("before", &DeleteParams::default()).await?;
    etcd.compact()?;
    server.resume()?;
    until("the client sees it", known("while-away-19")).await?;
    until("the client sees that it is gone", || {
        let there = reader.state().iter().any(|one| one.name_any() == "before");
        async move {
            ensure!(!there, "it is still there");
            Ok(())
        }
    })
    .await?;
    following.abort();
    for server in [&server, &other] {
        ensure!(!server.log()?.contains("panicked"));
    }
    Ok(())
}
