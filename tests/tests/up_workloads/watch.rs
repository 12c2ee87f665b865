//! Every state that the Pods of a namespace go through, as a watch tells it.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::process::{Child, Stdio};
use std::time::Duration;
use tests::eventually;
use tests::up::Up;

/// A Pod as far as it counts in a rollout.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its `pod-template-hash`.
    pub template: String,
    /// Its condition Ready.
    pub ready: bool,
    /// It is being deleted.
    pub leaves: bool,
    /// Its containers have ended for good.
    pub ended: bool,
}

/// All Pods after one change.
#[derive(Clone, Debug, Default)]
pub struct Moment {
    /// By name.
    pub pods: BTreeMap<String, Pod>,
}

/// A watch by kubectl that writes to a file.
pub struct Watch {
    kubectl: Child,
    file: tempfile::NamedTempFile,
}

impl Watch {
    /// Begins with what there is, and waits until that has been told.
    pub fn begin(up: &Up, namespace: &str) -> Result<Self> {
        let file = tempfile::NamedTempFile::new()?;
        let arguments = [
            "get",
            "pods",
            "-n",
            namespace,
            "--watch",
            "--output-watch-events",
            "-o",
            "json",
        ];
        let mut command = up.command(&arguments);
        command.stdout(file.reopen()?).stderr(Stdio::null());
        let kubectl = command.spawn().context("start kubectl")?;
        let watch = Self { kubectl, file };
        eventually("the watch tells of Pods", Duration::from_secs(60), || {
            ensure!(
                std::fs::metadata(watch.file.path())?.len() > 0,
                "nothing yet"
            );
            Ok(())
        })?;
        Ok(watch)
    }

    /// Every moment after those that only told what there was.
    pub fn end(mut self) -> Result<Vec<Moment>> {
        self.kubectl.kill().context("end kubectl")?;
        self.kubectl.wait().context("wait for kubectl")?;
        let events =
            serde_json::Deserializer::from_reader(BufReader::new(File::open(self.file.path())?))
                .into_iter::<Value>();
        let mut now = Moment::default();
        let mut moments = Vec::new();
        let mut begun = false;
        for event in events {
            // The last one is cut where kubectl was killed.
            let Ok(event) = event else { break };
            let object = &event["object"];
            let name = object["metadata"]["name"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            begun |= event["type"] != "ADDED";
            if event["type"] == "DELETED" {
                now.pods.remove(&name);
            } else {
                now.pods.insert(name, pod(object));
            }
            if begun {
                moments.push(now.clone());
            }
        }
        Ok(moments)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It has ended already, unless the test fails.
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}

fn pod(object: &Value) -> Pod {
    let conditions = object["status"]["conditions"].as_array();
    let ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
    let phase = object["status"]["phase"].as_str().unwrap_or_default();
    Pod {
        template: object["metadata"]["labels"]["pod-template-hash"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        ready: conditions.is_some_and(|conditions| conditions.iter().any(ready)),
        leaves: object["metadata"]["deletionTimestamp"].is_string(),
        ended: matches!(phase, "Succeeded" | "Failed"),
    }
}
