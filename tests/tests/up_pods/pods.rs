//! Statements about Pods that come true.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::time::Duration;
use tests::up::Up;
use tests::{eventually, process, requirement};

/// Long, for a machine under load.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Whether these tests can run here.
pub fn can_run() -> bool {
    requirement::is_root() && requirement::has_programs(&["kubectl", "busybox"])
}

/// Waits until all of these hold at once. Of each: the Pod, a path in it, and the text there; `>N` is any greater
/// number, `~TEXT` any that holds TEXT, and nothing stands for what is not there.
pub fn hold(up: &Up, statements: &[(&str, &str, &str)]) -> Result<()> {
    eventually("the Pods are as they should be", LIMIT, || {
        let text = up.kubectl("get pods -o json")?;
        let all: Value = serde_json::from_str(&text)?;
        let items = all["items"].as_array().context("no list")?;
        let mut wrong = Vec::new();
        for (name, path, wanted) in statements {
            let pod = items.iter().find(|pod| pod["metadata"]["name"] == **name);
            let Some(pod) = pod else {
                wrong.push(format!("there is no pod {name}"));
                continue;
            };
            let found = match pod.pointer(path) {
                Some(Value::String(text)) => text.clone(),
                Some(value) => value.to_string(),
                None => String::new(),
            };
            if !is(&found, wanted) {
                wrong.push(format!(
                    "{name} {path}: {found:?}, not {wanted:?}; its status: {}",
                    pod["status"]
                ));
            }
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    })
    .with_context(|| up.state())
}

fn is(found: &str, wanted: &str) -> bool {
    if let Some(least) = wanted.strip_prefix('>') {
        let number = |text: &str| text.parse::<i64>().ok();
        number(found)
            .zip(number(least))
            .is_some_and(|(found, least)| found > least)
    } else if let Some(part) = wanted.strip_prefix('~') {
        found.contains(part)
    } else {
        found == wanted
    }
}

/// Waits until an event of a Pod has this reason and a message with this text.
pub fn event(up: &Up, pod: &str, reason: &str, text: &str) -> Result<()> {
    let selector = format!("involvedObject.name={pod},reason={reason}");
    eventually(
        &format!("{pod} has an event {reason}: {text}"),
        LIMIT,
        || {
            let path = "jsonpath={.items[*].message}";
            let words = ["get", "events", "--field-selector", &selector, "-o", path];
            let said = process::run(&mut up.command(&words))?;
            ensure!(said.contains(text), "there is only {said:?}");
            Ok(())
        },
    )
    .with_context(|| up.state())
}

/// What a command in a container prints.
pub fn inside(up: &Up, pod: &str, container: &str, script: &str) -> Result<String> {
    process::run(&mut up.command(&["exec", pod, "-c", container, "--", "sh", "-c", script]))
}

/// Waits until a command in a container prints this.
pub fn prints(up: &Up, pod: &str, container: &str, script: &str, wanted: &str) -> Result<()> {
    eventually(
        &format!("{script:?} in {pod} prints {wanted:?}"),
        LIMIT,
        || {
            let found = inside(up, pod, container, script)?;
            ensure!(found.trim() == wanted, "it prints {found:?}");
            Ok(())
        },
    )
    .with_context(|| up.state())
}
