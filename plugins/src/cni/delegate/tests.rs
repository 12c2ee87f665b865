use super::*;
use crate::cni::Env;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;

fn script(body: &str) -> (tempfile::TempDir, Call) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("probe");
    std::fs::write(&file, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    let call = call(&format!("/no/such::{}", dir.path().display()));
    (dir, call)
}

fn call(path: &str) -> Call {
    let env = Env::new([
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/no/such"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", path),
    ]);
    Call::new(&env, Verb::Add, json!({"name": "n", "cniVersion": "1.0.0"})).unwrap()
}

#[test]
fn the_environment_and_configuration_reach_the_plugin() {
    let (_dir, call) = script(
        r#"conf=$(cat); [ "$conf" = '{"a":[1]}' ] || exit 3
        printf '{"dns":{"domain":"%s %s %s %s"}}' $CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME ${CNI_ARGS-unset}"#,
    );
    let result = add(&call, "probe", &json!({"a": [1]})).unwrap();
    assert_eq!(result.dns.domain, "ADD c1 eth0 unset");
}

#[test]
fn a_result_without_version_has_the_configs() {
    let (_dir, call) = script(r#"cat >/dev/null; echo '{"ips":[{"address":"10.0.0.2/24"}]}'"#);
    assert_eq!(add(&call, "probe", &json!({})).unwrap().ips.len(), 1);
}

#[test]
fn errors_keep_their_code_and_text() {
    let (_dir, call) = script(r#"echo '{"code":11,"msg":"later","details":"busy"}'; exit 1"#);
    let error = run(&call, Verb::Del, "probe", &json!({})).unwrap_err();
    assert_eq!(error, Error::new(11, "later").with_details("busy"));
}

#[test]
fn a_plugin_that_says_nothing_sensible_is_quoted() {
    let (_dir, call) = script("echo boom >&2; exit 4");
    let error = run(&call, Verb::Del, "probe", &json!({})).unwrap_err();
    assert!(
        error.msg.ends_with(r#"failed: "boom": exit status: 4"#),
        "{error}"
    );
    let (_dir, call) = script("echo boom; exit 4");
    let error = run(&call, Verb::Del, "probe", &json!({})).unwrap_err();
    assert!(
        error.msg.contains(r#"diagnostic message "boom\n""#),
        "{error}"
    );
    let (_dir, call) = script("exit 0");
    assert_eq!(
        add(&call, "probe", &json!({})).unwrap_err().code,
        code::DECODE
    );
    assert_eq!(run(&call, Verb::Del, "probe", &json!({})), Ok(()));
}

#[test]
fn an_add_whose_result_cannot_be_read_is_taken_back() {
    let (dir, call) =
        script(r#"cat >/dev/null; echo $CNI_COMMAND >> $(dirname $0)/calls; echo '{"ips":3}'"#);
    let error = add(&call, "probe", &json!({})).unwrap_err();
    assert!(
        error.msg.starts_with("read result of plugin probe: ips: "),
        "{error}"
    );
    let calls = std::fs::read_to_string(dir.path().join("calls")).unwrap();
    assert_eq!(calls, "ADD\nDEL\n");
}

#[test]
fn a_large_configuration_to_a_plugin_that_does_not_read_it_is_no_hang() {
    let (_dir, call) = script("exit 0");
    let config = json!({"pad": "x".repeat(1 << 20)});
    assert_eq!(run(&call, Verb::Del, "probe", &config), Ok(()));
}

#[test]
fn names_with_a_slash_and_absent_plugins_are_refused() {
    let call = call("/no/such");
    for name in ["", "a/b", "/bin/true", ".."] {
        assert_eq!(run(&call, Verb::Del, name, &json!({})).unwrap_err().code, 7);
    }
    let error = run(&call, Verb::Del, "bridge", &json!({})).unwrap_err();
    assert_eq!(
        error.msg,
        r#"failed to find plugin "bridge" in path "/no/such""#
    );
}

/// A folder on this binary's file system, so that it can be linked there.
fn beside_this_binary() -> tempfile::TempDir {
    let own = std::env::current_exe().unwrap();
    tempfile::tempdir_in(own.parent().unwrap()).unwrap()
}

#[test]
fn a_link_to_this_very_binary_is_called_in_process() {
    let dir = beside_this_binary();
    let own = std::env::current_exe().unwrap();
    std::fs::hard_link(&own, dir.path().join("static")).unwrap();
    std::os::unix::fs::symlink(&own, dir.path().join("host-local")).unwrap();
    let call = call(dir.path().to_str().unwrap());
    let config = json!({"name": "n", "cniVersion": "0.4.0",
        "ipam": {"addresses": [{"address": "10.0.0.5/24"}], "routes": [{"dst": "10.0.0.0/8", "mtu": 9}]}});
    // Executed, the test program would print no result.
    let result = add(&call, "static", &config).unwrap();
    assert_eq!(result.ips[0].address.to_string(), "10.0.0.5/24");
    let error = run(&call, Verb::Check, "static", &config).unwrap_err();
    assert_eq!(error, Error::config("required prevResult missing"));
    let error = run(&call, Verb::Del, "host-local", &json!({"name": "n"})).unwrap_err();
    assert_eq!(error, Error::config("IPAM config missing 'ipam' key"));
    // The delegate's configuration has its own version, and rules of its own.
    let error = run(&call, Verb::Gc, "static", &config).unwrap_err();
    assert_eq!(error.code, code::INCOMPATIBLE_VERSION);
}

#[test]
fn a_copy_of_this_binary_is_another_plugin() {
    let dir = beside_this_binary();
    let own = std::env::current_exe().unwrap();
    std::fs::copy(&own, dir.path().join("static")).unwrap();
    let call = call(dir.path().to_str().unwrap());
    match find("static", &call.path).unwrap() {
        Found::Own(_) => panic!("taken for this binary"),
        Found::File(file) => assert_eq!(file, dir.path().join("static")),
    }
}
