//! Real container runtimes call the plugins: containerd (`ctr run --cni`) and podman (its CNI
//! backend) on a node of a cluster, with the conflist that `scripts/install.sh` installs.
//!
//! With `WEFT_CNI_SUBJECT=reference`, which has no `flannel` plugin, the conflist says what
//! `flannel` would delegate.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;
use tests::cluster::Node;
use tests::container::{Container, Containers, Engine, Room, has_static_busybox};
use tests::pod::Family;
use tests::subject::{self, Subject};
use tests::traffic::{Ping, TcpServer};
use tests::{Cluster, Namespace, Options, Pod, eventually, requirement, snapshot};

/// The conflist for a node whose subnet.env is written.
fn conflist(node: &Node) -> Result<Value> {
    let mut list: Value =
        serde_json::from_str(include_str!("../../scripts/install/10-flannel.conflist"))?;
    if subject::plugins() == Subject::Reference {
        list["plugins"][0] = json!({
            "type": "bridge",
            "mtu": node.mtu()?,
            "hairpinMode": true,
            "isDefaultGateway": true,
            "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "ranges": [[{ "subnet": node.subnet(Family::V4)? }]],
                "routes": [{ "dst": tests::cluster::NETWORK }],
            },
        });
    }
    Ok(list)
}

/// A two-node cluster, and a room on its first node.
struct Site {
    room: Room,
    /// On the second node.
    pod: Pod,
    cluster: Cluster,
}

impl Site {
    /// `None` if the machine lacks what it needs, which has been said.
    fn start(programs: &[&str]) -> Result<Option<Self>> {
        let always = ["etcd", "etcdctl", "ping", "iptables", "nsenter", "unshare"];
        if !requirement::is_root() || !requirement::has_programs(&[&always[..], programs].concat())
        {
            return Ok(None);
        }
        let cluster = Cluster::start(&Options::new("vxlan"))?;
        if !has_static_busybox(&cluster.run)? {
            return Ok(None);
        }
        let pod = cluster.pod(1, "far")?;
        let node = &cluster.nodes[0];
        let plugins = subject::plugin_folder(subject::plugins(), cluster.run.folder())?;
        let room = Room::new(
            &cluster.run,
            &node.namespace,
            &plugins,
            &conflist(node)?,
            &node.flanneld.subnet_file(),
        )?;
        Ok(Some(Self { room, pod, cluster }))
    }

    /// Lets a first container live and die, which makes what stays (the bridge, portmap's empty
    /// chains), and returns the traces of that.
    fn idle(&self, containers: &Containers<'_>, ports: &[&str]) -> Result<Vec<String>> {
        containers.container("first", ports)?.end()?;
        let node = &self.cluster.nodes[0];
        let bridge = "ip -brief link show dev cni0";
        node.wait_for("the bridge is down", bridge, |line| {
            line.contains("NO-CARRIER")
        })?;
        let idle = self.traces()?;
        self.is_idle(&idle)?;
        Ok(idle)
    }

    /// What the containers have left on the node, chance taken out, and on disk.
    fn traces(&self) -> Result<Vec<String>> {
        let mut lines = snapshot::of(&self.cluster.nodes[0].namespace)?;
        let files = snapshot::of_folder(&self.room.cni_state())?;
        lines.extend(files.into_iter().filter(|file| {
            !file.starts_with("networks/cbr0/last_reserved_ip.") && !file.contains("/lock: ")
        }));
        Ok(lines)
    }

    /// The container has an address of its node's subnet, noted in the file that host-local would
    /// write, and talks with a Pod of the other node under that address, both ways.
    fn is_on_the_network(&self, container: &Container<'_>) -> Result<IpAddr> {
        let node = &self.cluster.nodes[0];
        let (subnet, address) = (node.subnet(Family::V4)?, container.address()?);
        let own = address.addr();
        ensure!(
            address.trunc() == subnet,
            "the container has {address}, the node {subnet}"
        );
        let file = self.room.cni_state().join(format!("networks/cbr0/{own}"));
        let owner =
            std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let mut lines = owner.lines();
        let (id, ifname) = (lines.next().unwrap_or_default(), lines.next());
        ensure!(
            !id.is_empty() && ifname == Some("eth0") && lines.next().is_none(),
            "{} says {owner:?}",
            file.display()
        );
        let mtu = container.exec("ip link show dev eth0")?;
        ensure!(
            mtu.contains(&format!(" mtu {} ", node.mtu()?)),
            "the container's link: {mtu}"
        );
        let far = self.pod.ip(Family::V4)?;
        eventually("the other node is reached", Duration::from_secs(15), || {
            container.ping(far)
        })?;
        Ping::new(own).run(&self.pod.namespace)?;
        Ping::new(own).run(&node.namespace)?;
        let server = TcpServer::start(&self.pod.namespace, far, 0)?;
        let seen = container.seen_as(server.address)?;
        ensure!(seen.ip() == own, "the Pod sees {seen}, not {own}");
        Ok(own)
    }

    /// After the containers' end nothing of them is left, which `idle` tells. The address file has
    /// gone when the client ends; a link goes with its namespace, which the kernel does in its own time.
    fn is_idle(&self, idle: &[String]) -> Result<()> {
        let files = snapshot::of_folder(&self.room.cni_state().join("networks/cbr0"))?;
        let address = files.iter().find(|file| file.starts_with("10."));
        ensure!(address.is_none(), "DEL left the address file {address:?}");
        eventually("nothing is left", Duration::from_secs(5), || {
            let ports = "ip -brief link show master cni0";
            let ports = self.cluster.nodes[0].namespace.sh(ports)?;
            ensure!(ports.is_empty(), "the bridge still has {ports}");
            snapshot::ensure_same("the idle node", idle, &self.traces()?)
        })
    }
}

#[test]
fn containerd_wires_containers_and_releases_them() -> Result<()> {
    let Some(site) = Site::start(&["containerd", "ctr", "runc"])? else {
        return Ok(());
    };
    let engine = Engine::containerd(&site.room)?;
    let containers = Containers::start(&site.cluster.run, &site.room, engine)?;
    let idle = site.idle(&containers, &[])?;

    let a = containers.container("a", &[])?;
    let ip = site
        .is_on_the_network(&a)
        .with_context(|| site.cluster.state())?;
    let b = containers.container("b", &[])?;
    let other = site.is_on_the_network(&b)?;
    ensure!(ip != other, "two containers have {ip}");
    b.ping(ip).context("between two containers of a node")?;
    a.end()?;
    b.ping(site.pod.ip(Family::V4)?)
        .context("when the other container has ended")?;
    b.end()?;
    site.is_idle(&idle)
}

#[test]
fn containerd_starts_many_at_once_and_none_shares_an_address() -> Result<()> {
    let Some(site) = Site::start(&["containerd", "ctr", "runc"])? else {
        return Ok(());
    };
    let engine = Engine::containerd(&site.room)?;
    let containers = Containers::start(&site.cluster.run, &site.room, engine)?;
    let idle = site.idle(&containers, &[])?;
    let live = |number: u8| -> Result<IpAddr> {
        let container = containers.container(&format!("c{number}"), &[])?;
        let ip = container.address()?.addr();
        eventually("the other node is reached", Duration::from_secs(15), || {
            container.ping(site.pod.ip(Family::V4)?)
        })?;
        container.end()?;
        Ok(ip)
    };
    let addresses: Vec<IpAddr> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6)
            .map(|number| scope.spawn(move || live(number)))
            .collect();
        let results = threads.into_iter().map(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        results.collect::<Result<_>>()
    })?;
    let distinct: BTreeSet<_> = addresses.iter().collect();
    ensure!(
        distinct.len() == addresses.len(),
        "containers share addresses: {addresses:?}"
    );
    site.is_idle(&idle)
}

#[test]
fn podman_wires_a_container_with_a_host_port_and_releases_both() -> Result<()> {
    let Some(site) = Site::start(&["podman", "conmon"])? else {
        return Ok(());
    };
    let containers = Containers::start(&site.cluster.run, &site.room, Engine::podman(&site.room)?)?;
    let idle = site.idle(&containers, &["8080:80"])?;

    let container = containers.container("a", &["8080:80"])?;
    site.is_on_the_network(&container)
        .with_context(|| site.cluster.state())?;
    let outside = &site.cluster.underlay.outside;
    let port = SocketAddr::new(site.cluster.nodes[0].ip(Family::V4), 8080);
    let answer = std::thread::scope(|scope| {
        let line = "printf hello | timeout 20 nc -l -p 80";
        let server = scope.spawn(|| container.exec(line));
        let answer = eventually("the host port answers", Duration::from_secs(10), || {
            read_from(outside, port)
        });
        match server.join() {
            Ok(served) => served.and(answer),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })?;
    ensure!(answer == "hello", "the host port says {answer:?}");
    container.end()?;
    site.is_idle(&idle)?;
    ensure!(
        read_from(outside, port).is_err(),
        "the host port still answers"
    );
    Ok(())
}

/// What a TCP server has to say to a client in `namespace`.
fn read_from(namespace: &Namespace, server: SocketAddr) -> Result<String> {
    let patience = Duration::from_secs(2);
    let mut stream = namespace.run(|| Ok(TcpStream::connect_timeout(&server, patience)?))?;
    stream.set_read_timeout(Some(patience))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
