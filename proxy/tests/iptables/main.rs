//! iptables mode against the real kernel: a node with Pods and a client outside, each a network
//! namespace, with both forms of iptables.

mod bed;
mod host;
mod others;
mod serving;
mod upkeep;
mod wanted;
