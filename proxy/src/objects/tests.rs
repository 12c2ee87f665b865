//! What each rule of reading an object does, as tables.
