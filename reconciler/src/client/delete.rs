//! `weft delete`: objects by name or by manifest, and the wait until they are gone.

use std::path::PathBuf;

use hyper::Method;
use serde_json::{Value, json};

use super::failure::Failure;
use super::get;
use super::gone::{self, Going};
use super::manifest;
use super::resources::{Resource, Resources};
use super::session::{Content, JSON, Session};

/// What is deleted.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `KIND NAME…`, or `KIND/NAME…`.
    pub what: Vec<String>,
    /// Files, folders, `-`.
    pub files: Vec<PathBuf>,
    /// Seconds that a Pod has to end; the object's own if none.
    pub grace_period: Option<u32>,
    /// Whether to return only when they are gone.
    pub wait: bool,
    /// What is not there is no failure.
    pub ignore_not_found: bool,
}

/// Deletes, and says so. What fails is said, and the rest is deleted.
///
/// # Errors
/// Nothing can be deleted.
pub async fn run(session: &mut Session<'_>, options: &Options) -> Result<(), Failure> {
    let manifests = manifest::read(&options.files);
    let resources = Resources::discover(session).await?;
    let mut objects = Vec::new();
    if options.what.is_empty() {
        if manifests.is_empty() {
            return Err(Failure::Local("no objects passed to delete".to_owned()));
        }
        for manifest in manifests {
            let object = manifest.and_then(|manifest| {
                let (resource, name, namespace) = manifest.identity(&resources)?;
                let namespace = session.namespace_of(namespace)?;
                Ok((resource.clone(), name.to_owned(), namespace))
            });
            match object {
                Ok(object) => objects.push(object),
                Err(failure) => session.terminal.complain(&failure),
            }
        }
    } else {
        for wanted in get::wanted(&resources, &options.what)? {
            let Some(name) = wanted.name else {
                return Err(Failure::Local(
                    "resource(s) were provided, but no name was specified".to_owned(),
                ));
            };
            objects.push((wanted.resource, name, session.namespace().to_owned()));
        }
    }
    let mut going = Vec::new();
    for (resource, name, namespace) in &objects {
        match delete(session, options, resource, name, namespace).await {
            Ok(object) => going.push(object),
            Err(failure) if failure.not_found() && options.ignore_not_found => {}
            Err(failure @ (Failure::Refused(_) | Failure::Output(_))) => return Err(failure),
            Err(failure) => session.terminal.complain(&failure),
        }
    }
    if options.wait {
        for object in &going {
            gone::wait(session, object).await?;
        }
    }
    Ok(())
}

async fn delete(
    session: &mut Session<'_>,
    options: &Options,
    resource: &Resource,
    name: &str,
    namespace: &str,
) -> Result<Going, Failure> {
    let mut value =
        json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"});
    if let (Some(seconds), Some(fields)) = (options.grace_period, value.as_object_mut()) {
        fields.insert("gracePeriodSeconds".to_owned(), seconds.into());
    }
    let path = resource.path(Some(namespace), Some(name));
    let content = Content { kind: JSON, value };
    let answer = session
        .send(Method::DELETE, &path, JSON, Some(content))
        .await?;
    let answer = session.read(answer).await?;
    writeln!(
        session.terminal.out,
        "{} {name:?} deleted",
        resource.shown()
    )?;
    session.terminal.out.flush()?;
    // The object as it was, or a Status about it.
    let uid = answer
        .pointer("/metadata/uid")
        .or_else(|| answer.pointer("/details/uid"));
    Ok(Going {
        collection: resource.path(Some(namespace), None),
        name: name.to_owned(),
        uid: uid.and_then(Value::as_str).map(str::to_owned),
    })
}
