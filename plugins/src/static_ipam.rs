//! `static`: gives out the addresses that the configuration or the runtime names; keeps no record.

use crate::cni::result::{Address, Cidr};
use crate::cni::{
    Call, CniResult, Dns, Error, IpConfig, Plugin, Result, Route, Version, args, code,
};
use serde::Deserialize;
use std::net::IpAddr;

/// The plugin.
pub struct StaticIpam;

impl Plugin for StaticIpam {
    fn name(&self) -> &'static str {
        "static"
    }

    fn add(&self, call: &Call) -> Result<CniResult> {
        load(call)
    }

    fn del(&self, _call: &Call) -> Result<()> {
        Ok(())
    }

    fn check(&self, call: &Call) -> Result<()> {
        let given = call.required_prev_result()?.ips;
        for wanted in load(call)?.ips {
            let matches = |ip: &IpConfig| {
                ip.address.addr() == wanted.address.addr()
                    && (wanted.gateway.is_none() || wanted.gateway == ip.gateway)
            };
            if !given.iter().any(matches) {
                return Err(Error::generic(format!(
                    "static: Failed to match addr {} on interface {}",
                    wanted.address.addr(),
                    call.ifname
                )));
            }
        }
        Ok(())
    }

    fn status(&self, call: &Call) -> Result<()> {
        load(call).map(drop)
    }
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Written {
    ipam: Option<Ipam>,
    runtime_config: Ips,
    args: Args,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Ipam {
    routes: Vec<Route>,
    addresses: Vec<WrittenAddress>,
    dns: Dns,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WrittenAddress {
    address: String,
    gateway: Address,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Ips {
    ips: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Args {
    cni: Ips,
}

/// What is given out: of `runtimeConfig.ips`, `args.cni.ips`, and `ipam.addresses` with CNI_ARGS,
/// the first that names any address.
fn load(call: &Call) -> Result<CniResult> {
    let written: Written = call.read()?;
    let ipam = written
        .ipam
        .ok_or_else(|| Error::config("IPAM config missing 'ipam' key"))?;
    let from_args = parse_args(&call.args)?;
    let plain = |ips: Vec<String>| {
        ips.iter()
            .map(|text| Ok(IpConfig::new(parse_cidr(text)?, None)))
            .collect::<Result<Vec<_>>>()
    };
    let ips = if !written.runtime_config.ips.is_empty() {
        plain(written.runtime_config.ips)?
    } else if !written.args.cni.ips.is_empty() {
        plain(written.args.cni.ips)?
    } else {
        ipam.addresses
            .iter()
            .map(|a| Ok(IpConfig::new(parse_cidr(&a.address)?, a.gateway.0)))
            .chain(from_args.into_iter().map(Ok))
            .collect::<Result<Vec<_>>>()?
    };
    let ipv4 = ips.iter().filter(|ip| ip.address.addr().is_ipv4()).count();
    if call.version < Version::V030 && (ipv4 > 1 || ips.len() - ipv4 > 1) {
        return Err(Error::config(format!(
            "CNI version {} does not support more than 1 address per family",
            call.version
        )));
    }
    Ok(CniResult {
        ips,
        routes: ipam.routes,
        dns: ipam.dns,
        ..CniResult::default()
    })
}

/// Addresses of CNI_ARGS: `IP=a/n,b/n;GATEWAY=x,y`, each gateway for the addresses whose subnet has
/// it.
fn parse_args(text: &str) -> Result<Vec<IpConfig>> {
    let [ips, gateways] = args::parse(text, ["IP", "GATEWAY"])?;
    let list = |text: Option<&str>| -> Vec<String> {
        text.filter(|text| !text.is_empty())
            .map(|text| text.split(',').map(|item| item.trim().to_owned()).collect())
            .unwrap_or_default()
    };
    let mut addresses = Vec::new();
    for ip in list(ips) {
        let net = ip
            .parse::<Cidr>()
            .map_err(|_| invalid_args(format!("invalid CIDR {ip}")))?;
        addresses.push(IpConfig::new(net.0, None));
    }
    for gateway in list(gateways) {
        let ip: IpAddr = gateway
            .parse()
            .map_err(|_| invalid_args(format!("invalid gateway address: {gateway}")))?;
        for address in &mut addresses {
            if address.address.contains(&ip) {
                address.gateway = Some(ip);
            }
        }
    }
    Ok(addresses)
}

fn invalid_args(msg: String) -> Error {
    Error::new(code::INVALID_ENVIRONMENT, format!("ARGS: {msg}"))
}

fn parse_cidr(text: &str) -> Result<ipnet::IpNet> {
    text.parse::<Cidr>().map(|cidr| cidr.0).map_err(|_| {
        Error::config(format!(
            "the 'address' field is expected to be in CIDR notation, got: '{text}'"
        ))
    })
}

#[cfg(test)]
mod tests;
