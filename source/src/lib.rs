//! Kubernetes objects for the parts on a node: listed and watched at an API server, or read from a folder of manifests.
//!
//! Both say the same events, which are the [`Consumer`]'s own. A list begins with what [`Consumer::restarted`] says of
//! its kind and ends with [`Consumer::listed`]: what was not told in between is gone. Until then, and whatever fails
//! meanwhile, nothing that was said is taken back.

mod consumer;
pub mod folder;
pub mod kube;
mod name;
mod said;
#[cfg(test)]
mod sample;
#[cfg(any(test, feature = "scripted"))]
pub mod scripted;

use tokio::sync::mpsc::Sender;

pub use consumer::{Consumer, Outcome, Reduced, Unusable};
pub use folder::Folder;
pub use kube::Kube;
pub use name::ObjectName;
pub use said::Said;

/// Batches of events; what belongs together comes together.
pub type Events<E> = Sender<Vec<E>>;

/// A source, ready to run.
pub enum Source<C> {
    /// Manifests in a folder.
    Folder(Folder<C>),
    /// A Kubernetes API server.
    Kube(Kube<C>),
}

impl<C: Consumer> Source<C> {
    /// Sends news until nobody listens any more. What goes wrong on the way is logged, once, and
    /// tried again.
    pub async fn run(self, events: Events<C::Event>) {
        match self {
            Self::Folder(folder) => folder.run(events).await,
            Self::Kube(kube) => kube.run(events).await,
        }
    }
}
