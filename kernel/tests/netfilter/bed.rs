//! A namespace for one test, and what `nft` says about it.

use std::process::Command;

use kernel::{
    Netns,
    nft::{Bytes, Family, Socket, Table},
};
use serde_json::Value;

/// Says that a test is skipped, past the harness, which swallows what a passing test prints.
fn skip(reason: std::fmt::Arguments<'_>) {
    use std::io::Write as _;
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    let line = format!("SKIPPED: {test}: {reason}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// A namespace removed at the end of the test.
pub struct Node {
    name: String,
    pub netns: Netns,
}

impl Node {
    /// `None`, said loudly, without the rights to make one or without the programs.
    pub fn new(test: &str, programs: &[&str]) -> Option<Self> {
        let required = std::env::var_os("WEFT_REQUIRE_ROOT").is_some();
        for program in programs {
            if kernel::process::find(program).is_none() {
                assert!(!required, "this test needs {program}");
                skip(format_args!("no {program} program (apt-get install)"));
                return None;
            }
        }
        let name = format!("weft-f{}-{test}", std::process::id());
        match Netns::create(&name) {
            Ok(netns) => Some(Self { name, netns }),
            Err(error) if !required => {
                skip(format_args!(
                    "needs root ({error}; run scripts/test.sh with sudo)"
                ));
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// A node with nftables, the socket in it, and `script` applied.
    pub fn with(test: &str, script: &str) -> Option<(Self, Socket)> {
        let node = Self::new(test, &["nft"])?;
        node.nft(script);
        let socket = Socket::open_in(&node.netns).unwrap();
        Some((node, socket))
    }

    /// Applies a script by `nft -f`.
    pub fn nft(&self, script: &str) {
        self.netns
            .run(|| kernel::nft::apply(script))
            .unwrap()
            .unwrap();
    }

    /// What a command prints.
    pub fn output(&self, program: &str, arguments: &[&str]) -> String {
        let output = self
            .netns
            .run(|| Command::new(program).args(arguments).output().unwrap())
            .unwrap();
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// The elements of a set or map as `nft -j` shows them, in the order of their text.
    pub fn listed(&self, table: &Table, kind: &str, name: &str) -> Vec<Value> {
        let (family, table) = (table.family.word(), &table.name);
        let text = self.output("nft", &["-j", "list", kind, family, table, name]);
        let value: Value = serde_json::from_str(&text).unwrap();
        let objects = value["nftables"].as_array().unwrap();
        let set = objects.iter().find_map(|object| object.get(kind)).unwrap();
        let mut elements = set["elem"].as_array().cloned().unwrap_or_default();
        elements.sort_by_cached_key(ToString::to_string);
        elements
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        Netns::delete(&self.name).unwrap();
    }
}

/// The table of most tests.
pub fn table() -> Table {
    Table::new(Family::Ip, "weft-test")
}

/// Fields one after the other, each with zeros up to four bytes.
pub fn concat(fields: &[&[u8]]) -> Bytes {
    let mut bytes = Vec::new();
    for field in fields {
        bytes.extend_from_slice(field);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes.into()
}
