//! subnet.env: what flanneld tells of the node's lease.

use crate::cni::{Error, Result, code};
use ipnet::IpNet;
use std::io::ErrorKind;
use std::path::Path;

/// The file's content, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetEnv {
    /// The flat networks, IPv4 then IPv6, each once.
    pub networks: Vec<IpNet>,
    /// This node's subnets, at most one of each family, without host bits.
    pub subnets: Vec<IpNet>,
    /// MTU for Pods in bytes.
    pub mtu: u32,
    /// Whether flanneld masquerades, so that the delegate need not.
    pub ip_masq: bool,
}

impl SubnetEnv {
    /// Reads the file; when there is none, says what is not ready and where to look.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| {
            let cause = match e.kind() {
                ErrorKind::NotFound => "no such file or directory".to_owned(),
                _ => e.to_string(),
            };
            not_ready(format!(
                "flanneld is not ready: open {}: {cause}",
                path.display()
            ))
        })?;
        Self::parse(&text)
            .map_err(|e| not_ready(format!("flanneld is not ready: {} {e}", path.display())))
    }

    /// Reads the text; the error completes a sentence that begins with the file's name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut networks, mut networks6) = (Vec::new(), Vec::new());
        let (mut subnet, mut subnet6, mut mtu, mut ip_masq) = (None, None, None, None);
        for line in text.lines() {
            let (key, value) = match line.split_once('=') {
                Some((key, value)) => (key.trim(), Some(value.trim())),
                None => (line.trim(), None),
            };
            let value = || value.ok_or_else(|| format!("has {key} without a value"));
            let net = |text: &str| {
                text.trim()
                    .parse::<IpNet>()
                    .map(|net| net.trunc())
                    .map_err(|_| format!("has {key}={text}, which is no CIDR"))
            };
            match key {
                "FLANNEL_NETWORK" | "FLANNEL_IPV6_NETWORK" => {
                    let list: Vec<_> = value()?.split(',').map(net).collect::<Result<_, _>>()?;
                    match key {
                        "FLANNEL_NETWORK" => networks = list,
                        _ => networks6 = list,
                    }
                }
                "FLANNEL_SUBNET" => subnet = Some(net(value()?)?),
                "FLANNEL_IPV6_SUBNET" => subnet6 = Some(net(value()?)?),
                "FLANNEL_MTU" => {
                    let text = value()?;
                    let number = text.parse::<u32>();
                    mtu =
                        Some(number.map_err(|_| format!("has {key}={text}, which is no number"))?);
                }
                "FLANNEL_IPMASQ" => ip_masq = Some(value()? == "true"),
                _ => {}
            }
        }
        networks.extend(networks6);
        let mut distinct: Vec<IpNet> = Vec::new();
        for net in networks {
            if !distinct.contains(&net) {
                distinct.push(net);
            }
        }
        let subnets: Vec<IpNet> = subnet.into_iter().chain(subnet6).collect();
        let mut missing = Vec::new();
        if distinct.is_empty() {
            missing.extend(["FLANNEL_NETWORK", "FLANNEL_IPV6_NETWORK"]);
        }
        if subnets.is_empty() {
            missing.extend(["FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET"]);
        }
        match (mtu, ip_masq) {
            (Some(mtu), Some(ip_masq)) if missing.is_empty() => Ok(Self {
                networks: distinct,
                subnets,
                mtu,
                ip_masq,
            }),
            (mtu, ip_masq) => {
                missing.extend(mtu.is_none().then_some("FLANNEL_MTU"));
                missing.extend(ip_masq.is_none().then_some("FLANNEL_IPMASQ"));
                Err(format!("is missing {}", missing.join(", ")))
            }
        }
    }
}

fn not_ready(msg: String) -> Error {
    Error::new(code::TRY_AGAIN, msg).with_details(
        "flanneld writes this file once it has a subnet lease: see `journalctl -u flanneld`, or, \
         where it runs as a Pod, the log of this node's flannel Pod (`kubectl logs -n kube-flannel \
         ds/kube-flannel-ds`)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DUAL: &str = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\n\
        FLANNEL_IPV6_NETWORK=fd00::/48\nFLANNEL_IPV6_SUBNET=fd00:0:0:1::1/64\n\
        FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";

    fn shown(nets: &[IpNet]) -> Vec<String> {
        nets.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_dual_stack_file_is_read() {
        let env = SubnetEnv::parse(DUAL).unwrap();
        assert_eq!(shown(&env.networks), ["10.244.0.0/16", "fd00::/48"]);
        assert_eq!(shown(&env.subnets), ["10.244.1.0/24", "fd00:0:0:1::/64"]);
        assert_eq!((env.mtu, env.ip_masq), (1450, true));
    }

    #[test]
    fn lists_of_networks_lose_repeats_and_other_lines_are_passed_over() {
        let env = SubnetEnv::parse(
            "# made by hand\nEXTRA\nFLANNEL_NETWORK=10.1.0.0/16,10.2.0.0/16,10.1.0.0/16\r\n\
             FLANNEL_SUBNET=10.1.1.1/24\r\nFLANNEL_MTU=1400\nFLANNEL_IPMASQ=True",
        )
        .unwrap();
        assert_eq!(shown(&env.networks), ["10.1.0.0/16", "10.2.0.0/16"]);
        assert!(!env.ip_masq);
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for (text, error) in [
            (
                "",
                "is missing FLANNEL_NETWORK, FLANNEL_IPV6_NETWORK, FLANNEL_SUBNET, FLANNEL_IPV6_SUBNET, FLANNEL_MTU, FLANNEL_IPMASQ",
            ),
            ("FLANNEL_MTU", "has FLANNEL_MTU without a value"),
            ("FLANNEL_MTU=1.5", "has FLANNEL_MTU=1.5, which is no number"),
            (
                "FLANNEL_SUBNET=10.1.0.0",
                "has FLANNEL_SUBNET=10.1.0.0, which is no CIDR",
            ),
            (
                "FLANNEL_NETWORK=10.1.0.0/16,",
                "has FLANNEL_NETWORK=, which is no CIDR",
            ),
        ] {
            assert_eq!(SubnetEnv::parse(text).unwrap_err(), error);
        }
    }

    #[test]
    fn an_absent_file_says_who_is_not_ready_and_where_to_look() {
        let error = SubnetEnv::load(Path::new("/no/such/subnet.env")).unwrap_err();
        assert_eq!(
            error.msg,
            "flanneld is not ready: open /no/such/subnet.env: no such file or directory"
        );
        assert_eq!(error.code, 11);
        assert!(error.details.contains("journalctl -u flanneld"));
        assert!(error.details.contains("kubectl logs"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in "(FLANNEL_(NETWORK|SUBNET|MTU|IPMASQ|IPV6_SUBNET)?=?[0-9a-f.:/,]{0,20}\n|\\PC{0,20}\n){0,8}") {
            let _ = SubnetEnv::parse(&text);
        }

        #[test]
        fn what_flanneld_writes_is_read_back(bits in any::<u32>(), len in 1..=28u8, mtu in 576..9000u32, masq in any::<bool>()) {
            let net = ipnet::Ipv4Net::new(bits.into(), len).unwrap();
            let text = format!("FLANNEL_NETWORK={}\nFLANNEL_SUBNET={net}\nFLANNEL_MTU={mtu}\nFLANNEL_IPMASQ={masq}\n", net.trunc());
            let env = SubnetEnv::parse(&text).unwrap();
            prop_assert_eq!(env.networks, vec![IpNet::from(net.trunc())]);
            prop_assert_eq!(env.subnets, vec![IpNet::from(net.trunc())]);
            prop_assert_eq!((env.mtu, env.ip_masq), (mtu, masq));
        }
    }
}
