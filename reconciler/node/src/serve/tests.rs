use proptest::prelude::*;
use serde_json::json;

use super::path::{self, PodTarget, Target, Verb};
use super::query::Query;
use super::{exec, forward};
use crate::runtime::Error;

fn pod(verb: Verb, uid: Option<&str>, container: &str) -> Option<Target> {
    Some(Target::Pod(PodTarget {
        verb,
        namespace: "ns".to_owned(),
        pod: "p".to_owned(),
        uid: uid.map(str::to_owned),
        container: container.to_owned(),
    }))
}

#[test]
fn paths_are_the_kubelets() {
    assert_eq!(path::parse("/healthz"), Some(Target::Health));
    assert_eq!(
        path::parse("/containerLogs/ns/p/c"),
        pod(Verb::Logs, None, "c")
    );
    assert_eq!(path::parse("/exec/ns/p/c"), pod(Verb::Exec, None, "c"));
    assert_eq!(
        path::parse("/exec/ns/p/u/c"),
        pod(Verb::Exec, Some("u"), "c")
    );
    assert_eq!(
        path::parse("/attach/ns/p/u/c"),
        pod(Verb::Attach, Some("u"), "c")
    );
    assert_eq!(
        path::parse("/portForward/ns/p"),
        pod(Verb::PortForward, None, "")
    );
    assert_eq!(
        path::parse("/portForward/ns/p/u"),
        pod(Verb::PortForward, Some("u"), "")
    );
    for none in [
        "",
        "/",
        "/exec",
        "/exec/ns/p",
        "/exec/ns//c",
        "/containerLogs/ns/p/u/c",
        "/run/ns/p/c",
        "exec/ns/p/c",
    ] {
        assert_eq!(path::parse(none), None, "{none}");
    }
}

#[test]
fn queries_are_forms() {
    let query = Query::parse(
        "command=sh&command=-c&command=echo+hi%3B+exit+2&stdout=true&input=1&tty=false&x&%zz=%2",
    );
    let command: Vec<_> = query.all("command").collect();
    assert_eq!(command, ["sh", "-c", "echo hi; exit 2"]);
    assert!(query.flag(&["stdout", "output"]) && query.flag(&["stdin", "input"]));
    assert!(!query.flag(&["tty"]) && !query.flag(&["stderr"]));
    assert_eq!((query.get("x"), query.get("%zz")), (Some(""), Some("%2")));
}

#[test]
fn ports_are_lists() {
    let ports = |text: &str| forward::ports(&Query::parse(text));
    assert_eq!(ports("ports=80,443&port=1"), Ok(vec![80, 443, 1]));
    assert_eq!(
        ports("x=1"),
        Err("query parameter \"port\" is required".to_owned())
    );
    for bad in ["ports=0", "ports=", "ports=80,", "ports=65536", "port=-1"] {
        assert!(ports(bad).is_err(), "{bad}");
    }
    assert!(ports(&format!("ports={}", ["1"; 128].join(","))).is_err());
}

#[test]
fn sizes_are_columns_and_rows() {
    assert_eq!(exec::size(br#"{"Width":80,"Height":24}"#), Some((80, 24)));
    for none in [
        r#"{"Width":0,"Height":0}"#,
        "{}",
        "x",
        "",
        r#"{"Width":70000,"Height":1}"#,
        r#"{"Width":-1,"Height":1}"#,
    ] {
        assert_eq!(exec::size(none.as_bytes()), None, "{none}");
    }
}

#[test]
fn how_a_command_ended_is_what_clients_read() {
    assert_eq!(
        exec::status(&Ok(0)),
        json!({"metadata": {}, "status": "Success"})
    );
    let failed = exec::status(&Ok(7));
    assert_eq!(failed["reason"], "NonZeroExitCode");
    assert_eq!(
        failed["details"]["causes"],
        json!([{"reason": "ExitCode", "message": "7"}])
    );
    let error = exec::status(&Err(Error::Invalid("no such program".to_owned())));
    assert_eq!(
        error["message"],
        "Internal error occurred: error executing command in container: no such program"
    );
}

proptest! {
    #[test]
    fn nothing_from_outside_makes_them_panic(text in "\\PC{0,60}", bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let _ = path::parse(&text);
        let _ = forward::ports(&Query::parse(&text));
        let _ = exec::size(&bytes);
        let _ = super::logs::Options::parse(&Query::parse(&text), jiff::Timestamp::UNIX_EPOCH);
    }

    #[test]
    fn what_is_escaped_is_read_as_it_was(text in "\\PC{0,40}") {
        let escaped: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let query = Query::parse(&format!("a={escaped}&b={escaped}"));
        prop_assert_eq!(query.get("b"), Some(text.as_str()));
    }
}
