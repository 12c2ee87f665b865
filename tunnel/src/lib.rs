//! The overlay's data path: moves packets between a TUN device and the underlay.
//!
//! Theory. Routes lead the cluster's network into a TUN device. What the kernel sends there is put
//! into a UDP datagram for the peer that has the destination ([`Wire`] says how), and what peers send is
//! taken out again. Three ways, one wire format:
//!
//! - `ebpf`: programs on the TUN device and the underlay do it without leaving the kernel. What they
//!   cannot handle goes on into the TUN device, or up to the socket, to the user-space path beneath;
//! - `user` in mode *offload*: packets of up to 64 KiB cross the TUN device and the socket, and are cut
//!   and joined here;
//! - `user` in mode *plain*: one packet a system call.
//!
//! The control plane publishes an immutable [`Table`]; the data path only reads it. No lock, no
//! allocation and no async per packet. Every packet that goes nowhere is counted by reason
//! ([`Counters`]).

mod counters;
pub mod ebpf;
pub mod join;
pub mod packet;
pub mod segment;
mod sys;
mod table;
pub mod user;
pub mod vnet;
pub mod vxlan;
mod wire;

pub use counters::{Counters, DropReason};
pub use table::{Own, Peer, Table};
pub use wire::Wire;
