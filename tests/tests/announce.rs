//! `kernel::arp`: a neighbour that remembers an address's former owner learns the new one at once,
//! and the announcement does not wait for the kernel's grace periods.

use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};
use tests::{Run, eventually, requirement};

#[test]
fn neighbours_forget_the_former_owner() -> Result<()> {
    if !requirement::is_root() {
        return Ok(());
    }
    let run = Run::new()?;
    let (node, pod) = (run.namespace("node")?, run.namespace("pod")?);
    node.ip_batch(&format!(
        "link add v0 type veth peer name eth0 netns {}
         address add 10.5.1.1/24 dev v0
         address add fd05:1::1/64 dev v0 nodad
         link set v0 up",
        pod.name()
    ))?;
    pod.ip_batch(
        "address add 10.5.1.2/24 dev eth0
         address add fd05:1::2/64 dev eth0 nodad
         link set eth0 up",
    )?;
    for ip in ["10.5.1.2", "fd05:1::2"] {
        node.sh(&format!(
            "ip neigh replace {ip} lladdr 02:00:00:00:00:99 dev v0 nud stale"
        ))?;
    }
    // A link-local address must be past its duplicate check before advertisements go out.
    std::thread::sleep(Duration::from_millis(1500));
    let mut times = Vec::new();
    let mac = pod.run(|| {
        let mut nl = kernel::Netlink::open()?;
        let link = nl.link("eth0")?.context("eth0")?;
        for ip in ["10.5.1.2", "fd05:1::2"] {
            let started = Instant::now();
            kernel::arp::announce(&link, ip.parse()?)?;
            times.push(started.elapsed());
        }
        link.mac.context("eth0 has no MAC")
    })?;
    for ip in ["10.5.1.2", "fd05:1::2"] {
        eventually(
            &format!("{ip} is known anew"),
            Duration::from_secs(3),
            || {
                let known = node.sh(&format!("ip neigh show {ip}"))?;
                ensure!(known.contains(&mac.to_string()), "{known:?}, not {mac}");
                Ok(())
            },
        )?;
    }
    // A packet socket's close takes 10 ms and more; this is a fraction of one.
    let quickest = times.iter().min().context("two times")?;
    ensure!(
        *quickest < Duration::from_millis(5),
        "announcing took {times:?}"
    );
    Ok(())
}
