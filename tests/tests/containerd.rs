//! Containers of a real runtime on two nodes, joined by our plugins and daemon.

use anyhow::{Context, Result, bail, ensure};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;
use tests::cluster::Node;
use tests::containerd::Containerd;
use tests::{Cluster, Options, eventually, requirement};

/// The addresses that host-local has reserved on a node.
fn reserved(node: &Node) -> Result<Vec<IpAddr>> {
    let files = node.flanneld.subnet_file();
    let folder = files.parent().unwrap_or(Path::new("/"));
    let folder = folder.join("cni-networks/cbr0");
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut addresses = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        // Beside the reservations lie a lock and the last address.
        addresses.extend(entry?.file_name().to_string_lossy().parse::<IpAddr>());
    }
    Ok(addresses)
}

#[test]
fn containers_on_two_nodes_reach_each_other() -> Result<()> {
    let programs = [
        "containerd",
        "ctr",
        "runc",
        "busybox",
        "etcd",
        "unshare",
        "nsenter",
    ];
    if !requirement::is_root() || !requirement::has_programs(&programs) {
        return Ok(());
    }
    let cluster = Cluster::start(&Options::new("vxlan"))?;
    let n1 = Containerd::start(&cluster.nodes[0], &cluster.run.subfolder("containerd1")?)?;
    let n2 = Containerd::start(&cluster.nodes[1], &cluster.run.subfolder("containerd2")?)?;

    let httpd = ["/bin/busybox", "httpd", "-f", "-p", "80", "-h", "/www"];
    let mut web = n1.spawn("web", &httpd)?;
    let address = eventually(
        "the container has an address",
        Duration::from_secs(20),
        || {
            web.ensure_alive()?;
            match reserved(&cluster.nodes[0])?[..] {
                [address] => Ok(address),
                ref other => bail!("reserved: {other:?}"),
            }
        },
    )?;
    let url = format!("http://{address}/");
    let mut attempt = 0;
    let page = eventually("the page is there", Duration::from_secs(20), || {
        attempt += 1;
        let wget = ["/bin/busybox", "wget", "-q", "-O", "-", &url];
        n2.run(&format!("client{attempt}"), &wget)
    });
    let page = page.with_context(|| cluster.state())?;
    ensure!(page == "hello from a container\n", "the page is {page:?}");

    n1.stop("web", &mut web)?;
    for node in &cluster.nodes {
        let left = reserved(node)?;
        ensure!(
            left.is_empty(),
            "n{}: still reserved: {left:?}",
            node.number
        );
        let links = node.namespace.sh("ip -brief link show type veth")?;
        let links: Vec<_> = links
            .lines()
            .filter(|line| line.starts_with("veth"))
            .collect();
        ensure!(links.is_empty(), "n{}: left {links:?}", node.number);
    }
    Ok(())
}
