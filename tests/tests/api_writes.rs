//! Many write at once: no write is lost, no name, address or port is given out twice, none leaks.

#[path = "api/client.rs"]
mod client;
#[path = "api/wire.rs"]
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use client::{Bed, SOON, ask, code, config, get, service};
use futures_util::future;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tests::{ApiServer, requirement};
use tokio::io::AsyncWriteExt;

async fn counter(client: &Client) -> Result<()> {
    let configs: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    configs
        .create(&PostParams::default(), &config("counter", 0))
        .await?;
    let tasks = (0..8).map(|_| {
        let configs = configs.clone();
        tokio::spawn(async move {
            let mut conflicts = 0;
            let mut done = 0;
            while done < 25 {
                let mut now = configs.get("counter").await?;
                let data = now.data.get_or_insert_default();
                let count: u32 = data.get("n").context("no count")?.parse()?;
                data.insert("n".into(), (count + 1).to_string());
                match configs
                    .replace("counter", &PostParams::default(), &now)
                    .await
                {
                    Ok(_) => done += 1,
                    Err(kube::Error::Api(status)) if status.code == 409 => conflicts += 1,
                    Err(error) => return Err(error.into()),
                }
            }
            Ok::<u32, anyhow::Error>(conflicts)
        })
    });
    let mut conflicts = 0;
    for done in future::join_all(tasks).await {
        conflicts += done??;
    }
    let count = configs.get("counter").await?.data.unwrap_or_default();
    ensure!(
        count.get("n").is_some_and(|count| count == "200"),
        "{count:?}"
    );
    ensure!(conflicts > 0, "the writers never met");
    Ok(())
}

async fn names(client: &Client) -> Result<()> {
    let configs: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let prefix = "x".repeat(80);
    let tasks = ["g-".to_owned(), prefix.clone()]
        .into_iter()
        .cycle()
        .take(8)
        .map(|prefix| {
            let configs = configs.clone();
            tokio::spawn(async move {
                let mut names = Vec::new();
                for _ in 0..25 {
                    let object = ConfigMap {
                        metadata: ObjectMeta {
                            generate_name: Some(prefix.clone()),
                            ..ObjectMeta::default()
                        },
                        ..ConfigMap::default()
                    };
                    let made = configs.create(&PostParams::default(), &object).await?;
                    names.push(made.name_any());
                }
                Ok::<_, anyhow::Error>(names)
            })
        });
    let mut all = BTreeSet::new();
    for done in future::join_all(tasks).await {
        all.extend(done??);
    }
    ensure!(all.len() == 200);
    for name in all {
        let short = name.starts_with("g-") && name.len() == 7;
        ensure!(
            short || (name.starts_with(&prefix[..58]) && name.len() == 63),
            "{name}"
        );
        configs.get(&name).await?;
    }
    Ok(())
}

/// Without a resourceVersion the last writer wins; with one, only the first.
async fn revisions(client: &Client) -> Result<()> {
    let path = "/api/v1/namespaces/default/configmaps";
    let object = |revision: Option<&str>, n: &str| json!({"metadata": {"name": "rv", "resourceVersion": revision}, "data": {"n": n}});
    let made = ask(client, "POST", path, &object(None, "1"))
        .await?
        .json()?;
    let first = made["metadata"]["resourceVersion"]
        .as_str()
        .context("no resourceVersion")?;
    let one = format!("{path}/rv");
    let answer = ask(client, "PUT", &one, &object(None, "2")).await?;
    ensure!(answer.code == 200);
    let answer = ask(client, "PUT", &one, &object(Some(first), "3")).await?;
    ensure!((answer.code, answer.reason()?.as_str()) == (409, "Conflict"));
    let patch = json!({"metadata": {"resourceVersion": first}, "data": {"n": "4"}});
    ensure!(ask(client, "PATCH", &one, &patch).await?.code == 409);
    let answer = ask(client, "POST", path, &object(Some(first), "5")).await?;
    ensure!(answer.code == 400, "{answer:?}");
    // A write that changes nothing is no change.
    let now = ask(client, "GET", &one, &Value::Null).await?.json()?;
    let same = ask(client, "PUT", &one, &now).await?.json()?;
    ensure!(same["metadata"]["resourceVersion"] == now["metadata"]["resourceVersion"]);
    Ok(())
}

/// What is made of several writes is made whole, though the client has gone.
async fn hasty(bed: &Bed, client: &Client) -> Result<()> {
    let config = wire::admin(&bed.server.folder())?;
    let address = wire::address(&bed.server)?;
    for n in 0..60 {
        let body = json!({"metadata": {"name": format!("hasty-{n}")}}).to_string();
        let head = format!(
            "POST /api/v1/namespaces HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = wire::connect(&address, &config).await?;
        stream.write_all((head + &body).as_bytes()).await?;
        stream.flush().await?;
        tokio::time::sleep(Duration::from_micros(fastrand::u64(..15_000))).await;
    }
    let end = Instant::now() + SOON;
    loop {
        let namespaces = get(client, "/api/v1/namespaces").await?;
        let names = namespaces["items"].as_array().context("no items")?;
        let names = names
            .iter()
            .filter_map(|one| one["metadata"]["name"].as_str());
        let names: Vec<_> = names.filter(|name| name.starts_with("hasty-")).collect();
        ensure!(!names.is_empty(), "all went too early");
        let mut bare = Vec::new();
        for name in names {
            let account = format!("/api/v1/namespaces/{name}/serviceaccounts/default");
            if ask(client, "GET", &account, &Value::Null).await?.code != 200 {
                bare.push(name);
            }
        }
        if bare.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < end, "without ServiceAccount: {bare:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn writes(bed: Bed) -> Result<()> {
    let client = bed.client().await?;
    tokio::try_join!(
        async { counter(&client).await.context("counter") },
        async { names(&client).await.context("names") },
        async { revisions(&client).await.context("revisions") },
    )?;
    hasty(&bed, &client).await.context("hasty")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_write_is_lost_in_the_embedded_store() -> Result<()> {
    writes(Bed::embedded()?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_write_is_lost_in_etcd() -> Result<()> {
    if !requirement::has_programs(&["etcd", "etcdctl"]) {
        return Ok(());
    }
    writes(Bed::etcd()?).await
}

async fn addresses(services: &Api<Service>) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for service in services.list(&ListParams::default()).await? {
        let name = service.name_any();
        let ip = service
            .spec
            .and_then(|spec| spec.cluster_ip)
            .context("no address")?;
        if let Some(other) = all.insert(ip.clone(), name.clone()) {
            anyhow::bail!("{name} and {other} both have {ip}");
        }
    }
    Ok(all)
}

/// Creates Services until there is no room; how many there was room for.
async fn fill(services: &Api<Service>, prefix: &str) -> Result<usize> {
    for count in 0..20 {
        let service = service(&format!("{prefix}{count}"), "ClusterIP")?;
        match services.create(&PostParams::default(), &service).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) => {
                ensure!(
                    status.code == 500 && status.reason == "InternalError",
                    "{status:?}"
                );
                let text = "Internal error occurred: failed to allocate a serviceIP: range is full";
                ensure!(status.message.starts_with(text), "{status:?}");
                return Ok(count);
            }
            Err(error) => return Err(error.into()),
        }
    }
    anyhow::bail!("there is no end of addresses")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_range_is_used_to_the_last_address() -> Result<()> {
    let mut server = ApiServer::start(&["--service-cidr=10.96.7.0/29"])?;
    let client = client::client(&server.kubeconfig()).await?;
    let services: Api<Service> = Api::namespaced(client, "default");
    // 10.96.7.1 is the Service `kubernetes`.
    let room = fill(&services, "a").await?;
    ensure!(room == 5, "there was room for {room}");
    ensure!(addresses(&services).await?.contains_key("10.96.7.6"));
    services.delete("a3", &DeleteParams::default()).await?;
    ensure!(fill(&services, "b").await? == 1);

    // Six who make and delete, in the room of five.
    for name in ["a0", "a1", "a2", "a4", "b0"] {
        services.delete(name, &DeleteParams::default()).await?;
    }
    let tasks = (0..6).map(|task| {
        let services = services.clone();
        tokio::spawn(async move {
            let mut made = 0;
            for step in 0..25 {
                let name = format!("t{task}-{step}");
                match services
                    .create(&PostParams::default(), &service(&name, "ClusterIP")?)
                    .await
                {
                    Ok(_) => {
                        made += 1;
                        addresses(&services).await?;
                        services.delete(&name, &DeleteParams::default()).await?;
                    }
                    Err(kube::Error::Api(status)) if status.message.contains("range is full") => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok::<u32, anyhow::Error>(made)
        })
    });
    for done in future::join_all(tasks).await {
        ensure!(done?? > 0);
    }
    ensure!(fill(&services, "c").await? == 5);

    // Who has what is known after a restart, whether it was told to end or not.
    let before = addresses(&services).await?;
    for crash in [false, true] {
        if crash {
            server.kill()?;
        } else {
            ensure!(server.stop()?.success());
        }
        server.resume()?;
        let client = client::client(&server.kubeconfig()).await?;
        let services: Api<Service> = Api::namespaced(client, "default");
        ensure!(addresses(&services).await? == before);
        ensure!(fill(&services, "d").await? == 0);
        let mut taken = service("taken", "ClusterIP")?;
        if let Some(spec) = &mut taken.spec {
            spec.cluster_ip = Some("10.96.7.5".into());
        }
        ensure!(code(services.create(&PostParams::default(), &taken).await)? == 422);
    }
    Ok(())
}
