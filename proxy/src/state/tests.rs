//! The rules as tables, and properties of any sequence of events.
