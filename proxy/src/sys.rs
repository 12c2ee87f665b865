//! The crate's only unsafe code: system calls that `nix` does not wrap, or not soundly enough for reuse.
#![allow(
    unsafe_code,
    reason = "system calls without a safe wrapper; each block says why it is sound"
)]

mod address;
mod datagrams;
mod filter;
mod memory;
mod option;

pub(crate) use datagrams::Datagrams;
pub(crate) use filter::{Instruction, attach_filter, detach_filter};
pub(crate) use memory::trim;
pub(crate) use option::set_option;
