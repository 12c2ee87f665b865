//! Whether a node really does what its subject is called: a daemon that fell back to another data
//! path must not be measured under the wrong name.

use super::site::Node;
use anyhow::{Result, bail, ensure};

/// How it is seen that a node really uses what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Nothing to choose between.
    None,
    /// The daemon's metrics name the data path.
    Path(&'static str),
    /// The device is of this kind (`ip -details link`).
    Device(&'static str, &'static str),
}

/// The least share of the bytes that the eBPF programs must have carried themselves.
const CARRIED: f64 = 0.9;

impl Proof {
    /// The data path in use; an error when it is not the one asked for.
    pub fn check(self, node: &Node) -> Result<String> {
        match self {
            Self::None => Ok("kernel".to_owned()),
            Self::Device(device, kind) => {
                let text = node
                    .namespace
                    .sh(&format!("ip -details link show {device}"))?;
                ensure!(
                    text.split_whitespace().any(|word| word == kind),
                    "{device} is no {kind} device"
                );
                Ok(kind.to_owned())
            }
            Self::Path(wanted) => match chosen(&metrics(node)?) {
                Some(path) if path == wanted => Ok(path.to_owned()),
                Some(path) => bail!("the daemon chose {path}"),
                None => bail!("the daemon does not tell its data path"),
            },
        }
    }

    /// The same again, and that packets took this path and not the one beneath it.
    pub fn check_carried(self, node: &Node) -> Result<()> {
        self.check(node)?;
        if self == Self::Path("ebpf") {
            let share = share(&metrics(node)?, "ebpf");
            ensure!(
                share >= CARRIED,
                "the programs carried only {:.0} % of the bytes",
                share * 100.0
            );
        }
        Ok(())
    }
}

fn metrics(node: &Node) -> Result<String> {
    let (status, page) = node.flanneld.health("metrics")?;
    ensure!(status == 200, "/metrics says {status}");
    Ok(page)
}

/// The data path that the page of metrics names.
fn chosen(page: &str) -> Option<&str> {
    let labels = page
        .lines()
        .find_map(|line| line.strip_prefix("flanneld_tunnel_info{"))?;
    let (_, rest) = labels.split_once("data_path=\"")?;
    Some(rest.split_once('"')?.0)
}

/// The part (0 to 1) of all tunnelled bytes, both directions, that `path` carried.
fn share(page: &str, path: &str) -> f64 {
    let label = format!("path=\"{path}\"");
    let (mut own, mut all) = (0.0, 0.0);
    for line in page.lines() {
        let Some(rest) = line.strip_prefix("flanneld_tunnel_bytes_total{") else {
            continue;
        };
        let Some((labels, value)) = rest.split_once("} ") else {
            continue;
        };
        let bytes: f64 = value.parse().unwrap_or(f64::NAN);
        all += bytes;
        if labels.contains(&label) {
            own += bytes;
        }
    }
    if all > 0.0 { own / all } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::{chosen, share};

    #[test]
    fn data_path_is_a_label() {
        let page = "flanneld_peers 1\nflanneld_tunnel_info{data_path=\"ebpf\",device=\"x\"} 1\n";
        assert_eq!(chosen(page), Some("ebpf"));
        assert_eq!(chosen("flanneld_peers 1\n"), None);
    }

    #[test]
    fn share_is_of_both_directions() {
        let page = "\
            # TYPE flanneld_tunnel_bytes_total counter\n\
            flanneld_tunnel_bytes_total{direction=\"sent\",path=\"user\"} 10\n\
            flanneld_tunnel_bytes_total{direction=\"received\",path=\"user\"} 15\n\
            flanneld_tunnel_bytes_total{direction=\"sent\",path=\"ebpf\"} 70\n\
            flanneld_tunnel_bytes_total{direction=\"received\",path=\"ebpf\"} 5\n";
        assert_eq!(share(page, "ebpf"), 0.75);
        assert_eq!(share("", "ebpf"), 0.0);
    }
}
