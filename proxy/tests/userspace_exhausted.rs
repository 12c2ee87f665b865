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

#[test]
fn clients_beyond_the_limit_are_reset_and_the_rest_go_on() {
    let Some(mut lab) = Lab::new(Family::V4) else {
        return;
    };
    for (host, n) in lab.ends.iter().zip(1..) {
        host.tcp_server(&format!("10.244.{n}.2:8080"), "end");
    }
    assert_eq!(
        lab.set("web", Protocol::Tcp, web(Family::V4)).errors,
        [""; 0]
    );
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    setrlimit(Resource::RLIMIT_NOFILE, open + 40, hard).unwrap();
    // Each connection takes four here: two of the proxy, two of the endpoint. The clients are in another process; each
    // says what it reads.
    let script = "ulimit -n 1000
        for n in {1..40}; do exec {c[n]}<>/dev/tcp/10.96.0.10/80 || c[n]=; done 2>/dev/null
        for n in {1..40}; do
            line=; [ -n \"${c[n]}\" ] && read -t 5 -u ${c[n]} line; echo \"${line:-nothing}\"
        done 2>/dev/null";
    let clients = lab.client.command("bash").args(["-c", script]).output();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let said = String::from_utf8(clients.unwrap().stdout).unwrap();
    let served = said.lines().filter(|line| line.starts_with("end ")).count();
    let turned_away = said.lines().filter(|line| *line == "nothing").count();
    assert_eq!(served + turned_away, 40, "{said}");
    assert!((5..=15).contains(&served), "{said}");
    let counters = lab.counters();
    assert!(counters.tcp_exhausted.get() > 0);
    until("those clients have gone", || counters.open_tcp.get() == 0);
    lab.ask("10.96.0.10:80");
}
