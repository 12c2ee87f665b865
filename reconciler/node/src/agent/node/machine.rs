//! What the machine is and has.

use std::fs;
use std::path::Path;

use k8s_openapi::api::core::v1::NodeSystemInfo;
use nix::sys::statvfs::statvfs;

/// What does not change while the agent runs.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Processors.
    pub cpus: u64,
    /// Bytes.
    pub memory: u64,
    /// Bytes of the file system with the agent's data.
    pub storage: u64,
    /// Names and versions; not those of runtime and agent.
    pub info: NodeSystemInfo,
}

/// What is short: memory below 100 MiB; a tenth of the disk *and* below 1 GiB; a tenth of all process ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Memory.
    pub memory: bool,
    /// Disk.
    pub disk: bool,
    /// Process ids.
    pub pids: bool,
}

/// As Kubernetes names it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Looks at the machine. What it does not tell is empty.
pub fn observe(data: &Path) -> Machine {
    let read = |path: &str| {
        fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let machine_id = read("/etc/machine-id");
    let uuid = read("/sys/class/dmi/id/product_uuid");
    Machine {
        cpus: std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64),
        memory: meminfo("MemTotal").unwrap_or(0),
        storage: disk(data).map_or(0, |(total, _)| total),
        info: NodeSystemInfo {
            system_uuid: if uuid.is_empty() {
                machine_id.clone()
            } else {
                uuid
            },
            machine_id,
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            kernel_version: read("/proc/sys/kernel/osrelease"),
            os_image: os_image(&read("/etc/os-release")),
            operating_system: "linux".to_owned(),
            architecture: architecture().to_owned(),
            ..NodeSystemInfo::default()
        },
    }
}

fn os_image(release: &str) -> String {
    release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map_or_else(
            || "Linux".to_owned(),
            |name| name.trim_matches('"').to_owned(),
        )
}

/// What is short now. What cannot be told is not short.
pub fn pressure(data: &Path) -> Pressure {
    const SPARE_MEMORY: u64 = 100 << 20;
    const SPARE_DISK: u64 = 1 << 30;
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    // `0.20 0.18 0.12 1/80 11206`: running and all tasks.
    let tasks = fs::read_to_string("/proc/loadavg").ok().and_then(|text| {
        text.split(' ')
            .nth(3)?
            .split_once('/')?
            .1
            .parse::<u64>()
            .ok()
    });
    Pressure {
        memory: meminfo("MemAvailable").is_some_and(|free| free < SPARE_MEMORY),
        disk: disk(data).is_some_and(|(total, free)| free < total / 10 && free < SPARE_DISK),
        pids: match (number("/proc/sys/kernel/pid_max"), tasks) {
            (Some(all), Some(tasks)) => tasks > all / 10 * 9,
            _ => false,
        },
    }
}

fn meminfo(field: &str) -> Option<u64> {
    fs::read_to_string("/proc/meminfo")
        .ok()?
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .map(|kibibytes| kibibytes * 1024)
}

/// Bytes of a file system, and those that are free.
fn disk(path: &Path) -> Option<(u64, u64)> {
    let stat = statvfs(path).ok()?;
    let block = stat.fragment_size();
    Some((stat.blocks() * block, stat.blocks_available() * block))
}
