//! Which object an event is about, and what says that it is no more.

use std::fmt;

use crate::model::{Event, Kind, ObjectName};

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// `None` for the own Node.
    pub name: Option<ObjectName>,
}

impl Key {
    /// Of the Nodes there is only the own one, whatever its name.
    pub fn new(kind: Kind, name: ObjectName) -> Self {
        let name = (kind != Kind::Node).then_some(name);
        Self { kind, name }
    }

    /// Of the object that an event is about.
    pub fn of(event: &Event) -> Option<Self> {
        let (kind, name) = match event {
            Event::Service(service) => (Kind::Services, Some(service.name.clone())),
            Event::ServiceGone(name) => (Kind::Services, Some(name.clone())),
            Event::Slice(slice) => (Kind::Slices, Some(slice.name.clone())),
            Event::SliceGone(name) => (Kind::Slices, Some(name.clone())),
            Event::Node(_) => (Kind::Node, None),
            Event::ServiceCidrs(_) | Event::Restarted(_) | Event::Listed(_) => return None,
        };
        Some(Self { kind, name })
    }

    /// What says that the object is no more.
    pub fn gone(self) -> Event {
        match (self.kind, self.name) {
            (Kind::Services, Some(name)) => Event::ServiceGone(name),
            (Kind::Slices, Some(name)) => Event::SliceGone(name),
            _ => Event::Node(None),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Services => "Service",
            Kind::Slices => "EndpointSlice",
            Kind::Node => "Node",
        };
        match &self.name {
            Some(name) => write!(out, "{kind} {name}"),
            None => write!(out, "{kind} of this machine"),
        }
    }
}
