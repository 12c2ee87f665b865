//! `flanneld-rs`.
fn main() {}
