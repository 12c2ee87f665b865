//! A cluster whose leases come from our API server: no etcd runs. Each daemon comes as its own node, with
//! no more rights than that.

use anyhow::{Context, Result, bail};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use reconciler::api::pki::Pki;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;
use tests::cluster::Stack;
use tests::topology::{ROUTER, Underlay};
use tests::{ApiServer, Cluster, Options, Run, eventually, requirement};

type NodeObject = k8s_openapi::api::core::v1::Node;

/// What the names of annotations begin with.
pub const PREFIX: &str = "flannel.alpha.coreos.com/";

pub struct Bed {
    pub cluster: Cluster<ApiServer>,
    pub options: Options,
}

impl Bed {
    /// Server, nodes and their Nodes, with podCIDRs; no daemon runs yet. `None`: not on this machine.
    pub fn prepare(options: Options) -> Result<Option<Self>> {
        if !requirement::is_root() || !requirement::has_programs(&["ping"]) {
            return Ok(None);
        }
        let run = Run::new()?;
        let underlay = Underlay::new(&run)?;
        let server = ApiServer::start_in(&underlay.namespace, &ROUTER.to_string(), &[])?;
        std::fs::write(
            run.folder().join("net-conf.json"),
            options.network_config().to_string(),
        )?;
        let mut bed = Self {
            cluster: Cluster::new(server, underlay, run),
            options,
        };
        for number in 1..=bed.options.nodes {
            bed.join()?;
            let cidrs = bed.pod_cidrs(number);
            bed.register(number, &cidrs)?;
        }
        Ok(Some(bed))
    }

    /// The same with a daemon on each node, all ready.
    pub fn start(options: Options) -> Result<Option<Self>> {
        let Some(mut bed) = Self::prepare(options)? else {
            return Ok(None);
        };
        for node in &mut bed.cluster.nodes {
            node.start_daemon()?;
        }
        Ok(Some(bed))
    }

    /// One more node, without a Node.
    pub fn join(&mut self) -> Result<()> {
        let number = self.cluster.nodes.len() + 1;
        let kubeconfig = self.kubeconfig_of(&format!("n{number}"))?;
        let net_config = self.cluster.run.folder().join("net-conf.json");
        let flags = [
            "--kube-subnet-mgr".to_owned(),
            format!("--kubeconfig-file={}", kubeconfig.display()),
            format!("--net-config-path={}", net_config.display()),
        ];
        let flags = flags.into_iter().chain(self.options.flags.iter().cloned());
        let node = self.cluster.join_with(flags)?;
        node.flanneld.set_env("NODE_NAME", &format!("n{number}"));
        Ok(())
    }

    fn kubeconfig_of(&self, node: &str) -> Result<PathBuf> {
        let server = &self.cluster.store;
        let pki = Pki::open(&server.folder(), &[])?;
        let user = format!("system:node:{node}");
        let pair = pki.issue(&user, &["system:nodes"], Duration::from_secs(3600))?;
        let path = self.cluster.run.folder().join(format!("{node}.kubeconfig"));
        std::fs::write(&path, pki.kubeconfig(&server.url(), node, &pair))?;
        Ok(path)
    }

    /// What a controller manager would give node `number`.
    pub fn pod_cidrs(&self, number: u8) -> Vec<String> {
        let v4 = format!("10.5.{number}.0/24");
        let v6 = format!("fd05:0:0:{number:x}::/64");
        match self.options.stack {
            Stack::V4 => vec![v4],
            Stack::V6 => vec![v6],
            Stack::Dual => vec![v4, v6],
        }
    }

    /// Asks the API server as its administrator.
    pub fn ask<T: Send>(
        &self,
        job: impl AsyncFnOnce(Client) -> kube::Result<T> + Send,
    ) -> Result<T> {
        let kubeconfig = self.cluster.store.kubeconfig();
        // Sockets are made on a thread inside.
        self.cluster.underlay.namespace.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let file = Kubeconfig::read_from(&kubeconfig)?;
                let config =
                    Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
                Ok(job(Client::try_from(config)?).await?)
            })
        })
    }

    /// Makes a Node.
    pub fn register(&self, number: u8, cidrs: &[String]) -> Result<()> {
        let spec = match cidrs.first() {
            Some(first) => json!({"podCIDR": first, "podCIDRs": cidrs}),
            None => json!({}),
        };
        let node = json!({"metadata": {"name": format!("n{number}")}, "spec": spec});
        let node: NodeObject = serde_json::from_value(node)?;
        self.ask(async |client| {
            let nodes = Api::<NodeObject>::all(client);
            nodes.create(&PostParams::default(), &node).await.map(drop)
        })
    }

    /// Deletes a Node.
    pub fn unregister(&self, number: u8) -> Result<()> {
        let name = format!("n{number}");
        self.ask(async |client| {
            let nodes = Api::<NodeObject>::all(client);
            let gone = nodes.delete(&name, &DeleteParams::default()).await;
            gone.map(drop)
        })
    }

    /// Changes a Node.
    pub fn patch(&self, number: u8, patch: Value) -> Result<()> {
        let name = format!("n{number}");
        self.ask(async |client| {
            let nodes = Api::<NodeObject>::all(client);
            let patch = Patch::Merge(patch);
            let patched = nodes.patch(&name, &PatchParams::default(), &patch).await;
            patched.map(drop)
        })
    }

    /// Sets or, with null, removes one of flannel's annotations.
    pub fn annotate(&self, number: u8, last: &str, value: Value) -> Result<()> {
        let annotations = json!({format!("{PREFIX}{last}"): value});
        self.patch(number, json!({"metadata": {"annotations": annotations}}))
    }

    /// A Node as it is.
    pub fn node(&self, number: u8) -> Result<Value> {
        let name = format!("n{number}");
        let node = self.ask(async |client| Api::<NodeObject>::all(client).get(&name).await)?;
        Ok(serde_json::to_value(node)?)
    }

    /// Flannel's annotations of a Node, as `name=value` in order.
    pub fn annotations(&self, number: u8) -> Result<Vec<String>> {
        let node = self.node(number)?;
        let all = node["metadata"]["annotations"].as_object();
        let all = all.into_iter().flatten();
        Ok(all
            .filter_map(|(name, value)| {
                let name = name.strip_prefix(PREFIX)?;
                Some(format!("{name}={}", value.as_str()?))
            })
            .collect())
    }

    /// Waits until a Node's annotations are so.
    pub fn wait_annotations(&self, number: u8, wanted: &[&str]) -> Result<()> {
        let what = format!("n{number} is annotated");
        eventually(&what, Duration::from_secs(15), || {
            let found = self.annotations(number)?;
            if found != wanted {
                bail!("{found:?}, not {wanted:?}");
            }
            Ok(())
        })
        .with_context(|| self.cluster.state())
    }

    /// Waits until a daemon's log has this text; for one that is not ready.
    pub fn wait_log(&mut self, index: usize, text: &str) -> Result<()> {
        let daemon = &mut self.cluster.nodes[index].daemon;
        let daemon = daemon.as_mut().context("no daemon")?;
        let what = format!("n{} says {text:?}", index + 1);
        eventually(&what, Duration::from_secs(15), || {
            daemon.ensure_alive()?;
            let log = daemon.log()?;
            if !log.contains(text) {
                bail!("its log:\n{log}");
            }
            Ok(())
        })
    }
}
