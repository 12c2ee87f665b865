//! For tests: a loopback device that takes minutes for what it is given, so that send buffers stay full.

use std::{
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use kernel::Netns;

/// Runs `work` in a namespace of its own with such a device; skips it, said loudly, without the rights to make one.
pub(super) fn on_slow_loopback(work: impl FnOnce() + Send) {
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let name = format!("weft-s{}-{serial}", std::process::id());
    let netns = match Netns::create(&name) {
        Ok(netns) => netns,
        Err(error) if std::env::var_os("WEFT_REQUIRE_ROOT").is_none() => {
            use std::io::Write as _;
            let line = format!("SKIPPED: slow loopback: needs root ({error})\n");
            return std::io::stderr().write_all(line.as_bytes()).unwrap();
        }
        Err(error) => panic!("{error}"),
    };
    // Its handle is enough from here on.
    Netns::delete(&name).unwrap();
    let lines = [
        "ip link set lo up",
        "tc qdisc add dev lo root tbf rate 8kbit burst 1600 limit 10000000",
    ];
    netns
        .run(|| {
            for line in lines {
                let mut words = line.split(' ');
                let mut command = Command::new(words.next().unwrap());
                let output = command.args(words).output().unwrap();
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{line}: {said}");
            }
            work();
        })
        .unwrap();
}
