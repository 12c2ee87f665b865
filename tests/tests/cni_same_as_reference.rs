//! Our plugins and the reference's, on the same input: the same result, the same kernel state, the
//! same files; and each can take over what the other has made.

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tests::conflist::{Attachment, Conflist, Runtime};
use tests::subject::{self, REFERENCE_PLUGINS, Subject};
use tests::{Namespace, Run, eventually, requirement, snapshot};

/// One input.
struct Case {
    version: &'static str,
    plugins: Value,
    capabilities: Value,
    /// Whether the reference's CHECK (1.1.1) can be asked. It fails on what it has made itself if
    /// there is a port mapping (it looks for the IPv6 rules in place of the IPv4 ones) or a route
    /// that names no gateway.
    reference_checks: bool,
}

fn case(plugins: Value) -> Case {
    Case {
        version: "1.0.0",
        plugins,
        capabilities: json!({}),
        reference_checks: true,
    }
}

fn host_local(subnets: &[&str]) -> Value {
    let ranges: Vec<_> = subnets
        .iter()
        .map(|subnet| json!([{ "subnet": subnet }]))
        .collect();
    json!({ "type": "host-local", "ranges": ranges, "dataDir": "FOLDER" })
}

fn bridge(ipam: Value, more: Value) -> Value {
    let mut plugin = json!({ "type": "bridge", "bridge": "cni0", "ipam": ipam });
    for (key, value) in more.as_object().into_iter().flatten() {
        plugin[key] = value.clone();
    }
    plugin
}

fn portmap() -> Value {
    json!({ "type": "portmap", "capabilities": { "portMappings": true } })
}

/// One subject with a node and a container of its own.
struct Side {
    runtime: Runtime,
    list: Conflist,
    attachment: Attachment,
    container: Namespace,
    folder: PathBuf,
}

impl Side {
    fn new(run: &Run, role: &str, plugins: &Path, case: &Case) -> Result<Self> {
        let folder = run.subfolder(role)?;
        let text =
            json!({ "name": "testnet", "cniVersion": case.version, "plugins": case.plugins })
                .to_string()
                .replace("FOLDER", &folder.display().to_string());
        let container = run.namespace(&format!("{role}-pod"))?;
        // The same ID on both sides: chain names are made from it.
        let mut attachment = Attachment::new("container-1", &container.path());
        attachment.capabilities = case.capabilities.as_object().cloned().unwrap_or(Map::new());
        Ok(Self {
            runtime: Runtime::new(&run.namespace(&format!("{role}-node"))?, plugins.to_owned()),
            list: Conflist::parse(&serde_json::from_str(&text)?)?,
            attachment,
            container,
            folder,
        })
    }

    fn add(&mut self) -> Result<Vec<String>> {
        let mut result = self.runtime.add(&self.list, &mut self.attachment)?;
        forget_age(&mut result);
        // Line by line, so that a difference names its member.
        let text =
            format!("{result:#}").replace(&self.container.path().display().to_string(), "NETNS");
        let plain = |line: &str| {
            let words: Vec<_> = line.split('"').map(snapshot::normal).collect();
            words.join("\"")
        };
        Ok(text.lines().map(plain).collect())
    }

    fn state(&self) -> Result<(Vec<String>, Vec<String>, Vec<String>)> {
        Ok((
            snapshot::of(&self.runtime.node)?,
            snapshot::of(&self.container)?,
            snapshot::of_folder(&self.folder)?,
        ))
    }
}

/// Takes out what differs only because Debian's reference (1.1.1) is older than the one we follow
/// (1.9): that one tells an interface's `mtu`, and an empty `dns` says nothing in either.
fn forget_age(result: &mut Value) {
    for interface in result["interfaces"].as_array_mut().into_iter().flatten() {
        interface
            .as_object_mut()
            .map(|members| members.remove("mtu"));
    }
    if result["dns"] == json!({}) {
        result.as_object_mut().map(|members| members.remove("dns"));
    }
}

/// Compares until it is the same: the kernel is done with a link some time after the plugin is.
fn ensure_same_state(when: &str, expected: &Side, found: &Side) -> Result<()> {
    eventually("both states are the same", Duration::from_secs(4), || {
        compare_state(when, expected, found)
    })
}

fn compare_state(when: &str, expected: &Side, found: &Side) -> Result<()> {
    let (expected, found) = (expected.state()?, found.state()?);
    snapshot::ensure_same(&format!("{when}: the node"), &expected.0, &found.0)?;
    snapshot::ensure_same(&format!("{when}: the container"), &expected.1, &found.1)?;
    snapshot::ensure_same(&format!("{when}: the disk"), &expected.2, &found.2)
}

fn can_run() -> bool {
    requirement::is_root()
        && requirement::has_programs(&["/usr/lib/cni/bridge", "iptables", "ip6tables"])
}

/// Same input, same outcome; then the plugins change hands before CHECK and DEL.
fn check(case: &Case) -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let run = Run::new()?;
    let ours = subject::plugin_folder(Subject::Ours, run.folder())?;
    let theirs = PathBuf::from(REFERENCE_PLUGINS);
    let mut reference = Side::new(&run, "r", &theirs, case)?;
    let mut own = Side::new(&run, "o", &ours, case)?;

    let expected = reference.add().context("the reference's ADD")?;
    let found = own.add().context("our ADD")?;
    snapshot::ensure_same("the result", &expected, &found)?;
    ensure_same_state("after ADD", &reference, &own)?;

    std::mem::swap(&mut reference.runtime.plugins, &mut own.runtime.plugins);
    for (side, who, checks) in [
        (&reference, "our", true),
        (&own, "the reference's", case.reference_checks),
    ] {
        if case.version >= "0.4.0" && checks {
            side.runtime
                .check(&side.list, &side.attachment)
                .with_context(|| format!("{who} CHECK of what the other has made"))?;
        }
        side.runtime
            .del(&side.list, &side.attachment)
            .with_context(|| format!("{who} DEL of what the other has made"))?;
    }
    ensure_same_state("after the other's DEL", &own, &reference)?;
    let left = own.runtime.node.sh("ip -brief link show type veth")?;
    ensure!(left.is_empty(), "DEL left {left}");

    // Once more in each hand's own work, and a second DEL, which must succeed.
    std::mem::swap(&mut reference.runtime.plugins, &mut own.runtime.plugins);
    for side in [&mut reference, &mut own] {
        side.add()?;
        side.runtime.del(&side.list, &side.attachment)?;
        side.runtime
            .del(&side.list, &side.attachment)
            .context("a second DEL")?;
    }
    ensure_same_state("after two DELs", &reference, &own)
}

#[test]
fn bridge_plain() -> Result<()> {
    check(&case(json!([bridge(
        host_local(&["10.5.1.0/24"]),
        json!({})
    )])))
}

#[test]
fn bridge_gateway_dual_stack() -> Result<()> {
    let more = json!({ "isDefaultGateway": true, "hairpinMode": true, "mtu": 1400 });
    check(&case(json!([bridge(
        host_local(&["10.5.1.0/24", "fd05:1::/64"]),
        more
    )])))
}

#[test]
fn bridge_masquerade_and_promiscuous_mode() -> Result<()> {
    let more = json!({ "isGateway": true, "ipMasq": true, "promiscMode": true });
    check(&case(json!([bridge(host_local(&["10.5.1.0/24"]), more)])))
}

#[test]
fn bridge_with_static_addresses_and_routes() -> Result<()> {
    let ipam = json!({
        "type": "static",
        "addresses": [{ "address": "10.5.1.7/24", "gateway": "10.5.1.1" }, { "address": "fd05:1::7/64" }],
        "routes": [{ "dst": "10.9.0.0/16" }, { "dst": "10.8.0.0/16", "gw": "10.5.1.9" }],
    });
    // Not in `ipam`: the reference of 1.1.1 forgets it there.
    let more = json!({
        "isGateway": true,
        "dns": { "nameservers": ["10.5.1.53"], "search": ["example.org"] },
    });
    let mut case = case(json!([bridge(ipam, more)]));
    case.reference_checks = false;
    check(&case)
}

#[test]
fn bridge_in_every_result_version() -> Result<()> {
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"] {
        let mut case = case(json!([bridge(
            host_local(&["10.5.1.0/24", "fd05:1::/64"]),
            json!({ "isDefaultGateway": true })
        )]));
        case.version = version;
        check(&case).with_context(|| format!("cniVersion {version}"))?;
    }
    Ok(())
}

#[test]
fn ptp_dual_stack() -> Result<()> {
    let plugin =
        json!({ "type": "ptp", "mtu": 1400, "ipam": host_local(&["10.5.1.0/24", "fd05:1::/64"]) });
    check(&case(json!([plugin])))
}

#[test]
fn ptp_masquerade() -> Result<()> {
    let mut ipam = host_local(&["10.5.1.0/24"]);
    ipam["routes"] = json!([{ "dst": "0.0.0.0/0" }]);
    check(&case(
        json!([{ "type": "ptp", "ipMasq": true, "ipam": ipam }]),
    ))
}

#[test]
fn loopback() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let run = Run::new()?;
    let ours = subject::plugin_folder(Subject::Ours, run.folder())?;
    let case = case(json!([{ "type": "loopback" }]));
    let mut answers = Vec::new();
    for (role, plugins) in [("r", Path::new(REFERENCE_PLUGINS)), ("o", &ours)] {
        let mut side = Side::new(&run, role, plugins, &case)?;
        side.attachment.ifname = "lo".to_owned();
        side.container.sh("ip link set lo down")?;
        let result = side.add()?;
        let up = snapshot::of(&side.container)?;
        side.runtime.check(&side.list, &side.attachment)?;
        side.runtime.del(&side.list, &side.attachment)?;
        answers.push((result, up, snapshot::of(&side.container)?));
    }
    snapshot::ensure_same("the result", &answers[0].0, &answers[1].0)?;
    snapshot::ensure_same("after ADD", &answers[0].1, &answers[1].1)?;
    snapshot::ensure_same("after DEL", &answers[0].2, &answers[1].2)
}

#[test]
fn portmap_after_bridge() -> Result<()> {
    let plugins = json!([
        bridge(
            host_local(&["10.5.1.0/24"]),
            json!({ "isDefaultGateway": true, "hairpinMode": true })
        ),
        portmap()
    ]);
    let mut case = case(plugins);
    case.reference_checks = false;
    case.capabilities = json!({ "portMappings": [
        { "hostPort": 8080, "containerPort": 80, "protocol": "tcp" },
        { "hostPort": 8081, "containerPort": 81, "protocol": "udp" },
        { "hostPort": 8082, "containerPort": 82, "protocol": "tcp", "hostIP": "127.0.0.1" },
    ]});
    check(&case)
}

#[test]
fn portmap_dual_stack() -> Result<()> {
    let plugins = json!([
        bridge(
            host_local(&["10.5.1.0/24", "fd05:1::/64"]),
            json!({ "isDefaultGateway": true })
        ),
        portmap()
    ]);
    let mut case = case(plugins);
    case.reference_checks = false;
    case.capabilities =
        json!({ "portMappings": [{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }] });
    check(&case)
}

/// The runtime asks for addresses and a MAC.
#[test]
fn capability_arguments() -> Result<()> {
    let mut ipam = host_local(&["10.5.1.0/24"]);
    ipam["capabilities"] = json!({ "ips": true });
    let mut plugin = bridge(ipam, json!({ "isGateway": true }));
    plugin["capabilities"] = json!({ "ips": true, "mac": true });
    let mut case = case(json!([plugin]));
    case.capabilities = json!({ "ips": ["10.5.1.77"], "mac": "c2:11:22:33:44:55" });
    check(&case)
}
