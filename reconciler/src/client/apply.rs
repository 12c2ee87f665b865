//! `weft apply`: server-side apply of manifests.

use std::path::PathBuf;

use hyper::Method;
use serde_json::Value;

use super::failure::Failure;
use super::manifest::{self, Manifest};
use super::resources::Resources;
use super::session::{Content, JSON, Session};

/// The name under which fields are managed.
const MANAGER: &str = "weft";

/// What is applied.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Files, folders, `-`.
    pub files: Vec<PathBuf>,
    /// Take over fields that others manage.
    pub force_conflicts: bool,
    /// The server does all but keep it.
    pub dry_run: bool,
}

/// Applies each object of the manifests, and says what became of it. What fails is said, and the rest is applied.
///
/// # Errors
/// Nothing can be applied.
pub async fn run(session: &mut Session<'_>, options: &Options) -> Result<(), Failure> {
    let manifests = manifest::read(&options.files);
    if manifests.is_empty() {
        return Err(Failure::Local("no objects passed to apply".to_owned()));
    }
    let resources = Resources::discover(session).await?;
    for manifest in manifests {
        let applied = match manifest {
            Ok(manifest) => apply(session, options, &resources, manifest).await,
            Err(failure) => Err(failure),
        };
        match applied {
            Ok(()) => {}
            Err(failure @ (Failure::Refused(_) | Failure::Output(_))) => return Err(failure),
            Err(failure) => session.terminal.complain(&failure),
        }
    }
    Ok(())
}

async fn apply(
    session: &mut Session<'_>,
    options: &Options,
    resources: &Resources,
    manifest: Manifest,
) -> Result<(), Failure> {
    let (resource, name, namespace) = manifest.identity(resources)?;
    let mut namespace = Some(session.namespace_of(namespace)?);
    if !resource.namespaced {
        namespace = None;
    }
    let shown = format!("{}/{name}", resource.shown());
    let path = resource.path(namespace.as_deref(), Some(name));
    let before = match session.get(&path, JSON).await {
        Ok(before) => before,
        Err(failure) if failure.not_found() => Value::Null,
        Err(failure) => return Err(failure),
    };
    let dry = if options.dry_run { "&dryRun=All" } else { "" };
    let path = format!(
        "{path}?fieldManager={MANAGER}&fieldValidation=Strict&force={}{dry}",
        options.force_conflicts
    );
    let content = Content {
        kind: "application/apply-patch+yaml",
        value: manifest.object,
    };
    let answer = session
        .send(Method::PATCH, &path, JSON, Some(content))
        .await?;
    let created = answer.status().as_u16() == 201;
    let after = session.read(answer).await?;
    let what = if created {
        "created"
    } else if unchanged(&before, &after, options.dry_run) {
        "unchanged"
    } else {
        "configured"
    };
    let dry = if options.dry_run {
        " (server dry run)"
    } else {
        ""
    };
    writeln!(session.terminal.out, "{shown} {what}{dry}")?;
    Ok(())
}

/// Whether nothing was written. A dry run writes nothing, and its answer keeps the revision.
fn unchanged(before: &Value, after: &Value, dry_run: bool) -> bool {
    let revision = |object: &Value| object.pointer("/metadata/resourceVersion").cloned();
    if dry_run {
        before == after
    } else {
        revision(before).is_some() && revision(before) == revision(after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_revision_tells_a_change_and_a_dry_run_is_compared_whole() {
        let object =
            |revision: &str, a: i32| json!({"metadata": {"resourceVersion": revision}, "a": a});
        assert!(unchanged(&object("1", 1), &object("1", 1), false));
        assert!(!unchanged(&object("1", 1), &object("2", 1), false));
        assert!(!unchanged(&Value::Null, &Value::Null, false));
        assert!(unchanged(&object("1", 1), &object("1", 1), true));
        assert!(!unchanged(&object("1", 1), &object("1", 2), true));
    }
}
