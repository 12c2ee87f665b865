//! What the proxy does to its own node beside the rules, on the real kernel, in namespaces made for
//! each test.

mod health_ports;
mod settings;

use kernel::{Change, Netlink, Netns, SetLink};

struct Node(String);

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(error) = Netns::delete(&self.0) {
            eprintln!("{error}");
        }
    }
}

/// Says that a test is skipped, past the harness, which swallows what a passing test prints.
fn skip(reason: std::fmt::Arguments<'_>) {
    use std::io::Write as _;
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    let line = format!("SKIPPED: {test}: {reason}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Runs `test` in a new namespace with its loopback up; skips loudly without the right to make one.
fn in_namespace(name: &str, test: impl FnOnce() + Send) {
    let name = format!("weft-p{}-{name}", std::process::id());
    match Netns::create(&name) {
        Ok(netns) => {
            let _node = Node(name);
            netns
                .run(|| {
                    up();
                    test();
                })
                .unwrap();
        }
        Err(error) if std::env::var_os("WEFT_REQUIRE_ROOT").is_none() => {
            skip(format_args!(
                "needs root ({error}; run scripts/test.sh with sudo)"
            ));
        }
        Err(error) => panic!("{error}"),
    }
}

/// Brings loopback up.
fn up() {
    let mut netlink = Netlink::open().unwrap();
    let lo = netlink.link("lo").unwrap().unwrap();
    let up = SetLink {
        index: lo.index,
        up: Some(true),
        ..SetLink::default()
    };
    netlink.apply(&Change::SetLink(up)).unwrap();
}
