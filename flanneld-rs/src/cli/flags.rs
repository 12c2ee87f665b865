//! The flag table and Go's `flag` syntax: one or two dashes, `-name=value` or `-name value`, a
//! boolean takes a value only after `=`.

use std::collections::BTreeMap;

/// How a flag takes its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` when named alone.
    Bool,
    /// One text.
    Text,
    /// A whole number.
    Number,
    /// A text each time it is given.
    List,
}

/// One flag.
pub struct Flag {
    /// Without dashes.
    pub name: &'static str,
    /// How it takes its value.
    pub kind: Kind,
    /// As text.
    pub default: &'static str,
    /// One line.
    pub help: &'static str,
}

const fn flag(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Flag {
    Flag {
        name,
        kind,
        default,
        help,
    }
}

/// flanneld's flags, then ours.
#[rustfmt::skip]
pub const FLAGS: &[Flag] = &[
    flag("etcd-endpoints", Kind::Text, "http://127.0.0.1:4001,http://127.0.0.1:2379", "etcd endpoints, separated by commas"),
    flag("etcd-prefix", Kind::Text, "/coreos.com/network", "prefix of all etcd keys"),
    flag("etcd-keyfile", Kind::Text, "", "client key for etcd (PEM)"),
    flag("etcd-certfile", Kind::Text, "", "client certificate for etcd (PEM)"),
    flag("etcd-cafile", Kind::Text, "", "certificate authority of the etcd servers (PEM)"),
    flag("etcd-username", Kind::Text, "", "etcd user"),
    flag("etcd-password", Kind::Text, "", "etcd password; FLANNELD_ETCD_PASSWORD keeps it out of the process list"),
    flag("iface", Kind::List, "", "external interface by name or address; repeatable, the first match is used"),
    flag("iface-regex", Kind::List, "", "the same by regular expression (addresses first, then names), tried after --iface; repeatable"),
    flag("iface-can-reach", Kind::Text, "", "the interface the kernel uses to reach this address, tried last"),
    flag("public-ip", Kind::Text, "", "IPv4 address announced to the other nodes"),
    flag("public-ipv6", Kind::Text, "", "IPv6 address announced to the other nodes"),
    flag("subnet-file", Kind::Text, "/run/flannel/subnet.env", "file for the CNI plugin; also tells the subnet held before"),
    flag("subnet-lease-renew-margin", Kind::Number, "60", "minutes before its expiry that the lease is renewed (1 to 1439)"),
    flag("ip-masq", Kind::Bool, "false", "masquerade traffic that leaves the network"),
    flag("ip-masq-fully-random-disable", Kind::Bool, "false", "masquerade without fully random ports"),
    flag("iptables-forward-rules", Kind::Bool, "true", "accept forwarded traffic of the network"),
    flag("iptables-resync", Kind::Number, "5", "seconds between checks of the firewall rules"),
    flag("ip-blackhole-route", Kind::Bool, "false", "drop traffic for unused addresses of the node's own subnet"),
    flag("healthz-ip", Kind::Text, "0.0.0.0", "address of /healthz, /readyz and /metrics"),
    flag("healthz-port", Kind::Number, "0", "their port; 0 is off"),
    flag("version", Kind::Bool, "false", "print the version and exit"),
    flag("v", Kind::Number, "0", "log level: 0 normal, 2 debug, 6 trace"),
    flag("vmodule", Kind::Text, "", "accepted for compatibility; no effect"),
    flag("log_backtrace_at", Kind::Text, "", "accepted for compatibility; no effect"),
    flag("kube-subnet-mgr", Kind::Bool, "false", "leases from Kubernetes rather than etcd: the subnet is the Node's podCIDR; the Node is NODE_NAME, or that of the Pod POD_NAMESPACE/POD_NAME"),
    flag("kube-api-url", Kind::Text, "", "URL of the Kubernetes API server, in place of the kubeconfig's"),
    flag("kubeconfig-file", Kind::Text, "", "kubeconfig; without it and --kube-api-url the account of the Pod that this runs in"),
    flag("kube-annotation-prefix", Kind::Text, "flannel.alpha.coreos.com", "what the names of the Node's annotations begin with: DOMAIN or DOMAIN/STEM"),
    flag("net-config-path", Kind::Text, "/etc/kube-flannel/net-conf.json", "file of the network configuration (--kube-subnet-mgr)"),
    flag("set-node-network-unavailable", Kind::Bool, "true", "set the Node's condition NetworkUnavailable to False once packets can flow (--kube-subnet-mgr)"),
    flag("data-path", Kind::Text, "", "this node's own data path in place of the network configuration's DataPath; udp: auto, ebpf, offload or plain; vxlan: auto, kernel or tun (flanneld-rs only)"),
    flag("dry-run", Kind::Bool, "false", "print what would be done and exit; nothing is changed (flanneld-rs only)"),
];

/// Values by flag name, as given; what is absent has its default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    values: BTreeMap<&'static str, Vec<String>>,
    /// Arguments that are no flags.
    pub rest: Vec<String>,
}

impl Given {
    /// Reads the command line without the program's name.
    pub fn parse(args: &[String]) -> Result<Self, String> {
        let mut given = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let name = match arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) {
                Some("") if arg == "--" => break,
                Some(name) if !name.is_empty() => name,
                _ => {
                    given.rest.push(arg.clone());
                    continue;
                }
            };
            let (name, inline) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (name, None),
            };
            if name.is_empty() || name.starts_with('-') {
                return Err(format!("bad flag syntax: {arg}"));
            }
            let Some(flag) = FLAGS.iter().find(|flag| flag.name == name) else {
                return Err(format!("flag provided but not defined: -{name}"));
            };
            let value = match (inline, flag.kind) {
                (Some(value), _) => value,
                (None, Kind::Bool) => "true".to_owned(),
                (None, _) => args
                    .next()
                    .cloned()
                    .ok_or_else(|| format!("flag needs an argument: -{name}"))?,
            };
            check(flag, &value)
                .map_err(|cause| format!("invalid value \"{value}\" for flag -{name}: {cause}"))?;
            given.set(flag, value);
        }
        given.rest.extend(args.cloned());
        Ok(given)
    }

    /// Fills what the command line left out from `FLANNELD_*` variables. Returns what is wrong with
    /// variables that had to be ignored.
    pub fn fill_from_env(&mut self, env: impl Fn(&str) -> Option<String>) -> Vec<String> {
        let mut ignored = Vec::new();
        for flag in FLAGS
            .iter()
            .filter(|flag| !self.values.contains_key(flag.name))
            .collect::<Vec<_>>()
        {
            let key = format!("FLANNELD_{}", flag.name.to_uppercase().replace('-', "_"));
            match env(&key).filter(|value| !value.is_empty()) {
                None => {}
                Some(value) => match check(flag, &value) {
                    Ok(()) => self.set(flag, value),
                    Err(cause) => ignored.push(format!("{key} is ignored: {cause}")),
                },
            }
        }
        ignored
    }

    fn set(&mut self, flag: &'static Flag, value: String) {
        let values = self.values.entry(flag.name).or_default();
        if flag.kind != Kind::List {
            values.clear();
        }
        values.push(value);
    }

    /// All values of a repeatable flag.
    pub fn list(&self, name: &str) -> &[String] {
        self.values.get(name).map_or(&[], Vec::as_slice)
    }

    /// The value, or the default.
    pub fn text(&self, name: &str) -> &str {
        let default = || {
            FLAGS
                .iter()
                .find(|flag| flag.name == name)
                .map_or("", |flag| flag.default)
        };
        self.list(name).last().map_or_else(default, String::as_str)
    }

    /// The value of a boolean.
    pub fn bool(&self, name: &str) -> bool {
        parse_bool(self.text(name)).unwrap_or_default()
    }

    /// The value of a number.
    pub fn number(&self, name: &str) -> i64 {
        parse_number(self.text(name)).unwrap_or_default()
    }
}

fn check(flag: &Flag, value: &str) -> Result<(), String> {
    match flag.kind {
        Kind::Bool if parse_bool(value).is_none() => Err("not true or false".to_owned()),
        Kind::Number if parse_number(value).is_none() => Err("not a whole number".to_owned()),
        _ => Ok(()),
    }
}

/// Go's strconv.ParseBool.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn parse_number(text: &str) -> Option<i64> {
    match text.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// The usage text.
pub fn usage(program: &str) -> String {
    let mut out = format!("Usage: {program} [OPTION]...\n       {program} cleanup [OPTION]...\n");
    out += "cleanup removes every device, route, rule and file this daemon ever made on this host.\n\n";
    for flag in FLAGS {
        let value = match flag.kind {
            Kind::Bool => "",
            Kind::Text | Kind::List => " value",
            Kind::Number => " int",
        };
        out += &format!("  -{}{value}\n    \t{}", flag.name, flag.help);
        out += &match (flag.kind, flag.default) {
            (_, "" | "false") => "\n".to_owned(),
            (Kind::Text, default) => format!(" (default \"{default}\")\n"),
            (_, default) => format!(" (default {default})\n"),
        };
    }
    out
}
