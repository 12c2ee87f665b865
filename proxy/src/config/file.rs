//! The KubeProxyConfiguration file (kubeproxy.config.k8s.io/v1alpha1), YAML or JSON.
//!
//! As in kube-proxy, an empty value (`""`, `0s`, `null`) of most keys stands for the default: kubeadm
//! writes all keys so. Unknown keys are collected and change nothing.

mod keys;

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::Error;
use super::given::Given;
use super::listen;
use super::values::{self, List, ModeChoice, ModeName};
use keys::Keys;

/// A file as written.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Written {
    /// What flags could have said.
    pub given: Given,
    /// `hostnameOverride`; the flag goes before it.
    pub hostname_override: Option<String>,
    /// `logging.verbosity`; the flag goes before it.
    pub verbosity: Option<i64>,
    /// Keys that are not known, with those above them.
    pub unknown: Vec<String>,
}

const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
const KIND: &str = "KubeProxyConfiguration";

/// Parses a file; `path` is for messages.
pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Written, Error> {
    let fail = |cause: String| Error::File {
        path: path.to_owned(),
        cause,
    };
    let value: Value =
        serde_saphyr::from_slice(bytes).map_err(|error| fail(not_yaml(error.without_snippet())))?;
    let Value::Object(map) = value else {
        return Err(fail(format!(
            "it is no {KIND}: give it the keys apiVersion and kind"
        )));
    };
    read(Keys::new(map)).map_err(|(key, cause)| Error::Key {
        path: path.to_owned(),
        key,
        cause,
    })
}

/// In one line, as the log has it.
fn not_yaml(error: &serde_saphyr::Error) -> String {
    match error {
        serde_saphyr::Error::MultipleDocuments { .. } => {
            "it has more than one document: leave one in it".to_owned()
        }
        other => {
            let text = other.to_string();
            format!("it is no YAML: {}", text.lines().next().unwrap_or_default())
        }
    }
}

fn read(mut top: Keys) -> Result<Written, keys::Wrong> {
    top.expect("apiVersion", API_VERSION)?;
    top.expect("kind", KIND)?;
    let mut written = Written {
        hostname_override: top.text("hostnameOverride")?,
        ..Written::default()
    };
    let given = &mut written.given;
    given.proxy_mode = top.parsed("mode", values::mode)?;
    given.cluster_cidr = top.parsed("clusterCIDR", values::networks)?;
    for item in top.texts("nodePortAddresses")? {
        let list = values::node_port_addresses(&item)
            .map_err(|why| ("nodePortAddresses".to_owned(), format!("{item:?}: {why}")))?;
        given.nodeport_addresses.push(list);
    }
    given.detect_local_mode = top.parsed("detectLocalMode", values::local_mode)?;
    given.metrics_bind_address = top.parsed("metricsBindAddress", listen::listen)?;
    given.healthz_bind_address = top.parsed("healthzBindAddress", listen::listen)?;
    given.bind_address = top.parsed("bindAddress", values::address)?;
    given.bind_address_hard_fail = top.truth("bindAddressHardFail")?;
    given.config_sync_period = nonzero(top.parsed("configSyncPeriod", values::duration)?);
    given.oom_score_adj = top.number("oomScoreAdj", -1000..=1000)?;
    given.feature_gates = vec![List(top.truths("featureGates")?)];
    top.ignore(&[
        "enableProfiling",
        "portRange",
        "showHiddenMetricsForVersion",
    ]);
    top.ignore(&["winkernel", "ipvs", "windowsRunAsService"]);
    let mut unknown = Vec::new();

    let mut local = top.section("detectLocal")?;
    given.pod_bridge_interface = local.parsed("bridgeInterface", values::interface)?;
    given.pod_interface_name_prefix = local.parsed("interfaceNamePrefix", values::interface)?;
    local.rest(&mut unknown);

    let mut client = top.section("clientConnection")?;
    given.kubeconfig = client.text("kubeconfig")?.map(Into::into);
    client.ignore(&["acceptContentTypes", "contentType", "qps", "burst"]);
    client.rest(&mut unknown);

    let mut logging = top.section("logging")?;
    written.verbosity = logging.number("verbosity", 0..=i64::from(u32::MAX))?;
    logging.ignore(&["format", "flushFrequency", "options", "vmodule"]);
    logging.rest(&mut unknown);

    let mut conntrack = top.section("conntrack")?;
    given.conntrack_max_per_core = conntrack.number("maxPerCore", 0..=i64::from(i32::MAX))?;
    given.conntrack_min = conntrack.number("min", 0..=i64::from(i32::MAX))?;
    // Of these two 0 is not the default: it leaves the kernel's.
    given.conntrack_tcp_timeout_established =
        conntrack.parsed("tcpEstablishedTimeout", values::duration)?;
    given.conntrack_tcp_timeout_close_wait =
        conntrack.parsed("tcpCloseWaitTimeout", values::duration)?;
    given.conntrack_tcp_be_liberal = conntrack.truth("tcpBeLiberal")?;
    given.conntrack_udp_timeout = conntrack.parsed("udpTimeout", values::duration)?;
    given.conntrack_udp_timeout_stream = conntrack.parsed("udpStreamTimeout", values::duration)?;
    conntrack.rest(&mut unknown);

    let mut iptables = top.section("iptables")?;
    given.iptables_localhost_nodeports = iptables.truth("localhostNodePorts")?;
    let of_iptables = Rules::read(&mut iptables)?;
    iptables.rest(&mut unknown);
    let mut nftables = top.section("nftables")?;
    let of_nftables = Rules::read(&mut nftables)?;
    nftables.rest(&mut unknown);
    let rules = Rules::choose(given.proxy_mode, of_nftables, of_iptables);
    given.masquerade_all = rules.masquerade_all;
    given.iptables_masquerade_bit = rules.masquerade_bit;
    given.iptables_sync_period = rules.sync_period;
    given.iptables_min_sync_period = rules.min_sync_period;

    top.rest(&mut unknown);
    written.unknown = unknown;
    Ok(written)
}

/// What the sections `iptables` and `nftables` both have.
#[derive(Default)]
struct Rules {
    masquerade_all: Option<bool>,
    masquerade_bit: Option<u8>,
    sync_period: Option<Duration>,
    min_sync_period: Option<Duration>,
}

impl Rules {
    fn read(keys: &mut Keys) -> Result<Self, keys::Wrong> {
        Ok(Self {
            masquerade_all: keys.truth("masqueradeAll")?,
            masquerade_bit: keys.number("masqueradeBit", 0..=31)?,
            sync_period: nonzero(keys.parsed("syncPeriod", values::duration)?),
            min_sync_period: nonzero(keys.parsed("minSyncPeriod", values::duration)?),
        })
    }

    /// The section of the mode that is asked for; where the mode is left to us, what either says,
    /// nftables first.
    fn choose(mode: Option<ModeChoice>, nftables: Self, iptables: Self) -> Self {
        match mode {
            Some(ModeChoice(Some(ModeName::Nftables))) => nftables,
            Some(ModeChoice(Some(ModeName::Iptables))) => iptables,
            _ => Self {
                masquerade_all: nftables
                    .masquerade_all
                    .filter(|all| *all)
                    .or(iptables.masquerade_all),
                masquerade_bit: nftables.masquerade_bit.or(iptables.masquerade_bit),
                sync_period: nftables.sync_period.or(iptables.sync_period),
                min_sync_period: nftables.min_sync_period.or(iptables.min_sync_period),
            },
        }
    }
}

fn nonzero(duration: Option<Duration>) -> Option<Duration> {
    duration.filter(|duration| !duration.is_zero())
}

#[cfg(test)]
mod tests;
