//! A folder of images that were built here: a root in a folder, in a tar, and in an OCI layout.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use tests::{process, requirement};

/// Makes `plain/`, `packed.tar` and `example.org/team/layout_1.0/` of busybox.
pub fn build(folder: &Path) -> Result<()> {
    let plain = folder.join("plain");
    root(&plain, "folder")?;
    let packed = folder.join("root-of-tar");
    root(&packed, "tar")?;
    pack(&packed, &folder.join("packed.tar"))?;
    fs::remove_dir_all(&packed)?;
    layout(folder)
}

/// A root: a static busybox and who it is.
fn root(folder: &Path, marker: &str) -> Result<()> {
    for name in ["bin", "etc"] {
        fs::create_dir_all(folder.join(name))?;
    }
    let busybox = requirement::find_in_path("busybox").context("no busybox")?;
    fs::copy(busybox, folder.join("bin/busybox"))?;
    for name in ["sh", "ls", "cat", "env", "id", "pwd", "sleep"] {
        symlink("busybox", folder.join("bin").join(name))?;
    }
    fs::write(folder.join("etc/marker"), format!("from a {marker}\n"))?;
    fs::write(
        folder.join("etc/passwd"),
        "root:x:0:0::/:/bin/sh\nworker:x:1234:1234::/srv:/bin/sh\n",
    )?;
    Ok(())
}

fn pack(root: &Path, tar: &Path) -> Result<()> {
    let mut command = Command::new("tar");
    process::run(command.arg("-C").arg(root).arg("-cf").arg(tar).arg(".")).map(drop)
}

/// Two layers; the second takes a file of the first away.
fn layout(folder: &Path) -> Result<()> {
    let layout = folder.join("example.org_team_layout_1.0");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let scratch = folder.join("scratch");
    root(&scratch.join("one"), "layout")?;
    fs::write(scratch.join("one/etc/removed"), "")?;
    fs::create_dir_all(scratch.join("two/etc"))?;
    fs::create_dir_all(scratch.join("two/srv"))?;
    fs::write(scratch.join("two/etc/.wh.removed"), "")?;
    let mut layers = Vec::new();
    let mut ids = Vec::new();
    for name in ["one", "two"] {
        let tar = scratch.join("layer.tar");
        pack(&scratch.join(name), &tar)?;
        let bytes = fs::read(&tar)?;
        let (digest, size) = blob(&blobs, &bytes)?;
        ids.push(digest.clone());
        layers.push(json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": size}));
    }
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": {
            "Entrypoint": ["/bin/sh", "-c"],
            "Cmd": ["cat /etc/marker; ls /etc; echo $COLOUR; pwd; id -u"],
            "Env": ["PATH=/bin", "COLOUR=green"],
            "WorkingDir": "/srv",
            "User": "worker",
        },
        "rootfs": {"type": "layers", "diff_ids": ids},
    });
    let config = reference(&blobs, "application/vnd.oci.image.config.v1+json", &config)?;
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
    let manifest = reference(
        &blobs,
        "application/vnd.oci.image.manifest.v1+json",
        &manifest,
    )?;
    fs::write(
        layout.join("index.json"),
        json!({"schemaVersion": 2, "manifests": [manifest]}).to_string(),
    )?;
    fs::write(
        layout.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )?;
    fs::remove_dir_all(scratch).context("remove the layers' folders")
}

fn reference(blobs: &Path, kind: &str, value: &Value) -> Result<Value> {
    let (digest, size) = blob(blobs, value.to_string().as_bytes())?;
    Ok(json!({"mediaType": kind, "digest": digest, "size": size}))
}

/// Writes a blob; its digest and size.
fn blob(blobs: &Path, bytes: &[u8]) -> Result<(String, usize)> {
    let file = tempfile::NamedTempFile::new_in(blobs)?;
    fs::write(file.path(), bytes)?;
    let said = process::run(Command::new("sha256sum").arg(file.path()))?;
    let hex = said
        .split_whitespace()
        .next()
        .context("sha256sum said nothing")?;
    file.persist(blobs.join(hex))?;
    Ok((format!("sha256:{hex}"), bytes.len()))
}
