//! `BackendData` of a vxlan lease: `{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}`.
//!
//! flannel's Kubernetes mode reads its own data back by splitting the text at `:"`, so VtepMAC must be
//! the only string and the last member, and the text compact.

use kernel::Mac;
use serde::Serialize;

use crate::{
    config::folded::Folded,
    lease::{BackendData, Lease},
};

/// What a vxlan node announces for one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VxlanData {
    /// The VNI; old releases leave it out.
    pub vni: Option<u32>,
    /// The address of the peer's VXLAN device.
    pub mac: Mac,
}

#[derive(Serialize)]
struct Written {
    #[serde(rename = "VNI")]
    vni: u32,
    #[serde(rename = "VtepMAC")]
    mac: String,
}

impl VxlanData {
    /// Reads a peer's data; the error says what is wrong with it.
    pub fn parse(data: Option<&BackendData>) -> Result<Self, String> {
        let data = data.ok_or("no backend data")?;
        let members: Folded = data.parse().map_err(|error| error.to_string())?;
        let mac: Option<String> = members
            .get("VtepMAC")
            .map_err(|error| format!("VtepMAC: {error}"))?;
        let mac = mac.ok_or("VtepMAC is missing")?;
        let mac: Mac = mac.parse().map_err(|error| format!("VtepMAC: {error}"))?;
        // The all-zero entry would take every frame without one of its own.
        if mac.0 == [0; 6] || mac.0[0] & 1 != 0 {
            return Err(format!("VtepMAC: {mac} is no station's address"));
        }
        Ok(Self {
            vni: members
                .get("VNI")
                .map_err(|error| format!("VNI: {error}"))?,
            mac,
        })
    }

    /// The text flannel writes.
    pub fn render(vni: u32, mac: Mac) -> BackendData {
        BackendData::new(&Written {
            vni,
            mac: mac.to_string(),
        })
    }
}

/// Why the backend data of a lease cannot be used, if so.
pub fn unusable(lease: &Lease) -> Option<String> {
    let (subnet, attrs) = (&lease.subnet, &lease.attrs);
    let needed = [
        ("BackendData", subnet.v4.is_some(), &attrs.backend_data),
        ("BackendV6Data", subnet.v6.is_some(), &attrs.backend_v6_data),
    ];
    let verdicts: Vec<Result<VxlanData, String>> = needed
        .into_iter()
        .filter(|(_, needed, _)| *needed)
        .map(|(member, _, data)| {
            VxlanData::parse(data.as_ref())
                .map_err(|why| format!("its {member} cannot be used: {why}"))
        })
        .collect();
    // One good family is served; the other is named when its entries are made.
    if verdicts.iter().any(Result::is_ok) {
        return None;
    }
    verdicts.into_iter().find_map(Result::err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_as_flannel_does() {
        let mac: Mac = "c6:d2:32:6f:8f:44".parse().unwrap();
        let data = VxlanData::render(1, mac);
        assert_eq!(data.as_str(), r#"{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}"#);
        let read = VxlanData::parse(Some(&data)).unwrap();
        assert_eq!((read.vni, read.mac), (Some(1), mac));
    }

    #[test]
    fn garbage_is_named() {
        let data = BackendData::new(&serde_json::json!({"VtepMAC": "xx"}));
        assert!(
            VxlanData::parse(Some(&data))
                .unwrap_err()
                .contains("VtepMAC")
        );
        let data = BackendData::new(&serde_json::json!([1]));
        assert!(VxlanData::parse(Some(&data)).is_err());
        assert_eq!(VxlanData::parse(None).unwrap_err(), "no backend data");
    }
}
