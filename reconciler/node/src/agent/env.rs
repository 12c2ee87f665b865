//! The environment of a container, and `$(NAME)` in what it is started with.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod};

use super::fields::{self, Facts};
use super::objects::{Kind, Lookup};
use super::spec;

/// The variables, as far as the Pod says, in the order of their names. `services`: those of Services.
///
/// # Errors
/// What is missing, as kubelets say it: `configmap "web" not found`.
pub fn environment(
    pod: &Pod,
    container: &Container,
    services: BTreeMap<String, String>,
    objects: &dyn Lookup,
    facts: &Facts,
) -> Result<BTreeMap<String, String>, String> {
    let mut variables = BTreeMap::new();
    from_objects(pod, container, objects, &mut variables)?;
    for entry in container.env.iter().flatten() {
        let value = match &entry.value {
            Some(value) if !value.is_empty() => Some(expand(value, &|name| {
                variables.get(name).or_else(|| services.get(name)).cloned()
            })),
            _ => value_from(pod, container, entry, objects, facts)?,
        };
        if let Some(value) = value {
            variables.insert(entry.name.clone(), value);
        }
    }
    for (name, value) in services {
        variables.entry(name).or_insert(value);
    }
    Ok(variables)
}

/// `envFrom`
fn from_objects(
    pod: &Pod,
    container: &Container,
    objects: &dyn Lookup,
    variables: &mut BTreeMap<String, String>,
) -> Result<(), String> {
    for source in container.env_from.iter().flatten() {
        let (kind, name, optional) = if let Some(source) = &source.config_map_ref {
            (Kind::ConfigMap, &source.name, source.optional)
        } else if let Some(source) = &source.secret_ref {
            (Kind::Secret, &source.name, source.optional)
        } else {
            continue;
        };
        let Some(data) = objects.find(kind, spec::namespace(pod), name)? else {
            if optional == Some(true) {
                continue;
            }
            return Err(format!("{} {name:?} not found", kind.word()));
        };
        let prefix = source.prefix.as_deref().unwrap_or_default();
        for (key, value) in data.iter() {
            let name = format!("{prefix}{key}");
            if is_name(&name)
                && let Ok(value) = String::from_utf8(value.clone())
            {
                variables.insert(name, value);
            }
        }
    }
    Ok(())
}

/// What may stand before `=`: printable ASCII.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=')
}

fn value_from(
    pod: &Pod,
    container: &Container,
    entry: &EnvVar,
    objects: &dyn Lookup,
    facts: &Facts,
) -> Result<Option<String>, String> {
    let Some(from) = &entry.value_from else {
        return Ok(Some(String::new()));
    };
    if let Some(field) = &from.field_ref {
        return fields::field(pod, &field.field_path, facts).map(Some);
    }
    if let Some(field) = &from.resource_field_ref {
        return fields::resource(pod, Some(container), field, facts).map(Some);
    }
    let (kind, name, key, optional) = if let Some(source) = &from.config_map_key_ref {
        (Kind::ConfigMap, &source.name, &source.key, source.optional)
    } else if let Some(source) = &from.secret_key_ref {
        (Kind::Secret, &source.name, &source.key, source.optional)
    } else {
        return Err(format!(
            "the source of variable {:?} is not supported by this node",
            entry.name
        ));
    };
    let optional = optional == Some(true);
    let namespace = spec::namespace(pod);
    let Some(data) = objects.find(kind, namespace, name)? else {
        return if optional {
            Ok(None)
        } else {
            Err(format!("{} {name:?} not found", kind.word()))
        };
    };
    match data.get(key) {
        Some(value) => String::from_utf8(value.clone()).map(Some).map_err(|_| {
            format!(
                "key {key} in {} {namespace}/{name} is not UTF-8, which a variable has to be",
                kind.title()
            )
        }),
        None if optional => Ok(None),
        None => Err(format!(
            "couldn't find key {key} in {} {namespace}/{name}",
            kind.title()
        )),
    }
}

/// Replaces `$(NAME)`; `$$` is a dollar; unknown names stay as they are.
pub fn expand(text: &str, value: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let reference = rest
            .strip_prefix('(')
            .and_then(|inner| inner.split_once(')'));
        match reference {
            Some((name, after)) => {
                match value(name) {
                    Some(value) => out.push_str(&value),
                    None => {
                        out.push_str("$(");
                        out.push_str(name);
                        out.push(')');
                    }
                }
                rest = after;
            }
            None => out.push('$'),
        }
    }
    out.push_str(rest);
    out
}
