//! The modes that tests run on, each by its own test function.

use crate::requirement;
use std::fmt;

/// A way to program a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// nftables.
    Nftables,
    /// iptables by the binaries that write nf_tables rules.
    IptablesNft,
    /// iptables by the legacy binaries.
    IptablesLegacy,
    /// A process that accepts and forwards.
    Userspace,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Nftables,
        Self::IptablesNft,
        Self::IptablesLegacy,
        Self::Userspace,
    ];

    /// The flags that choose it.
    pub fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Nftables => &["--proxy-mode=nftables"],
            Self::IptablesNft => &["--proxy-mode=iptables", "--iptables-variant=nft"],
            Self::IptablesLegacy => &["--proxy-mode=iptables", "--iptables-variant=legacy"],
            Self::Userspace => &["--proxy-mode=userspace"],
        }
    }

    /// Whether the machine has what it needs; otherwise a loud skip.
    pub fn is_possible(self) -> bool {
        requirement::is_root()
            && requirement::has_programs(match self {
                Self::Nftables => &["ip", "nft"],
                Self::IptablesNft => &["ip", "iptables-nft", "ip6tables-nft"],
                Self::IptablesLegacy => &["ip", "iptables-legacy", "ip6tables-legacy"],
                Self::Userspace => &["ip"],
            })
    }

    /// Whether the endpoint can see the client's own address: a process that forwards is the client
    /// itself.
    pub fn keeps_source(self) -> bool {
        self != Self::Userspace
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Nftables => "nftables",
            Self::IptablesNft => "iptables (nf_tables)",
            Self::IptablesLegacy => "iptables (legacy)",
            Self::Userspace => "userspace",
        })
    }
}

/// Makes of each function `fn name(mode: Mode) -> Result<()>` one test per mode: `nftables::name`,
/// `iptables_nft::name` and so on. Those after `kernel:` are not for userspace mode.
#[macro_export]
macro_rules! on_every_mode {
    ($($name:ident),+ $(; kernel: $($kernel:ident),+)? $(,)?) => {
        $crate::on_every_mode!(@mode nftables Nftables $($name)+ $($($kernel)+)?);
        $crate::on_every_mode!(@mode iptables_nft IptablesNft $($name)+ $($($kernel)+)?);
        $crate::on_every_mode!(@mode iptables_legacy IptablesLegacy $($name)+ $($($kernel)+)?);
        $crate::on_every_mode!(@mode userspace Userspace $($name)+);
    };
    (@mode $module:ident $mode:ident $($name:ident)+) => {
        mod $module {
            $(
                #[test]
                fn $name() -> anyhow::Result<()> {
                    super::$name($crate::proxy::Mode::$mode)
                }
            )+
        }
    };
}
