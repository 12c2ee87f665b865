//! The fields that an object has.

use serde_json::Value;

use super::node::Node;
use super::set::Set;

/// The set that who applies `value` owns.
///
/// Fields of a struct are in it by their parts; keys of a map and items of a list also by themselves, and so is what is
/// empty.
pub(super) fn of(value: &Value, node: Node) -> Set {
    let mut set = Set::default();
    match (node.fitting(value), value) {
        (Node::Struct(_) | Node::Map(_) | Node::Any, Value::Object(map)) => {
            for (key, part) in map {
                let mut below = of(part, node.at(key));
                below.member |= part.is_null()
                    || part.as_object().is_some_and(serde_json::Map::is_empty)
                    || !matches!(node, Node::Struct(_));
                set.insert(format!("f:{key}"), below);
            }
        }
        (node @ (Node::Items(..) | Node::Values), Value::Array(items)) => {
            for (element, item) in node.elements(items) {
                let mut below = of(item, node.item());
                below.member = true;
                set.insert(element, below);
            }
        }
        (Node::Leaf, _) => set.member = true,
        _ => {}
    }
    set
}
