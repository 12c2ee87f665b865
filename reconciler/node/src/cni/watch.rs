//! Tells when the configuration on disk has changed.

use std::path::Path;

use tokio::sync::mpsc;

use super::{Cni, list};
use crate::inotify::{Change, Watch};
use crate::runtime::Event;

impl Cni {
    /// Sends [`Event::Ready`] whenever another list is chosen, until nobody listens. To be spawned.
    pub async fn watch(&self, events: &mpsc::Sender<Event>) {
        let mut last = list::choose(&self.conf_dir).ok();
        loop {
            let mut changes = match watch_nearest(&self.conf_dir) {
                Ok(watch) => watch,
                Err(error) => {
                    return tracing::error!(
                        "watch {}: {error}; its changes are seen at the next Pod",
                        self.conf_dir.display()
                    );
                }
            };
            // After the watch is set, so that nothing falls in between.
            loop {
                let now = list::choose(&self.conf_dir).ok();
                if now != last {
                    last = now;
                    if events.send(Event::Ready).await.is_err() {
                        return;
                    }
                }
                let seen = tokio::select! {
                    seen = changes.next() => seen,
                    () = events.closed() => return,
                };
                match seen {
                    Ok(seen) if seen.contains(&Change::Folder) => break,
                    // A folder on the way to it has come: look from there.
                    Ok(_) if changes.folder_path() != self.conf_dir => break,
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!("watch {}: {error}", self.conf_dir.display());
                        break;
                    }
                }
            }
        }
    }
}

/// Watches a folder, or while it is not there the nearest above it.
fn watch_nearest(folder: &Path) -> std::io::Result<Watch> {
    let mut error = std::io::Error::from(std::io::ErrorKind::NotFound);
    for place in folder.ancestors() {
        match Watch::folder(place) {
            Ok(watch) => return Ok(watch),
            Err(failed) => error = failed,
        }
    }
    Err(error)
}
