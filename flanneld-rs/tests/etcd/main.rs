//! The lease store, the registrar and the daemon against a real etcd (Debian: `etcd-server`), each
//! test with a server, data folder and loopback ports of its own.

mod daemon;
mod node;
mod registrar;
mod secure;
mod server;
mod store;
mod udp;
mod uplink;
