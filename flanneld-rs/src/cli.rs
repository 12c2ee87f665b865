//! The command line and `FLANNELD_*` variables: first as written ([`flags`]), then checked ([`Options`]).
//!
//! `EVENT_QUEUE_DEPTH` and `CONT_WHEN_CACHE_NOT_READY` of flannel's manifests mean nothing here: no queue
//! overflows, and a server that does not answer is waited for.

pub mod flags;

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use regex_lite::Regex;

use crate::kubernetes::{self, Annotations, NodeName};
use crate::lease::store::etcd::{Access, Secret};
use flags::Given;

/// What the operator asked for.
#[derive(Debug)]
pub enum Command {
    /// Run the daemon, or print its plan (`dry_run`).
    Run(Options),
    /// Remove everything from this host.
    Cleanup(Options),
    /// Print the version on stderr, exit 0.
    Version,
    /// Print this on stderr, exit 0 (flanneld does so even for a flag it does not know).
    Usage(String),
}

/// Checked options.
#[derive(Debug)]
pub struct Options {
    /// How to reach etcd; of no use with `kubernetes`.
    pub etcd: Access,
    /// `--kube-subnet-mgr`: leases come from Kubernetes and not from etcd.
    pub kubernetes: Option<kubernetes::Settings>,
    /// How to choose the external interface.
    pub iface: IfaceOptions,
    /// `--subnet-file`.
    pub subnet_file: PathBuf,
    /// `--subnet-lease-renew-margin`.
    pub renew_margin: Duration,
    /// `--ip-masq`.
    pub masquerade: bool,
    /// Inverse of `--ip-masq-fully-random-disable`.
    pub fully_random: bool,
    /// `--iptables-forward-rules`.
    pub forward: bool,
    /// `--iptables-resync`.
    pub firewall_resync: Duration,
    /// `--ip-blackhole-route`.
    pub blackhole_route: bool,
    /// `--healthz-ip` and `--healthz-port`; `None` when off.
    pub health: Option<SocketAddr>,
    /// `--data-path`, to be checked against the backend; `None` when not given.
    pub data_path: Option<String>,
    /// `-v`.
    pub verbosity: i64,
    /// `--dry-run`.
    pub dry_run: bool,
    /// `NOTIFY_SOCKET`: where a service manager waits for `READY=1`.
    pub notify: Option<OsString>,
    /// Things to tell the operator once the log is open.
    pub notes: Vec<String>,
}

/// How to choose the external interface.
#[derive(Clone, Debug, Default)]
pub struct IfaceOptions {
    /// Names or addresses.
    pub iface: Vec<String>,
    /// Patterns for addresses or names.
    pub regex: Vec<Regex>,
    /// Route lookup target.
    pub can_reach: Option<IpAddr>,
    /// Announced address.
    pub public_ip: Option<Ipv4Addr>,
    /// Announced address.
    pub public_ipv6: Option<Ipv6Addr>,
}

/// Reads arguments (without the program's name) and environment. An error means exit 1.
pub fn parse(
    program: &str,
    args: &[String],
    env: impl Fn(&str) -> Option<String>,
) -> Result<Command, String> {
    if args
        .iter()
        .take_while(|arg| *arg != "--")
        .any(|arg| ["-h", "--h", "-help", "--help"].contains(&arg.as_str()))
    {
        return Ok(Command::Usage(flags::usage(program)));
    }
    let mut given = match Given::parse(args) {
        Ok(given) => given,
        Err(error) => {
            return Ok(Command::Usage(format!(
                "{error}\n{}",
                flags::usage(program)
            )));
        }
    };
    if given.bool("version") {
        return Ok(Command::Version);
    }
    let mut notes = given.fill_from_env(&env);
    for flag in ["vmodule", "log_backtrace_at"] {
        if !given.text(flag).is_empty() {
            notes.push(format!("--{flag} has no effect here; use -v"));
        }
    }
    let options = check(&given, notes, &env)?;
    match given
        .rest
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        [] => Ok(Command::Run(options)),
        ["cleanup"] => Ok(Command::Cleanup(options)),
        [other, ..] => Ok(Command::Usage(format!(
            "unexpected argument \"{other}\"\n{}",
            flags::usage(program)
        ))),
    }
}

fn check(
    given: &Given,
    notes: Vec<String>,
    env: &impl Fn(&str) -> Option<String>,
) -> Result<Options, String> {
    let margin = given.number("subnet-lease-renew-margin");
    let margin = u64::try_from(margin)
        .ok()
        .filter(|minutes| (1..1440).contains(minutes));
    let renew_margin = margin
        .map(|minutes| Duration::from_secs(minutes * 60))
        .ok_or("--subnet-lease-renew-margin: must be between 1 and 1439 minutes")?;
    let resync = u64::try_from(given.number("iptables-resync"))
        .ok()
        .filter(|seconds| *seconds > 0);
    let firewall_resync = resync
        .map(Duration::from_secs)
        .ok_or("--iptables-resync: must be a positive number")?;
    let port = u16::try_from(given.number("healthz-port"))
        .map_err(|_| "--healthz-port: not a port number")?;
    let health_ip: IpAddr =
        address(given, "healthz-ip")?.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let regex = given
        .list("iface-regex")
        .iter()
        .map(|text| Regex::new(text).map_err(|error| format!("--iface-regex \"{text}\": {error}")));
    Ok(Options {
        etcd: access(given),
        kubernetes: match given.bool("kube-subnet-mgr") {
            true => Some(kubernetes(given, env)?),
            false => None,
        },
        iface: IfaceOptions {
            iface: given
                .list("iface")
                .iter()
                .filter(|text| !text.is_empty())
                .cloned()
                .collect(),
            regex: regex.collect::<Result<_, _>>()?,
            can_reach: address(given, "iface-can-reach")?,
            public_ip: address(given, "public-ip")?,
            public_ipv6: address(given, "public-ipv6")?,
        },
        subnet_file: given.text("subnet-file").into(),
        renew_margin,
        masquerade: given.bool("ip-masq"),
        fully_random: !given.bool("ip-masq-fully-random-disable"),
        forward: given.bool("iptables-forward-rules"),
        firewall_resync,
        blackhole_route: given.bool("ip-blackhole-route"),
        health: (port > 0).then_some(SocketAddr::new(health_ip, port)),
        data_path: Some(given.text("data-path").to_owned()).filter(|name| !name.is_empty()),
        verbosity: given.number("v"),
        dry_run: given.bool("dry-run"),
        notify: env("NOTIFY_SOCKET")
            .filter(|path| !path.is_empty())
            .map(OsString::from),
        notes,
    })
}

fn kubernetes(
    given: &Given,
    env: &impl Fn(&str) -> Option<String>,
) -> Result<kubernetes::Settings, String> {
    let text = |name| Some(given.text(name)).filter(|text| !text.is_empty());
    let annotations = Annotations::with_prefix(given.text("kube-annotation-prefix"));
    Ok(kubernetes::Settings {
        api_url: text("kube-api-url").map(str::to_owned),
        kubeconfig: text("kubeconfig-file").map(PathBuf::from),
        config: None,
        annotations: annotations.map_err(|why| format!("--kube-annotation-prefix: {why}"))?,
        net_config: given.text("net-config-path").into(),
        set_network_unavailable: given.bool("set-node-network-unavailable"),
        node: NodeName::from_env(env)?,
    })
}

fn access(given: &Given) -> Access {
    let file = |name| {
        Some(given.text(name))
            .filter(|path| !path.is_empty())
            .map(PathBuf::from)
    };
    let endpoints = given
        .text("etcd-endpoints")
        .split(',')
        .map(str::trim)
        .filter(|text| !text.is_empty());
    Access {
        endpoints: endpoints.map(str::to_owned).collect(),
        prefix: clean(given.text("etcd-prefix")),
        key_file: file("etcd-keyfile"),
        cert_file: file("etcd-certfile"),
        ca_file: file("etcd-cafile"),
        username: given.text("etcd-username").to_owned(),
        password: Secret::new(given.text("etcd-password")),
    }
}

/// The shortest form of a slash-separated path, as flannel's keys have it: no doubled slash, no `.`,
/// no `..` that can be resolved. Whether it starts with a slash stays as given.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    format!("{}{}", if rooted { "/" } else { "" }, parts.join("/"))
}

fn address<A: std::str::FromStr>(given: &Given, name: &str) -> Result<Option<A>, String> {
    match given.text(name) {
        "" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|_| format!("--{name}: \"{text}\" is not an address of the right family")),
    }
}

#[cfg(test)]
mod tests;
