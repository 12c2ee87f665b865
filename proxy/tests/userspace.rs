//! Userspace mode between real namespaces. Needs root; skipped loudly without.

#[path = "userspace/choice.rs"]
mod choice;
#[allow(dead_code, reason = "shared with userspace_exhausted.rs")]
#[path = "userspace/lab.rs"]
mod lab;
#[path = "userspace/life.rs"]
mod life;
#[path = "userspace/loopback.rs"]
mod loopback;
#[path = "userspace/policy.rs"]
mod policy;
#[path = "userspace/tcp.rs"]
mod tcp;
#[path = "userspace/udp.rs"]
mod udp;
