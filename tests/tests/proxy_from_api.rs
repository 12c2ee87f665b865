//! The Service proxy on objects of our own API server: 5,000 Services, changes one by one, the server away and back.

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Service as ServiceObject;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::json;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tests::cluster::Stack;
use tests::pod::Family;
use tests::proxy::{Endpoints, Mode, Options, Site};
use tests::traffic::Transport::{Tcp, Udp};
use tests::{ApiServer, Namespace};

const COUNT: usize = 5000;
/// For a start with all of them; the tests' build is slow.
const LIMIT: Duration = Duration::from_secs(90);

/// Asks the API server of a namespace: sockets are made on a thread inside.
fn ask<T: Send>(
    namespace: &Namespace,
    kubeconfig: &Path,
    job: impl AsyncFnOnce(Client) -> Result<T> + Send,
) -> Result<T> {
    namespace.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let file = Kubeconfig::read_from(kubeconfig)?;
            let config =
                Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
            job(Client::try_from(config)?).await
        })
    })
}

fn service(number: usize) -> Result<ServiceObject> {
    let ports = json!([
        {"name": "http", "port": 80, "protocol": "TCP"},
        {"name": "dns", "port": 80, "protocol": "UDP"}
    ]);
    let value = json!({"metadata": {"name": format!("s{number}")}, "spec": {"ports": ports}});
    Ok(serde_json::from_value(value)?)
}

fn address(service: &ServiceObject) -> Result<SocketAddr> {
    let spec = service.spec.as_ref().context("a Service without a spec")?;
    let ip = spec
        .cluster_ip
        .as_deref()
        .context("a Service without an address")?;
    Ok(SocketAddr::new(ip.parse()?, 80))
}

#[test]
fn five_thousand_services_come_from_our_api_server() -> Result<()> {
    let Some(mut site) = Site::prepare(&Options::new(Mode::Nftables).stack(Stack::V4))? else {
        return Ok(());
    };
    let node = site.nodes[0].namespace.clone();
    let client = site.pod(0)?;
    let backends = [site.backend(0, 8080)?, site.backend(1, 8080)?];
    let servers = [
        backends[0].address(Family::V4)?,
        backends[1].address(Family::V4)?,
    ];
    let mut server =
        ApiServer::start_in(&node, "192.168.66.11", &["--service-cidr=10.100.0.0/16"])?;
    let kubeconfig = server.kubeconfig();
    let slice = |number: usize| -> Result<EndpointSlice> {
        let list = Endpoints::web(&format!("s{number}"), &[&backends[0], &backends[1]]).value();
        Ok(serde_json::from_value(list["items"][0].clone())?)
    };
    let made = ask(&node, &kubeconfig, async |client| {
        let services: Api<ServiceObject> = Api::default_namespaced(client.clone());
        let slices: Api<EndpointSlice> = Api::default_namespaced(client);
        let options = PostParams::default();
        let create = async |number: usize| -> Result<ServiceObject> {
            slices.create(&options, &slice(number)?).await?;
            Ok(services.create(&options, &service(number)?).await?)
        };
        let all: Vec<_> = stream::iter(0..COUNT)
            .map(create)
            .buffered(32)
            .try_collect()
            .await?;
        Ok(all)
    })?;
    let mut given: Vec<_> = made.iter().map(address).collect::<Result<_>>()?;
    given.sort_unstable();
    given.dedup();
    ensure!(
        given.len() == COUNT,
        "{} addresses for {COUNT} Services",
        given.len()
    );

    let node_proxy = &mut site.nodes[0];
    node_proxy.proxy = node_proxy.proxy.clone().from_api(&kubeconfig);
    node_proxy.daemon = Some(node_proxy.proxy.start_within(LIMIT)?);
    for number in [0, 1, COUNT / 2, COUNT - 1] {
        for transport in [Tcp, Udp] {
            site.answers(
                &client.namespace,
                address(&made[number])?,
                transport,
                &servers,
            )?;
        }
    }
    // One more, one less, one endpoint less.
    let one_more = ask(&node, &kubeconfig, async |client| {
        let services: Api<ServiceObject> = Api::default_namespaced(client.clone());
        let slices: Api<EndpointSlice> = Api::default_namespaced(client);
        slices
            .create(&PostParams::default(), &slice(COUNT)?)
            .await?;
        let one_more = services
            .create(&PostParams::default(), &service(COUNT)?)
            .await?;
        services.delete("s0", &DeleteParams::default()).await?;
        let name = slice(1)?.metadata.name.context("a slice without a name")?;
        let mut left = slice(1)?.endpoints;
        left.as_mut()
            .context("a slice without endpoints")?
            .truncate(1);
        let patch = Patch::Merge(json!({"endpoints": left}));
        slices.patch(&name, &PatchParams::default(), &patch).await?;
        Ok(one_more)
    })?;
    site.answers(&client.namespace, address(&one_more)?, Tcp, &servers)?;
    site.unanswered(&client.namespace, address(&made[0])?, Tcp)?;
    site.answers(&client.namespace, address(&made[1])?, Tcp, &servers[..1])?;
    // The server is away: what was there stays; it comes back, and changes go on.
    server.kill()?;
    site.answers(&client.namespace, address(&made[2])?, Tcp, &servers)?;
    server.resume()?;
    ask(&node, &kubeconfig, async |client| {
        let services: Api<ServiceObject> = Api::default_namespaced(client);
        services.delete("s2", &DeleteParams::default()).await?;
        Ok(())
    })?;
    site.unanswered(&client.namespace, address(&made[2])?, Tcp)?;
    site.answers(&client.namespace, address(&one_more)?, Tcp, &servers)?;
    Ok(())
}
