//! The configuration in force as a KubeProxyConfiguration, for `/configz` and `--write-config-to`.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::duration::show_duration;
use super::{Checked, DetectLocal, Listen, Source};

impl Checked {
    /// The KubeProxyConfiguration that says the same, as far as it has keys for it. Where our
    /// default has no spelling there (an address that follows the Node), the text is empty.
    pub fn as_configuration(&self) -> Value {
        let (mode, cidr, bridge, prefix) = match &self.detect_local {
            DetectLocal::ClusterCidr(nets) => {
                let nets: Vec<_> = nets.iter().map(ToString::to_string).collect();
                ("ClusterCIDR", nets.join(","), "", "")
            }
            DetectLocal::NodeCidr => ("NodeCIDR", String::new(), "", ""),
            DetectLocal::Interface(name) => ("BridgeInterface", String::new(), name.as_str(), ""),
            DetectLocal::InterfacePrefix(name) => {
                ("InterfaceNamePrefix", String::new(), "", name.as_str())
            }
        };
        let kubeconfig = match &self.source {
            Source::Kube { kubeconfig, .. } => kubeconfig.clone().unwrap_or_default(),
            Source::Folder(_) => Default::default(),
        };
        let addresses: Vec<_> = self
            .node_port_list
            .iter()
            .map(ToString::to_string)
            .collect();
        let rules = json!({
            "masqueradeAll": self.masquerade_all,
            "masqueradeBit": self.masquerade_mark.trailing_zeros(),
            "syncPeriod": show_duration(self.sync_period),
            "minSyncPeriod": show_duration(self.min_sync_period.unwrap_or_default()),
        });
        let mut iptables = rules.clone();
        iptables["localhostNodePorts"] = json!(self.iptables_localhost_node_ports);
        json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": self.mode.map_or("", super::ModeName::as_str),
            "hostnameOverride": self.node.as_ref(),
            "bindAddress": self.bind_address.map_or_else(String::new, |ip: IpAddr| ip.to_string()),
            "healthzBindAddress": address(self.healthz),
            "metricsBindAddress": address(self.metrics),
            "bindAddressHardFail": self.bind_address_hard_fail,
            "clientConnection": { "kubeconfig": kubeconfig.to_string_lossy() },
            "configSyncPeriod": show_duration(self.config_sync_period),
            "detectLocalMode": mode,
            "clusterCIDR": cidr,
            "detectLocal": { "bridgeInterface": bridge, "interfaceNamePrefix": prefix },
            "nodePortAddresses": addresses,
            "iptables": iptables,
            "nftables": rules,
            "conntrack": {
                "maxPerCore": self.conntrack.max_per_core,
                "min": self.conntrack.min,
                "tcpEstablishedTimeout": show_duration(self.conntrack.tcp_established),
                "tcpCloseWaitTimeout": show_duration(self.conntrack.tcp_close_wait),
                "tcpBeLiberal": self.conntrack.tcp_be_liberal,
                "udpTimeout": show_duration(self.conntrack.udp),
                "udpStreamTimeout": show_duration(self.conntrack.udp_stream),
            },
            "oomScoreAdj": self.oom_score_adj,
            "featureGates": self.feature_gates,
            "logging": { "verbosity": self.verbosity.max(0) },
        })
    }
}

fn address(listen: Listen) -> String {
    match listen {
        Listen::Off | Listen::Node(_) => String::new(),
        Listen::At(address) => address.to_string(),
    }
}
