//! Real kubectl through its commands, as far as they need no running node: the sessions in `data/api/sessions`.
//!
//! Each session has a server of its own, `kubectl` of the PATH, and begins in an empty folder. What it says is what a
//! real kube-apiserver made it say in the recordings, except ages, identities and addresses.

use anyhow::{Context, Result};
use std::path::Path;
use tests::{ApiServer, requirement, transcript};

fn session(name: &str) -> Result<()> {
    if !requirement::has_programs(&["kubectl", "bash", "timeout", "curl", "diff"]) {
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
    session("read")
}

#[test]
fn create() -> Result<()> {
    session("create")
}

#[test]
fn apply() -> Result<()> {
    session("apply")
}

#[test]
fn change() -> Result<()> {
    session("change")
}

#[test]
fn roll() -> Result<()> {
    session("roll")
}

#[test]
fn node() -> Result<()> {
    session("node")
}

#[test]
fn wait() -> Result<()> {
    session("wait")
}

#[test]
fn describe() -> Result<()> {
    session("describe")
}

#[test]
fn stream() -> Result<()> {
    session("stream")
}
