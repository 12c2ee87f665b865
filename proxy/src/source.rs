//! Where objects come from: an API server or a folder of manifests. Both say the same [`Event`]s.

pub mod folder;
pub mod kube;
mod said;

use tokio::sync::mpsc::Sender;

use crate::model::Event;
use folder::Folder;
use kube::Kube;

/// Batches of events; what belongs together comes together.
pub type Events = Sender<Vec<Event>>;

/// A source, ready to run.
pub enum Source {
    /// Manifests in a folder.
    Folder(Folder),
    /// A Kubernetes API server.
    Kube(Kube),
}

impl Source {
    /// Sends news until nobody listens any more. What goes wrong on the way is logged, once, and
    /// tried again.
    pub async fn run(self, events: Events) {
        match self {
            Self::Folder(folder) => folder.run(events).await,
            Self::Kube(kube) => kube.run(events).await,
        }
    }
}
