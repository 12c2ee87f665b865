//! Waiting until an object is gone.

use serde_json::Value;

use super::failure::Failure;
use super::session::{JSON, Session};
use super::watch::Events;

/// An object that is being deleted.
pub struct Going {
    /// Of its kind in its namespace, or of the whole cluster.
    pub collection: String,
    /// Its name.
    pub name: String,
    /// Which one of that name; a new one is another.
    pub uid: Option<String>,
}

/// Returns when the object is gone. Watches that end are opened again.
///
/// # Errors
/// The server is not reached, or does not let us look.
pub async fn wait(session: &mut Session<'_>, going: &Going) -> Result<(), Failure> {
    let selector: String =
        form_urlencoded::byte_serialize(format!("metadata.name={}", going.name).as_bytes())
            .collect();
    let path = format!("{}?fieldSelector={selector}", going.collection);
    loop {
        let list = session.get(&path, JSON).await?;
        let items = list.get("items").and_then(Value::as_array);
        let there = items.is_some_and(|items| items.iter().any(|item| same(item, going)));
        if !there {
            return Ok(());
        }
        let revision = list.pointer("/metadata/resourceVersion");
        let revision = revision.and_then(Value::as_str).unwrap_or("0");
        let path = format!("{path}&watch=true&resourceVersion={revision}");
        let mut events = Events::open(session, &path, JSON).await?;
        loop {
            match events.next().await {
                Ok(Some(event)) if event.kind == "DELETED" && same(&event.object, going) => {
                    return Ok(());
                }
                Ok(Some(_)) => {}
                // It was ended, or the history is gone.
                Ok(None) | Err(Failure::Server(_, 410)) => break,
                Err(other) => return Err(other),
            }
        }
    }
}

fn same(object: &Value, going: &Going) -> bool {
    let uid = object.pointer("/metadata/uid").and_then(Value::as_str);
    going.uid.is_none() || uid == going.uid.as_deref()
}
