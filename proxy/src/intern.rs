//! One copy of each text: a thousand endpoints name the same node, a thousand Services the same
//! namespace.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::model::{Event, ObjectName, Service, Slice};

/// The texts in use. Those that nobody uses any more are dropped when the number has doubled.
#[derive(Debug, Default)]
pub struct Interner {
    texts: BTreeSet<Arc<str>>,
    after_sweep: usize,
}

impl Interner {
    /// A sweep below this number gains nothing.
    const FEW: usize = 1024;

    /// The texts of an object, unless someone else holds it too.
    pub(crate) fn event(&mut self, event: &mut Event) {
        match event {
            Event::Service(service) => self.service(service),
            Event::Slice(slice) => self.slice(slice),
            _ => {}
        }
    }

    /// The texts of a Service, unless someone else holds it too.
    pub(crate) fn service(&mut self, service: &mut Arc<Service>) {
        let Some(service) = Arc::get_mut(service) else {
            return;
        };
        self.object(&mut service.name);
        for port in &mut service.ports {
            self.text(&mut port.name);
        }
        self.sweep();
    }

    /// The texts of a slice, unless someone else holds it too.
    pub(crate) fn slice(&mut self, slice: &mut Arc<Slice>) {
        let Some(slice) = Arc::get_mut(slice) else {
            return;
        };
        self.object(&mut slice.name);
        self.object(&mut slice.service);
        for port in &mut slice.ports {
            self.text(&mut port.name);
        }
        for endpoint in &mut slice.endpoints {
            let hints = endpoint
                .zone_hints
                .iter_mut()
                .chain(&mut endpoint.node_hints);
            for text in endpoint.node.iter_mut().chain(hints) {
                self.text(text);
            }
        }
        self.sweep();
    }

    fn object(&mut self, name: &mut ObjectName) {
        self.text(&mut name.namespace);
        self.text(&mut name.name);
    }

    fn text(&mut self, text: &mut Arc<str>) {
        match self.texts.get(text) {
            Some(known) => *text = known.clone(),
            None => {
                self.texts.insert(text.clone());
            }
        }
    }

    fn sweep(&mut self) {
        if self.texts.len() > Self::FEW.max(2 * self.after_sweep) {
            self.texts.retain(|text| Arc::strong_count(text) > 1);
            self.after_sweep = self.texts.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_one_and_unused_ones_go() {
        let mut interner = Interner::default();
        let (mut a, mut b): (Arc<str>, Arc<str>) = ("node-1".into(), "node-1".into());
        interner.text(&mut a);
        interner.text(&mut b);
        assert!(Arc::ptr_eq(&a, &b));
        for number in 0..10 * Interner::FEW {
            interner.text(&mut format!("gone-{number}").as_str().into());
            interner.sweep();
        }
        assert!(interner.texts.len() <= Interner::FEW + 1);
        assert!(interner.texts.contains("node-1"));
    }
}
