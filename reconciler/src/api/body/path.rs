//! Where a value is within its object, as messages say it.

use std::fmt;

/// A place: the way up from a value to its object. Lives on the stack, and costs nothing until it is written.
#[derive(Clone, Copy, Debug)]
pub enum Path<'a> {
    /// The object itself.
    Root,
    /// A field of a type.
    Field(&'a Self, &'a str),
    /// A key of a map.
    Key(&'a Self, &'a str),
    /// An item of a list.
    Item(&'a Self, usize),
}

impl Path<'_> {
    /// The names of the fields only, as Go's JSON decoder names a field: `spec.containers.image`.
    pub fn fields(&self) -> String {
        match *self {
            Path::Root => String::new(),
            Path::Field(parent, name) => match parent.fields() {
                empty if empty.is_empty() => name.to_owned(),
                above => format!("{above}.{name}"),
            },
            Path::Key(parent, _) | Path::Item(parent, _) => parent.fields(),
        }
    }
}

/// `spec.containers[0].image`, `data.key`
impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Path::Root => Ok(()),
            Path::Field(Path::Root, name) | Path::Key(Path::Root, name) => f.write_str(name),
            Path::Field(parent, name) | Path::Key(parent, name) => write!(f, "{parent}.{name}"),
            Path::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}
