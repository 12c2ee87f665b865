//! The user-space path between real namespaces. Needs root; skipped loudly without.

#[path = "user/carry.rs"]
mod carry;
#[path = "user/checks.rs"]
mod checks;
#[path = "user/lab.rs"]
mod lab;
#[path = "user/life.rs"]
mod life;
#[path = "user/path_mtu.rs"]
mod path_mtu;
#[path = "user/traffic.rs"]
mod traffic;
