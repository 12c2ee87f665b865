//! What a former Go kube-proxy left, in all of its modes.

use kernel::nft::{self, Transaction};
use kernel::{Change, Netlink, process};

use crate::mode::Report;
use crate::mode::iptables;
use crate::model::Family;

/// The device that holds its virtual addresses in ipvs mode.
const IPVS_DEVICE: &str = "kube-ipvs0";

/// Removes it for a family; goes on past errors.
pub fn remove(family: Family) -> Report {
    let mut report = iptables::remove_kube_proxy(family);
    take(&mut report, remove_table(family));
    if family == Family::V4 {
        // Of both families.
        take(&mut report, flush_ipvs());
        take(&mut report, remove_device());
    }
    take(&mut report, remove_sets(family));
    if report.changes > 0 {
        tracing::info!("{}: removed what kube-proxy had left", family.label());
    }
    for error in &report.errors {
        tracing::warn!(
            "{}: remove what kube-proxy has left: {error}",
            family.label()
        );
    }
    report
}

fn take(report: &mut Report, result: Result<usize, String>) {
    match result {
        Ok(changes) => report.changes += changes,
        Err(error) => report.errors.push(error),
    }
}

fn remove_table(family: Family) -> Result<usize, String> {
    let family = match family {
        Family::V4 => nft::Family::Ip,
        Family::V6 => nft::Family::Ip6,
    };
    let table = nft::Table::new(family, "kube-proxy");
    // No nf_tables, no table.
    let Ok(mut socket) = nft::Socket::open() else {
        return Ok(0);
    };
    let mut transaction = Transaction::new(&table);
    transaction.delete_table();
    match socket.commit(&transaction) {
        Ok(_) => Ok(1),
        Err(error) if error.is_not_found() || error.is_not_supported() => Ok(0),
        Err(error) => Err(error.to_string()),
    }
}

fn remove_device() -> Result<usize, String> {
    let remove = || -> kernel::Result<usize> {
        let mut netlink = Netlink::open()?;
        let links = netlink.links()?;
        let Some(link) = links.iter().find(|link| link.name == IPVS_DEVICE) else {
            return Ok(0);
        };
        netlink.apply(&Change::DeleteLink {
            index: link.index,
            name: link.name.clone(),
        })?;
        Ok(1)
    };
    remove().map_err(|error| error.to_string())
}

/// Virtual servers of ipvs are kept by the kernel, whoever made them; kube-proxy's own cleanup
/// flushes all of them, too.
fn flush_ipvs() -> Result<usize, String> {
    let Ok(text) = std::fs::read_to_string("/proc/net/ip_vs") else {
        return Ok(0);
    };
    let servers = text
        .lines()
        .filter(|line| {
            ["TCP", "UDP", "SCTP"]
                .iter()
                .any(|word| line.starts_with(word))
        })
        .count();
    if servers == 0 {
        return Ok(0);
    }
    process::run("flush ipvs", "ipvsadm", &["--clear"], "")
        .map(|_| servers)
        .map_err(|error| error.to_string())
}

/// Its ipsets begin with `KUBE-`, those of IPv6 with `KUBE-6-`.
fn remove_sets(family: Family) -> Result<usize, String> {
    if process::find("ipset").is_none() {
        // Without the program none can have been made by hand; kube-proxy needs it too.
        return Ok(0);
    }
    let names = process::run("list ipsets", "ipset", &["list", "-name"], "");
    let names = names.map_err(|error| error.to_string())?;
    let ours = names.lines().filter(|name| {
        name.starts_with("KUBE-") && name.starts_with("KUBE-6-") == (family == Family::V6)
    });
    let mut removed = 0;
    for name in ours {
        process::run(
            &format!("destroy ipset {name}"),
            "ipset",
            &["destroy", name],
            "",
        )
        .map_err(|error| error.to_string())?;
        removed += 1;
    }
    Ok(removed)
}
