//! Userspace mode when no descriptor is left: in a process of its own, because the limit is the process's.

#[allow(
    dead_code,
    reason = "the laboratory is shared with more tests than this"
)]
#[path = "userspace/lab.rs"]
mod lab;

use lab::*;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use proxy::model::{Family, Protocol};

/// A connection takes two descriptors: the last one left is wanted by an accept, or by the call to the endpoint.
#[test]
fn clients_beyond_the_limit_are_reset_and_the_rest_go_on() {
    for descriptors in [20, 21] {
        clients_beyond(descriptors);
    }
}

fn clients_beyond(descriptors: u64) {
    let Some(mut lab) = Lab::new(Family::V4) else {
        return;
    };
    // Nobody accepts there, but the kernel answers: so only the proxy takes descriptors.
    let listen = |lab: &Lab| [1, 2].map(|n| lab.ends[n - 1].listen(&format!("10.244.{n}.2:8080")));
    let listeners = listen(&lab);
    assert_eq!(
        lab.set("web", Protocol::Tcp, web(Family::V4)).errors,
        [""; 0]
    );
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    setrlimit(Resource::RLIMIT_NOFILE, open + descriptors, hard).unwrap();
    // The clients are in another process; each says whether its connection has ended.
    let script = "ulimit -n 1000
        for n in {1..40}; do exec {c[n]}<>/dev/tcp/10.96.0.10/80 || c[n]=; done
        for n in {1..40}; do
            [ -z \"${c[n]}\" ] || read -t 0.1 -u ${c[n]}
            [ $? -gt 128 ] && echo open || echo ended
        done";
    let clients = lab.client.command("bash").args(["-c", script]).output();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let said = String::from_utf8(clients.unwrap().stdout).unwrap();
    let count = |what| said.lines().filter(|line| *line == what).count();
    let (open, ended) = (count("open"), count("ended"));
    assert_eq!(open + ended, 40, "{said}");
    // Each takes two.
    assert!((5..=10).contains(&open), "{open} are open");
    let counters = lab.counters();
    assert!(counters.tcp_exhausted.get() > 0);
    drop(listeners);
    until("those connections have ended", || {
        counters.open_tcp.get() == 0
    });
    let _listeners = listen(&lab);
    let _stream = lab.client.connect("10.96.0.10:80").unwrap();
    until("the next one is served", || counters.open_tcp.get() == 1);
}
