//! Which object an event is about, and what says that it is no more.

use std::fmt;

use super::word_of;
use crate::model::{Event, Kind, ObjectName};

/// Which object. Prints as in `Service shop/web`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(pub Kind, pub ObjectName);

impl Key {
    /// Of the object that an event is about; `None` where it is about a list.
    pub fn of(event: &Event) -> Option<Self> {
        let (kind, name) = match event {
            Event::Service(service) => (Kind::Services, &service.name),
            Event::ServiceGone(name) => (Kind::Services, name),
            Event::Slice(slice) => (Kind::Slices, &slice.name),
            Event::SliceGone(name) => (Kind::Slices, name),
            Event::Pod(pod) => (Kind::Pods, &pod.name),
            Event::PodGone(name) => (Kind::Pods, name),
            Event::Restarted(_) | Event::Listed(_) => return None,
        };
        Some(Self(kind, name.clone()))
    }

    /// What says that the object is no more.
    pub fn gone(self) -> Event {
        let Self(kind, name) = self;
        match kind {
            Kind::Services => Event::ServiceGone(name),
            Kind::Slices => Event::SliceGone(name),
            Kind::Pods => Event::PodGone(name),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", word_of(self.0), self.1)
    }
}
