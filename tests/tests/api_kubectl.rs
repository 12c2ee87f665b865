//! Real kubectl through its commands, as far as they need no running node: the sessions in `data/api/sessions`.
//!
//! Each session has a server of its own, `kubectl` of the PATH, and begins in an empty folder. What it says is what a
//! real kube-apiserver made it say in the recordings, except ages, identities and addresses.

use anyhow::{Context, Result};
use std::path::Path;
use tests::{ApiServer, requirement, transcript};

/// The words of the sessions are those of 1.32; commands that they need came with 1.30 at the latest.
const RECENT: u32 = 30;

fn session(name: &str, minor: u32) -> Result<()> {
    let programs = ["bash", "timeout", "curl", "diff"];
    if !requirement::has_kubectl(minor) || !requirement::has_programs(&programs) {
        return Ok(());
    }
    let server = ApiServer::start(&["--service-cidr=10.96.0.0/16"])?;
    let work = tempfile::tempdir()?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/api/sessions");
    transcript::run(&folder.join(format!("{name}.txt")), || {
        let mut shell = transcript::shell();
        shell
            .current_dir(work.path())
            .env("KUBECONFIG", server.kubeconfig())
            .env("HOME", work.path())
            .env("URL", server.url())
            .env("TMPDIR", work.path())
            .env("TZ", "UTC");
        shell
    })
    .with_context(|| format!("session {name}"))
}

#[test]
fn read() -> Result<()> {
    session("read", RECENT)
}

#[test]
fn create() -> Result<()> {
    session("create", RECENT)
}

#[test]
fn apply() -> Result<()> {
    session("apply", RECENT)
}

#[test]
fn change() -> Result<()> {
    session("change", RECENT)
}

#[test]
fn roll() -> Result<()> {
    session("roll", RECENT)
}

#[test]
fn node() -> Result<()> {
    session("node", RECENT)
}

#[test]
fn wait() -> Result<()> {
    session("wait", RECENT)
}

#[test]
fn describe() -> Result<()> {
    session("describe", RECENT)
}

#[test]
fn stream() -> Result<()> {
    session("stream", RECENT)
}

#[test]
fn any_version() -> Result<()> {
    session("any", 0)
}
