//! What is measured: the baselines, our data paths, and Go flanneld's where it is given.

use super::proof::Proof;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::PathBuf;

/// The variable that names a Go flanneld to be measured beside ours.
const GO_FLANNELD: &str = "FLANNELD";

/// One way to join two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    RawVeth,
    HostGw,
    KernelVxlan,
    UdpEbpf,
    UdpOffload,
    UdpPlain,
    /// Node 1 by TUN, node 2 by the kernel's device.
    VxlanTun,
    VxlanTunBoth,
    GoUdp,
    GoVxlan,
}

/// Whose work a subject is; the chart's colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The kernel alone carries the packets.
    Kernel,
    /// Our data path.
    Ours,
    /// Go flanneld.
    Go,
}

impl Subject {
    /// All, baselines first; the order of tables.
    pub const ALL: [Self; 10] = [
        Self::RawVeth,
        Self::HostGw,
        Self::KernelVxlan,
        Self::UdpEbpf,
        Self::UdpOffload,
        Self::UdpPlain,
        Self::VxlanTun,
        Self::VxlanTunBoth,
        Self::GoUdp,
        Self::GoVxlan,
    ];

    /// Those that are measured when none is named.
    pub fn standard() -> Vec<Self> {
        let go = go_flanneld().is_some();
        let wanted = |subject: &Self| go || subject.origin() != Origin::Go;
        Self::ALL.into_iter().filter(wanted).collect()
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::RawVeth => "raw veth",
            Self::HostGw => "host-gw",
            Self::KernelVxlan => "kernel vxlan",
            Self::UdpEbpf => "udp ebpf",
            Self::UdpOffload => "udp offload",
            Self::UdpPlain => "udp plain",
            Self::VxlanTun => "vxlan tun/kernel",
            Self::VxlanTunBoth => "vxlan tun",
            Self::GoUdp => "flannel udp",
            Self::GoVxlan => "flannel vxlan",
        }
    }

    /// The name as one word, for the command line, keys and namespaces.
    pub fn word(self) -> String {
        self.name().replace([' ', '/'], "-")
    }

    /// The subject of this name, with blanks or as one word.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|subject| subject.name() == name || subject.word() == name)
    }

    pub fn origin(self) -> Origin {
        match self {
            Self::RawVeth | Self::HostGw | Self::KernelVxlan => Origin::Kernel,
            Self::GoUdp | Self::GoVxlan => Origin::Go,
            _ => Origin::Ours,
        }
    }

    /// The `Backend` object; `None` where no daemon runs.
    pub fn backend(self) -> Option<Value> {
        Some(match self {
            Self::RawVeth => return None,
            Self::HostGw => json!({ "Type": "host-gw" }),
            Self::KernelVxlan | Self::VxlanTun | Self::GoVxlan => json!({ "Type": "vxlan" }),
            Self::VxlanTunBoth => json!({ "Type": "vxlan", "DataPath": "tun" }),
            Self::UdpEbpf => json!({ "Type": "udp", "DataPath": "ebpf" }),
            Self::UdpOffload => json!({ "Type": "udp", "DataPath": "offload" }),
            Self::UdpPlain => json!({ "Type": "udp", "DataPath": "plain" }),
            Self::GoUdp => json!({ "Type": "udp" }),
        })
    }

    /// More flags for the daemon of node `number` (1 or 2).
    pub fn flags(self, number: u8) -> &'static [&'static str] {
        match (self, number) {
            (Self::VxlanTun, 1) => &["--data-path=tun"],
            _ => &[],
        }
    }

    /// How node `number` shows that it does what its name says.
    pub fn proof(self, number: u8) -> Proof {
        let device = "flannel.1";
        match (self, number) {
            (Self::RawVeth | Self::HostGw, _) => Proof::None,
            (Self::VxlanTun, 1) | (Self::VxlanTunBoth, _) => Proof::Device(device, "tun"),
            (Self::KernelVxlan | Self::GoVxlan | Self::VxlanTun, _) => {
                Proof::Device(device, "vxlan")
            }
            (Self::UdpEbpf, _) => Proof::Path("ebpf"),
            (Self::UdpOffload, _) => Proof::Path("offload"),
            (Self::UdpPlain, _) => Proof::Path("plain"),
            (Self::GoUdp, _) => Proof::Device("flannel0", "tun"),
        }
    }

    /// The daemon, where it is not ours.
    pub fn program(self) -> Option<PathBuf> {
        (self.origin() == Origin::Go)
            .then(go_flanneld)
            .flatten()
            .map(PathBuf::from)
    }
}

fn go_flanneld() -> Option<OsString> {
    std::env::var_os(GO_FLANNELD).filter(|path| !path.is_empty())
}

#[cfg(test)]
mod tests {
    use super::Subject;

    #[test]
    fn every_subject_is_found_by_both_forms_of_its_name() {
        for subject in Subject::ALL {
            assert_eq!(Subject::find(subject.name()), Some(subject));
            assert_eq!(Subject::find(&subject.word()), Some(subject));
            assert!(!subject.word().contains(' '));
        }
        assert_eq!(Subject::find("wireguard"), None);
    }
}
