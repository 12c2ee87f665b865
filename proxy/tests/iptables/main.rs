//! iptables mode against the real kernel: a node with Pods and a client outside, each a network
//! namespace, with both forms of iptables.

mod bed;
mod serving;
mod upkeep;
