//! Bad input: every refusal is one error JSON on stdout, exit code 1, and nothing else.

use crate::harness::{Call, Which};
use serde_json::json;
use std::process::Command;

fn good() -> serde_json::Value {
    json!({"cniVersion": "1.1.0", "name": "net", "ipam": {"subnet": "10.1.0.0/24"}})
}

#[test]
fn odd_variables_are_refused_with_code_4() {
    for (name, value, text) in [
        (
            "CNI_CONTAINERID",
            "a/b",
            "invalid characters in containerID",
        ),
        ("CNI_CONTAINERID", "..", "invalid characters in containerID"),
        (
            "CNI_CONTAINERID",
            "",
            "required env variables [CNI_CONTAINERID] missing",
        ),
        (
            "CNI_IFNAME",
            "an-over-long-interface",
            "interface name is too long",
        ),
        (
            "CNI_IFNAME",
            "a/b",
            "interface name contains / or : or whitespace characters",
        ),
        ("CNI_PATH", "", "required env variables [CNI_PATH] missing"),
        ("CNI_COMMAND", "FROB", "unknown CNI_COMMAND: FROB"),
        ("CNI_ARGS", "IP", "ARGS: invalid pair \"IP\""),
    ] {
        let done = Call::new("host-local", "ADD", "c1")
            .with(name, value)
            .run(Which::Ours, &good());
        let error = done.json();
        assert!(!done.succeeded);
        assert_eq!(
            (error["code"].as_u64(), error["msg"].as_str()),
            (Some(4), Some(text))
        );
        assert_eq!(error["cniVersion"], "1.1.0");
        assert_eq!(done.stderr, "");
    }
}

#[test]
fn malformed_configurations_are_refused_with_their_code() {
    for (text, code) in [
        ("", 6),
        ("{", 6),
        ("[]", 6),
        ("\u{0}", 6),
        (r#"{"name": 3}"#, 6),
        ("{}", 7),
        (r#"{"name": "../x"}"#, 7),
        (r#"{"name": "n", "cniVersion": "3.0.0"}"#, 1),
        (r#"{"name": "n", "cniVersion": "1.0.0", "ipam": []}"#, 6),
        (r#"{"name": "n", "cniVersion": "1.0.0"}"#, 7),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weft-cni"));
        command.arg("host-local");
        let done = Call::new("host-local", "ADD", "c1").run_command(command, text.as_bytes());
        assert!(!done.succeeded);
        assert_eq!(
            done.json()["code"].as_u64(),
            Some(code),
            "{text}: {}",
            done.stdout
        );
    }
}

#[test]
fn gc_removes_what_no_attachment_holds_and_status_looks_ahead() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = json!({"cniVersion": "1.1.0", "name": "net",
        "ipam": {"subnet": "10.1.0.0/30", "dataDir": dir.path()}});
    let run = |verb: &str, config: &serde_json::Value| {
        Call::new("host-local", verb, "c1").run(Which::Ours, config)
    };
    assert!(run("ADD", &config).succeeded);
    assert_eq!(run("STATUS", &config).json()["code"].as_u64(), Some(50));
    assert_eq!(run("GC", &config).json()["code"].as_u64(), Some(7));
    assert!(dir.path().join("net/10.1.0.2").exists());
    config["cni.dev/valid-attachments"] = json!([{"containerID": "c1", "ifname": "eth0"}]);
    assert!(run("GC", &config).succeeded);
    assert!(dir.path().join("net/10.1.0.2").exists());
    config["cni.dev/valid-attachments"] = json!([]);
    assert!(run("GC", &config).succeeded);
    assert!(!dir.path().join("net/10.1.0.2").exists());
    assert!(run("STATUS", &config).succeeded);
    config["cniVersion"] = "1.0.0".into();
    assert_eq!(run("GC", &config).json()["code"].as_u64(), Some(1));
}
