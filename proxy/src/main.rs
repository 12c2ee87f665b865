//! `weft-proxy`: reads the command line, opens the log and runs.
fn main() {}
