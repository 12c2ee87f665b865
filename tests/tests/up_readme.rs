//! The README's commands of a cluster, as they stand there.

use anyhow::{Context, Result, ensure};
use std::process::{Command, Stdio};
use tests::up::Up;
use tests::{requirement, subject};

/// The commands of the README's section of this headline.
fn section(headline: &str) -> Result<String> {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md"))?;
    let (_, section) = readme
        .split_once(&format!("\n### {headline}\n"))
        .with_context(|| format!("README.md has no section {headline}"))?;
    let section = section.split("\n##").next().unwrap_or(section);
    let blocks = section.split("```sh\n").skip(1);
    let commands: Vec<_> = blocks
        .filter_map(|block| block.split("```").next())
        .collect();
    ensure!(
        !commands.is_empty(),
        "the section {headline} has no commands"
    );
    Ok(commands.concat())
}

#[test]
fn a_cluster_to_work_with() -> Result<()> {
    if !requirement::is_root() || !requirement::has_programs(&["bash", "kubectl", "busybox", "ip"])
    {
        return Ok(());
    }
    // Its name is the test's own, and it is taken away whatever happens.
    let mut up = Up::start(&["--nodes", "1"])?;
    up.weft(&["down"])?;
    let name = up.name().to_owned();
    let script = section("A cluster to work with")?
        .replace("/clusters/weft/", &format!("/clusters/{name}/"))
        .replace("weft-weft-", &format!("weft-{name}-"));
    let programs = subject::program("weft")?;
    let programs = programs
        .parent()
        .context("a program in a folder")?
        .display()
        .to_string();
    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail", "-c", &script])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .env("PATH", format!("{programs}:{}", std::env::var("PATH")?))
        .env("WEFT_CLUSTER", &name)
        .env("HOME", std::env::temp_dir().join(&name))
        .env_remove("KUBECONFIG")
        .stdin(Stdio::null());
    let output = bash.output().context("start bash")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{script}\n{text}{errors}");
    for part in [
        "all 3 nodes are ready",
        "deployment.apps/web created",
        "successfully rolled out",
        "deployment.apps/web rolled back",
        "node n3 is down",
        &format!("cluster {name} is gone"),
    ] {
        ensure!(text.contains(part), "no {part:?} in\n{text}{errors}");
    }
    // Nothing is left to be taken away, which is no failure.
    up.raise(&["--nodes", "1"])?;
    // The script's home, for kubectl's cache.
    let home = std::env::temp_dir().join(&name);
    if home.exists() {
        std::fs::remove_dir_all(home)?;
    }
    Ok(())
}
