//! `weft-dns`: the cluster DNS server of a node.

fn main() {}
