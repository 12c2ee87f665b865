//! The configuration of `bridge`: as written, then checked.

use std::collections::BTreeSet;

use kernel::Mac;
use serde::Deserialize;

use crate::{
    cni::{Call, Dns, Error, Result, args, config::Ipam},
    masquerade::Backend,
};

const DEFAULT_BRIDGE: &str = "cni0";
const MAX_VLAN: i64 = 4094;

#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Written {
    bridge: String,
    is_gateway: bool,
    is_default_gateway: bool,
    force_address: bool,
    ip_masq: bool,
    ip_masq_backend: Option<String>,
    mtu: i64,
    hairpin_mode: bool,
    promisc_mode: bool,
    vlan: i64,
    vlan_trunk: Option<Vec<WrittenTrunk>>,
    preserve_default_vlan: bool,
    macspoofchk: bool,
    enabledad: bool,
    disable_container_interface: bool,
    port_isolation: bool,
    args: WrittenArgs,
    runtime_config: WrittenMac,
    ipam: Ipam,
    dns: Dns,
}

impl Default for Written {
    fn default() -> Self {
        Self {
            bridge: DEFAULT_BRIDGE.to_owned(),
            is_gateway: false,
            is_default_gateway: false,
            force_address: false,
            ip_masq: false,
            ip_masq_backend: None,
            mtu: 0,
            hairpin_mode: false,
            promisc_mode: false,
            vlan: 0,
            vlan_trunk: None,
            preserve_default_vlan: true,
            macspoofchk: false,
            enabledad: false,
            disable_container_interface: false,
            port_isolation: false,
            args: WrittenArgs::default(),
            runtime_config: WrittenMac::default(),
            ipam: Ipam::default(),
            dns: Dns::default(),
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WrittenArgs {
    cni: WrittenMac,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WrittenMac {
    mac: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WrittenTrunk {
    #[serde(rename = "minID")]
    min_id: Option<i64>,
    #[serde(rename = "maxID")]
    max_id: Option<i64>,
    id: Option<i64>,
}

/// What the operator and the runtime ask for, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Name of the bridge.
    pub bridge: String,
    /// The bridge has the gateway's address.
    pub gateway: bool,
    /// And is the default route of its containers.
    pub default_gateway: bool,
    /// Replace another address that the bridge has.
    pub force_address: bool,
    /// Masquerade traffic to the outside.
    pub masquerade: bool,
    /// By which rule language; the one found on the host if none.
    pub masquerade_backend: Option<Backend>,
    /// Layer-3 MTU in bytes; the kernel's default if none.
    pub mtu: Option<u32>,
    /// Frames may go back out of the port they came in by.
    pub hairpin: bool,
    /// The bridge takes frames for any address.
    pub promisc: bool,
    /// VLAN of untagged frames of the port; 0 for none.
    pub vlan: u16,
    /// VLANs of tagged frames, if the port is a trunk.
    pub trunk: Option<BTreeSet<u16>>,
    /// Keep the bridge's default VLAN on the port.
    pub preserve_default_vlan: bool,
    /// Drop frames with another source address than the container's.
    pub mac_spoof_check: bool,
    /// Detect duplicates of IPv6 addresses.
    pub enable_dad: bool,
    /// Leave the container's interface down and without an address.
    pub disable_container_interface: bool,
    /// No frames between isolated ports.
    pub port_isolation: bool,
    /// Hardware address of the container's interface.
    pub mac: Option<Mac>,
    /// Name of the IPAM plugin; none for a layer-2 network.
    pub ipam: Option<String>,
    /// DNS settings that replace those of the IPAM plugin.
    pub dns: Dns,
}

impl Config {
    /// Reads and checks the network configuration and CNI_ARGS.
    pub fn read(call: &Call) -> Result<Self> {
        call.read::<Written>()?.check(&call.args)
    }

    /// Ports of the bridge have VLANs.
    pub fn vlan_filtering(&self) -> bool {
        self.vlan != 0 || self.trunk.is_some()
    }
}

impl Written {
    fn check(self, cni_args: &str) -> Result<Config> {
        check_name(&self.bridge)?;
        if !(0..=MAX_VLAN).contains(&self.vlan) {
            return Err(Error::config(format!(
                "invalid VLAN ID {} (must be between 0 and {MAX_VLAN})",
                self.vlan
            )));
        }
        let mtu = u32::try_from(self.mtu)
            .map_err(|_| Error::config(format!("invalid mtu {}", self.mtu)))?;
        if self.hairpin_mode && self.promisc_mode {
            return Err(Error::config(
                "cannot set hairpin mode and promiscuous mode at the same time",
            ));
        }
        if self.disable_container_interface && !self.ipam.kind.is_empty() {
            return Err(Error::config(
                "cannot use IPAM when disableContainerInterface is set",
            ));
        }
        // The most particular source wins.
        let [from_env] = args::parse(cni_args, ["MAC"])?;
        let mac = [
            self.runtime_config.mac.as_str(),
            self.args.cni.mac.as_str(),
            from_env.unwrap_or_default(),
        ]
        .into_iter()
        .find(|text| !text.is_empty());
        Ok(Config {
            bridge: self.bridge,
            gateway: self.is_gateway || self.is_default_gateway,
            default_gateway: self.is_default_gateway,
            force_address: self.force_address,
            masquerade: self.ip_masq,
            masquerade_backend: Backend::from_config(self.ip_masq_backend.as_deref())?,
            mtu: (mtu != 0).then_some(mtu),
            hairpin: self.hairpin_mode,
            promisc: self.promisc_mode,
            vlan: self.vlan as u16,
            trunk: self.vlan_trunk.map(|trunk| collect(&trunk)).transpose()?,
            preserve_default_vlan: self.preserve_default_vlan,
            mac_spoof_check: self.macspoofchk,
            enable_dad: self.enabledad,
            disable_container_interface: self.disable_container_interface,
            port_isolation: self.port_isolation,
            mac: mac
                .map(|text| {
                    text.parse()
                        .map_err(|cause| Error::config(format!("mac: {cause}")))
                })
                .transpose()?,
            ipam: Some(self.ipam.kind).filter(|kind| !kind.is_empty()),
            dns: self.dns,
        })
    }
}

/// The kernel's rule for interface names.
fn check_name(name: &str) -> Result<()> {
    let fits = !name.is_empty()
        && name.len() <= 15
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_ascii_whitespace());
    if fits {
        return Ok(());
    }
    Err(Error::config(format!(
        "bridge: {name:?} is no interface name (1 to 15 bytes, no slash, colon or space)"
    )))
}

fn collect(trunk: &[WrittenTrunk]) -> Result<BTreeSet<u16>> {
    let check = |key: &str, id: i64| {
        if (1..=MAX_VLAN).contains(&id) {
            return Ok(id as u16);
        }
        Err(Error::config(format!(
            "incorrect trunk {key} parameter {id}"
        )))
    };
    let mut vlans = BTreeSet::new();
    for part in trunk {
        match (part.min_id, part.max_id) {
            (Some(min), Some(max)) => {
                let (min, max) = (check("minID", min)?, check("maxID", max)?);
                if max < min {
                    return Err(Error::config(
                        "minID is greater than maxID in trunk parameter",
                    ));
                }
                vlans.extend(min..=max);
            }
            (None, None) => {}
            (min, _) => {
                let missing = if min.is_none() { "minID" } else { "maxID" };
                return Err(Error::config(format!(
                    "minID and maxID should be configured simultaneously, {missing} is missing"
                )));
            }
        }
        if let Some(id) = part.id {
            vlans.insert(check("id", id)?);
        }
    }
    Ok(vlans)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_with(json: &str, args: &str) -> Result<Config> {
        let written: Written = crate::cni::json::from_slice(json.as_bytes())
            .map_err(|error| Error::config(error.to_string()))?;
        written.check(args)
    }

    fn parse(json: &str) -> Result<Config> {
        parse_with(json, "")
    }

    #[test]
    fn defaults() {
        let config = parse(r#"{"type": "bridge", "ipam": {}}"#).unwrap();
        assert_eq!(config.bridge, "cni0");
        assert!(config.preserve_default_vlan && !config.gateway && !config.vlan_filtering());
        assert_eq!((config.mtu, config.ipam, config.mac), (None, None, None));
    }

    #[test]
    fn default_gateway_means_gateway() {
        assert!(parse(r#"{"isDefaultGateway": true}"#).unwrap().gateway);
    }

    #[test]
    fn the_most_particular_mac_wins() {
        let json = |runtime: &str| {
            format!(
                r#"{{"args": {{"cni": {{"mac": "02:00:00:00:00:0b"}}}}, "runtimeConfig": {{{runtime}}}}}"#
            )
        };
        let args = "IgnoreUnknown=1;MAC=02:00:00:00:00:0a";
        let mac = |json: &str| parse_with(json, args).unwrap().mac.unwrap().0[5];
        assert_eq!(mac("{}"), 0x0a);
        assert_eq!(mac(&json("")), 0x0b);
        assert_eq!(mac(&json(r#""mac": "02:00:00:00:00:0c""#)), 0x0c);
    }

    #[test]
    fn trunks() {
        let config =
            parse(r#"{"vlan": 100, "vlanTrunk": [{"minID": 101, "maxID": 103}, {"id": 7}]}"#);
        let config = config.unwrap();
        assert_eq!(config.vlan, 100);
        assert_eq!(config.trunk, Some(BTreeSet::from([7, 101, 102, 103])));
        assert!(parse(r#"{"vlanTrunk": []}"#).unwrap().vlan_filtering());
    }

    #[test]
    fn what_is_refused() {
        for (json, words) in [
            (r#"{"vlan": 4095}"#, "invalid VLAN ID 4095"),
            (r#"{"mtu": -1}"#, "invalid mtu"),
            (r#"{"bridge": "0123456789abcdef"}"#, "no interface name"),
            (r#"{"bridge": ""}"#, "no interface name"),
            (r#"{"hairpinMode": true, "promiscMode": true}"#, "hairpin"),
            (
                r#"{"disableContainerInterface": true, "ipam": {"type": "x"}}"#,
                "IPAM",
            ),
            (r#"{"ipMasqBackend": "ipfw"}"#, "ipfw"),
            (r#"{"runtimeConfig": {"mac": "zz"}}"#, "mac"),
            (r#"{"vlanTrunk": [{"minID": 5}]}"#, "maxID is missing"),
            (r#"{"vlanTrunk": [{"maxID": 5}]}"#, "minID is missing"),
            (r#"{"vlanTrunk": [{"minID": 5, "maxID": 4}]}"#, "greater"),
            (r#"{"vlanTrunk": [{"id": 0}]}"#, "id parameter"),
            (r#"{"isGateway": "yes"}"#, "isGateway"),
        ] {
            let error = parse(json).unwrap_err();
            assert!(error.msg.contains(words), "{json}: {error}");
        }
    }
}
