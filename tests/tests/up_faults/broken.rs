//! CNI plugins that fail or hang, and a full disk.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::Duration;
use tests::census::{self};
use tests::up::Up;
use tests::{eventually, process};

use crate::WAIT;
use crate::web::*;

/// A script in a CNI plugin's place, on one node; [`Broken::mend`] puts the plugin back.
struct Broken {
    path: std::path::PathBuf,
    target: std::path::PathBuf,
}

impl Broken {
    fn plugin(up: &Up, node: &str, plugin: &str, script: &str) -> Result<Self> {
        let path = up
            .folder()
            .join("nodes")
            .join(node)
            .join("cni/bin")
            .join(plugin);
        let target =
            fs::read_link(&path).with_context(|| format!("read the link {}", path.display()))?;
        let aside = path.with_extension("script");
        fs::write(&aside, script)?;
        fs::set_permissions(&aside, fs::Permissions::from_mode(0o755))?;
        fs::rename(&aside, &path)?;
        Ok(Self { path, target })
    }

    fn mend(self) -> Result<()> {
        fs::remove_file(&self.path)?;
        symlink(&self.target, &self.path).with_context(|| format!("link {}", self.path.display()))
    }
}

fn events_of(up: &Up, pod: &str) -> Result<String> {
    let words = [
        "get",
        "events",
        "--field-selector",
        &format!("involvedObject.name={pod}"),
        "-o",
        r#"jsonpath={range .items[*]}{.reason}: {.message}{"\n"}{end}"#,
    ];
    process::run(&mut up.command(&words))
}

/// Waits for an event of a Pod with both texts in one line.
fn event(up: &Up, pod: &str, reason: &str, text: &str) -> Result<()> {
    let done = eventually(
        &format!("event {reason} with {text:?} of {pod}"),
        WAIT,
        || {
            let events = events_of(up, pod)?;
            ensure!(
                events
                    .lines()
                    .any(|line| line.starts_with(reason) && line.contains(text)),
                "{events}"
            );
            Ok(())
        },
    );
    done.with_context(|| up.state())
}

#[test]
fn broken_plugins_and_full_disks_are_told_and_survived() -> Result<()> {
    if !ready() {
        return Ok(());
    }
    let up = Up::start(&["--nodes", "2"])?;
    let fresh = warm(&up)?;

    // On n2 the last plugin of the chain hangs: half is done by then, and is to be undone.
    let hangs = Broken::plugin(
        &up,
        "n2",
        "portmap",
        "#!/bin/sh\n[ $CNI_COMMAND = ADD ] || exit 0\nsleep 90000\n",
    )?;
    up.apply(&sleeper("hangs", 70_005, "Never", "n2"))?;

    // On n1 the first fails, by the rules.
    let fails = "#!/bin/sh\necho '{\"cniVersion\":\"1.0.0\",\"code\":11,\"msg\":\"the moon is full\"}'\nexit 1\n";
    let fails = Broken::plugin(&up, "n1", "flannel", fails)?;
    up.apply(&sleeper("fails", 70_006, "Never", "n1"))?;
    event(&up, "fails", "FailedCreatePodSandBox", "the moon is full")?;
    ensure!(
        census::of_pods(up.name(), "n1")?
            .iter()
            .all(|one| !one.command.contains("sleep 70006"))
    );
    fails.mend()?;
    up.wait_for("pod/fails", "condition=Ready", WAIT)?;

    // And the last, with no word of sense.
    let babbles = Broken::plugin(
        &up,
        "n1",
        "portmap",
        "#!/bin/sh\n[ $CNI_COMMAND = ADD ] || exit 0\necho nonsense\nexit 3\n",
    )?;
    up.apply(&sleeper("babbles", 70_007, "Never", "n1"))?;
    event(&up, "babbles", "FailedCreatePodSandBox", "nonsense")?;
    // What the first plugins had made is undone: one Pod has a network there, not two.
    eventually("the bridge has one port", WAIT, || {
        let ports = up.node(1).sh("ip -o link show master cni0")?;
        ensure!(ports.lines().count() == 1, "{ports}");
        let leases = fs::read_dir(up.folder().join("nodes/n1/cni/networks/cbr0"))?.flatten();
        let leases: Vec<_> = leases
            .map(|lease| lease.file_name().to_string_lossy().into_owned())
            .filter(|name| name.starts_with("10."))
            .collect();
        ensure!(leases.len() == 1, "{leases:?}");
        Ok(())
    })?;
    babbles.mend()?;
    up.wait_for("pod/babbles", "condition=Ready", WAIT)?;

    full_disk(&up)?;

    event(&up, "hangs", "FailedCreatePodSandBox", "no answer within")?;
    hangs.mend()?;
    up.wait_for("pod/hangs", "condition=Ready", WAIT)?;
    eventually("no plugin hangs any more", WAIT, || {
        let all = census::processes(up.name(), Some("n2"))?;
        let left: Vec<_> = all
            .iter()
            .filter(|one| one.command.contains("90000") || one.command.contains("portmap"))
            .collect();
        ensure!(left.is_empty(), "{left:#?}");
        Ok(())
    })?;

    // A Pod whose network cannot be made can be deleted all the same.
    let hangs = Broken::plugin(&up, "n1", "flannel", "#!/bin/sh\nexit 1\n")?;
    up.apply(&sleeper("never", 70_008, "Never", "n1"))?;
    event(&up, "never", "FailedCreatePodSandBox", "flannel")?;
    up.kubectl("delete pod never --wait=false")?;
    hangs.mend()?;
    up.kubectl("delete pod fails babbles hangs --wait=false")?;
    eventually("all Pods are gone", WAIT, || {
        let left = up.kubectl("get pods -o name")?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    })?;
    census::ensure_as_before(up.name(), &fresh, WAIT)
}

/// The disk of n1's logs is full: a container that talks goes on, and when there is room again its log says what it
/// has lost.
fn full_disk(up: &Up) -> Result<()> {
    let logs = up.folder().join("nodes/n1/logs");
    let logs = logs.to_str().context("a path")?;
    let mount = |options: &str| {
        process::run(std::process::Command::new("mount").args([
            "-t",
            "tmpfs",
            "-o",
            options,
            "weft-test",
            logs,
        ]))
    };
    // One page: whatever is written fills it.
    mount("size=4k")?;
    let done = (|| {
        up.apply(
            r#"
apiVersion: v1
kind: Pod
metadata: {name: talks}
spec:
  nodeName: n1
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: host
      command: [sh, -c, "i=0; while true; do i=$((i+1)); echo $i >/tmp/count; echo line $i of many that fill a disk; [ $i -lt 3000 ] || sleep 0.2; done"]
"#,
        )?;
        let count =
            || -> Result<u64> { Ok(up.kubectl("exec talks -- cat /tmp/count")?.trim().parse()?) };
        eventually("it has filled the disk and goes on", WAIT, || {
            let (first, full) = (
                count()?,
                process::run(std::process::Command::new("df").args(["--output=avail", logs]))?,
            );
            ensure!(
                first > 3000 && full.lines().last().is_some_and(|line| line.trim() == "0"),
                "line {first}; {full}"
            );
            std::thread::sleep(Duration::from_millis(500));
            ensure!(count()? > first, "it stands at line {first}");
            Ok(())
        })?;
        process::run(std::process::Command::new("mount").args(["-o", "remount,size=16m", logs]))?;
        eventually("its log goes on, and says what was lost", WAIT, || {
            let log = up.kubectl("logs talks --tail=2000")?;
            ensure!(
                log.contains("lines were lost here"),
                "{} lines",
                log.lines().count()
            );
            Ok(())
        })?;
        let restarts = up.field("pod/talks", "{.status.containerStatuses[0].restartCount}")?;
        ensure!(restarts == "0", "{restarts} restarts");
        up.kubectl("delete pod talks")?;
        Ok(())
    })();
    process::run(std::process::Command::new("umount").args(["-l", logs]))?;
    done
}
