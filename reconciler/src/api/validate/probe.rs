//! What is done to a container to see how it is, and when it starts and ends.

use serde_json::json;

use super::at::At;
use super::names;
use crate::api::status::Cause;

/// The probes and hooks of a container. `grace`: how many seconds its Pod is given to end.
pub fn probes_and_hooks(container: &At<'_>, grace_of_pod: Option<i64>, causes: &mut Vec<Cause>) {
    let lifecycle = container.field("lifecycle");
    for key in ["postStart", "preStop"] {
        let hook = lifecycle.field(key);
        if hook.is_set() {
            action(&hook, grace_of_pod, causes);
        }
    }
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = container.field(key);
        if !probe.is_set() {
            continue;
        }
        action(&probe, grace_of_pod, causes);
        for number in [
            "initialDelaySeconds",
            "timeoutSeconds",
            "periodSeconds",
            "successThreshold",
            "failureThreshold",
        ] {
            probe.field(number).non_negative(causes);
        }
        let grace = probe.field("terminationGracePeriodSeconds");
        if grace.number().is_some_and(|seconds| seconds <= 0) {
            grace.invalid(causes, "must be greater than 0");
        }
        if key == "readinessProbe" {
            if grace.is_set() {
                grace.invalid(causes, "must not be set for readinessProbes");
            }
        } else if probe.field("successThreshold").number() != Some(1) {
            probe.field("successThreshold").invalid(causes, "must be 1");
        }
    }
}

/// What a probe or a hook does: exactly one thing.
fn action(action: &At<'_>, grace: Option<i64>, causes: &mut Vec<Cause>) {
    let mut count = 0;
    for key in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        let handler = action.field(key);
        if !handler.is_set() {
            continue;
        }
        count += 1;
        if count > 1 {
            handler.forbidden(causes, "may not specify more than 1 handler type");
            continue;
        }
        match key {
            "exec" => {
                let command = handler.field("command");
                if command.is_empty() {
                    command.required(causes, "");
                }
            }
            "httpGet" => {
                let path = handler.field("path");
                if path.is_empty() {
                    path.required(causes, "");
                }
                handler.field("port").port_or_name(causes);
                handler
                    .field("scheme")
                    .one_of_if_set(causes, &["HTTP", "HTTPS"]);
                let headers = handler.field("httpHeaders");
                for header in headers.items() {
                    let name = header.field("name");
                    for wrong in names::header(name.text()) {
                        let value = json!(name.text());
                        causes.push(Cause::invalid(headers.path(), &value, &wrong));
                    }
                }
            }
            "sleep" => {
                let seconds = handler.field("seconds").number().unwrap_or(0);
                if let Some(grace) = grace
                    && !(0..=grace).contains(&seconds)
                {
                    causes.push(Cause::invalid(
                        handler.path(),
                        &json!(seconds),
                        &format!(
                            "must be non-negative and less than terminationGracePeriodSeconds ({grace})"
                        ),
                    ));
                }
            }
            _ => handler.field("port").port_or_name(causes),
        }
    }
    if count == 0 {
        action.required(causes, "must specify a handler type");
    }
}
