//! The node's CNI configuration, as flannel's manifest has it, and its plugins, where there are none.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};

use super::Site;

/// flannel's own name for it.
const FILE: &str = "10-flannel.conflist";
/// How often is looked whether flanneld has written its file, at the start only.
const LOOK: Duration = Duration::from_millis(20);

/// Writes the configuration when there is a subnet, unless the operator has put one there.
pub async fn write(site: &Site, subnet: &Path) -> anyhow::Result<()> {
    while !subnet.exists() {
        tokio::time::sleep(LOOK).await;
    }
    let folder = &site.arguments.cni_conf_dir;
    let what = || format!("write {}", folder.join(FILE).display());
    fs::create_dir_all(folder).with_context(what)?;
    let others = fs::read_dir(folder)
        .with_context(what)?
        .flatten()
        .any(|entry| {
            let name = entry.file_name();
            let name = Path::new(&name);
            name != Path::new(FILE)
                && name
                    .extension()
                    .is_some_and(|kind| kind == "conf" || kind == "conflist" || kind == "json")
        });
    if others {
        tracing::info!(
            "{} has a configuration already: it is left alone",
            folder.display()
        );
        return Ok(());
    }
    let text = format!("{:#}\n", conflist(subnet, &site.arguments.data));
    let path = folder.join(FILE);
    if fs::read_to_string(&path).is_ok_and(|there| there == text) {
        return Ok(());
    }
    // Half a file is no configuration.
    let new = folder.join(format!(".{FILE}"));
    fs::write(&new, text).with_context(what)?;
    fs::rename(&new, &path).with_context(what)
}

/// <https://github.com/flannel-io/flannel/blob/master/Documentation/kube-flannel.yml>, with this node's own paths.
fn conflist(subnet: &Path, data: &Path) -> Value {
    json!({
        "name": "cbr0",
        "cniVersion": "1.0.0",
        "plugins": [
            {
                "type": "flannel",
                "subnetFile": subnet,
                "dataDir": data.join("cni/flannel"),
                "ipam": {"dataDir": data.join("cni/networks")},
                "delegate": {"hairpinMode": true, "isDefaultGateway": true},
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

/// Makes the folder of plugins, as links to this program, if it is not there.
pub fn plugins(site: &Site) -> anyhow::Result<()> {
    let folder = &site.arguments.cni_bin_dir;
    if folder.exists() {
        return Ok(());
    }
    let what = || format!("install the CNI plugins in {}", folder.display());
    let program = program()?;
    fs::create_dir_all(folder).with_context(what)?;
    for plugin in plugins::registry::ALL {
        symlink(&program, folder.join(plugin.name())).with_context(what)?;
    }
    tracing::info!("{} was not there: it has our plugins now", folder.display());
    Ok(())
}

/// This program's file.
pub fn program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("find this program's file")
}
