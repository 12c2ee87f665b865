//! What a container asks to be done after its start and before its end.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use super::{Context, http};

/// An exec of postStart has no limit of its own.
const LONG: Duration = Duration::from_secs(24 * 3600);
/// Requests have.
const REQUEST: Duration = Duration::from_secs(30);

/// Runs a hook to its end.
///
/// # Errors
/// Why it failed.
pub async fn run(
    context: &Context,
    hook: &LifecycleHandler,
    container: &Container,
    id: &str,
    ip: Option<IpAddr>,
) -> Result<(), String> {
    if let Some(action) = &hook.exec {
        let command = action.command.as_deref().unwrap_or_default();
        let output = context
            .runtime
            .exec_sync(id, command, LONG)
            .await
            .map_err(|error| error.to_string())?;
        return if output.code == 0 {
            Ok(())
        } else {
            Err(format!(
                "command '{}' exited with {}: {}",
                command.join(" "),
                output.code,
                output.text.trim_end()
            ))
        };
    }
    if let Some(action) = &hook.http_get {
        // Any answer will do.
        return http::get(action, container, ip, REQUEST).await.map(drop);
    }
    if let Some(action) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(
            u64::try_from(action.seconds).unwrap_or(0),
        ))
        .await;
        return Ok(());
    }
    Err("invalid handler: it has none of exec, httpGet, sleep".to_owned())
}
