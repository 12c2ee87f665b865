//! ADD and DEL as a runtime sees them: a whole process each, ours and the reference in turn.

use crate::outcome::{Outcome, Series};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;
use tests::Run;
use tests::conflist::{Attachment, Conflist, Runtime};
use tests::subject::{self, REFERENCE_PLUGINS, Subject};

/// A node with one subject's plugins and the chain it is measured with.
struct Contender {
    runtime: Runtime,
    list: Conflist,
    add: Series,
    del: Series,
}

impl Contender {
    fn new(run: &Run, name: &str, node: &str, plugins: &Path, list: &Value) -> Result<Self> {
        Ok(Self {
            runtime: Runtime::new(&run.namespace(node)?, plugins.to_owned()),
            list: Conflist::parse(list)?,
            add: Series::new(&format!("{name} ADD")),
            del: Series::new(&format!("{name} DEL")),
        })
    }

    fn round(&mut self, run: &Run, id: &str, ports: Option<&Value>, counts: bool) -> Result<()> {
        let container = run.namespace(id)?;
        let mut attachment = Attachment::new(id, &container.path());
        if let Some(ports) = ports {
            attachment
                .capabilities
                .insert("portMappings".to_owned(), ports.clone());
        }
        self.runtime.take_spent();
        self.runtime.add(&self.list, &mut attachment)?;
        let add = self.runtime.take_spent();
        self.runtime.del(&self.list, &attachment)?;
        let del = self.runtime.take_spent();
        if counts {
            self.add.push(add);
            self.del.push(del);
        }
        run.remove(&container)
    }
}

/// Measures `rounds` rounds of each pair; one more before them fills caches and does not count.
pub fn run(rounds: u32) -> Result<Outcome> {
    let run = Run::new()?;
    let ours = subject::plugin_folder(Subject::Ours, run.folder())?;
    let reference = Path::new(REFERENCE_PLUGINS);
    let mut outcome = Outcome::default();
    // One Pod stays in each node, as on any node that is in use.
    let mut compare =
        |label: &str, list_ours: &Value, list_reference: &Value, ports: Option<Value>| {
            let node = |who: &str| format!("{label}-{who}").replace([' ', ',', '→', '+'], "");
            let mut pair = [
                Contender::new(
                    &run,
                    &format!("{label}: ours"),
                    &node("o"),
                    &ours,
                    list_ours,
                )?,
                Contender::new(
                    &run,
                    &format!("{label}: reference"),
                    &node("r"),
                    reference,
                    list_reference,
                )?,
            ];
            for contender in &mut pair {
                contender
                    .runtime
                    .node
                    .sh("ip link add keep type veth peer name keep2")?;
            }
            for round in 0..=rounds {
                // Who goes first changes, so that neither always finds the other's warm caches.
                pair.reverse();
                for (index, contender) in pair.iter_mut().enumerate() {
                    let id = format!("{}{round}-{index}", node("c"));
                    contender
                        .round(&run, &id, ports.as_ref(), round > 0)
                        .with_context(|| contender.add.name.clone())?;
                }
            }
            if !pair[0].add.name.contains("ours") {
                pair.reverse();
            }
            let [o, r] = pair;
            println!(
                "  {label}: ADD {:.2} ms against {:.2} ms, DEL {:.2} ms against {:.2} ms",
                o.add.median(),
                r.add.median(),
                o.del.median(),
                r.del.median()
            );
            let ratios = (
                o.add.median() / r.add.median(),
                o.del.median() / r.del.median(),
            );
            outcome.series.extend([o.add, r.add, o.del, r.del]);
            anyhow::Ok(ratios)
        };

    let bridge = |name: &str| bridge_plugin(&run.folder().join(name));
    let single = |name: &str| list(json!([bridge(name)]));
    let (bridge_add, bridge_del) = compare("bridge", &single("b1"), &single("b2"), None)?;

    let flannel = |name: &str| flannel_chain(&run, name);
    let chain = |name: &str| list(json!([bridge(name), portmap()]));
    let (chain_add, chain_del) = compare("flannel chain", &flannel("f1")?, &chain("f2"), None)?;
    let ports = json!([{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }]);
    let (ports_add, ports_del) = compare(
        "flannel chain, a port",
        &flannel("f3")?,
        &chain("f4"),
        Some(ports),
    )?;

    let third = 1.0 / 3.0;
    outcome.promise(
        "bridge + host-local ADD, of the reference's time",
        bridge_add,
        third,
        "×",
    );
    outcome.promise(
        "bridge + host-local DEL, of the reference's time",
        bridge_del,
        1.0,
        "×",
    );
    outcome.promise(
        "flannel conflist ADD, of the reference's time",
        chain_add,
        0.25,
        "×",
    );
    outcome.promise(
        "flannel conflist ADD with a port mapping, of the reference's time",
        ports_add,
        0.25,
        "×",
    );
    outcome.remarks.push((
        "flannel conflist DEL, ours/reference".to_owned(),
        chain_del,
        "×",
    ));
    outcome
        .remarks
        .push(("the same with a port mapping".to_owned(), ports_del, "×"));

    let size = std::fs::metadata(ours.join("weft-cni"))?.size() as f64 / 1e6;
    outcome.promise("the installed plugin set, one file", size, 4.0, "MB");
    let names = [
        "bridge",
        "host-local",
        "loopback",
        "portmap",
        "ptp",
        "static",
    ];
    let mut reference_size = 0.0;
    for name in names {
        let path = reference.join(name);
        let meta =
            std::fs::metadata(&path).with_context(|| format!("size of {}", path.display()))?;
        reference_size += meta.size() as f64 / 1e6;
    }
    outcome
        .remarks
        .push((format!("the reference's {names:?}"), reference_size, "MB"));
    outcome.series.push(floor(rounds)?);
    Ok(outcome)
}

/// What starting any process costs here.
fn floor(rounds: u32) -> Result<Series> {
    let mut series = Series::new("/bin/true, the floor of a process");
    for _ in 0..rounds {
        let started = Instant::now();
        tests::process::output_with_input(&mut Command::new("/bin/true"), "")?;
        series.push(started.elapsed());
    }
    Ok(series)
}

fn list(plugins: Value) -> Value {
    json!({ "name": "bench", "cniVersion": "1.0.0", "plugins": plugins })
}

/// What flannel makes of its conflist: the same bridge for both.
fn bridge_plugin(folder: &Path) -> Value {
    json!({
        "type": "bridge",
        "bridge": "cni0",
        "mtu": 1450,
        "hairpinMode": true,
        "isGateway": true,
        "isDefaultGateway": true,
        "ipMasq": false,
        "ipam": {
            "type": "host-local",
            "ranges": [[{ "subnet": "10.5.1.0/24" }]],
            "routes": [{ "dst": "10.5.0.0/16" }],
            "dataDir": folder,
        },
    })
}

fn portmap() -> Value {
    json!({ "type": "portmap", "capabilities": { "portMappings": true } })
}

fn flannel_chain(run: &Run, name: &str) -> Result<Value> {
    let folder = run.subfolder(name)?;
    let subnet_file = folder.join("subnet.env");
    std::fs::write(
        &subnet_file,
        "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n",
    )?;
    Ok(tests::cluster::kube_flannel_conflist(&subnet_file, &folder))
}
