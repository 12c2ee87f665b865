//! The machine that figures come from; absolute values mean nothing without it.

use ::tests::process;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::process::Command;

#[derive(Clone, Debug)]
pub struct Machine {
    pub kernel: String,
    pub cores: usize,
    pub cpu: String,
    /// Coordinated universal time, `2026-11-21`.
    pub date: String,
    /// TCP's congestion control of the senders: `cubic`, the kernel's own default, where it is there.
    /// A machine that is set to `bbr` paces its senders, and would show the pacing, not the way.
    pub congestion: String,
}

impl Machine {
    pub fn observe() -> Result<Self> {
        let read = |path: &str| {
            let text = std::fs::read_to_string(path).with_context(|| format!("read {path}"))?;
            anyhow::Ok(text.trim().to_owned())
        };
        let cpu = read("/proc/cpuinfo")?;
        Ok(Self {
            kernel: read("/proc/sys/kernel/osrelease")?,
            cores: std::thread::available_parallelism()?.get(),
            cpu: model(&cpu).unwrap_or("an unnamed processor").to_owned(),
            date: process::run(Command::new("date").args(["--utc", "+%Y-%m-%d"]))?
                .trim()
                .to_owned(),
            congestion: match read("/proc/sys/net/ipv4/tcp_available_congestion_control")?
                .split_whitespace()
                .find(|name| *name == "cubic")
            {
                Some(name) => name.to_owned(),
                None => read("/proc/sys/net/ipv4/tcp_congestion_control")?,
            },
        })
    }

    /// One line for people.
    pub fn line(&self) -> String {
        format!(
            "{} cores of {}, kernel {}, TCP {}, {}",
            self.cores, self.cpu, self.kernel, self.congestion, self.date
        )
    }

    pub fn to_json(&self) -> Value {
        json!({
            "kernel": self.kernel,
            "cores": self.cores,
            "cpu": self.cpu,
            "date": self.date,
            "tcp_congestion_control": self.congestion,
        })
    }
}

/// The processor's name, of x86 or of those that call it otherwise.
fn model(cpuinfo: &str) -> Option<&str> {
    ["model name", "Model", "Hardware"].iter().find_map(|key| {
        let line = cpuinfo.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':')?.1.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::model;

    #[test]
    fn processor_is_named() {
        let text = "processor\t: 0\nmodel name\t: Some CPU @ 2.0GHz\nmodel name\t: Other\n";
        assert_eq!(model(text), Some("Some CPU @ 2.0GHz"));
        assert_eq!(model("BogoMIPS: 50\n"), None);
    }
}
