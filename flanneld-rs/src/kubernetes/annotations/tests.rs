use serde_json::json;

use super::*;

fn names() -> Annotations {
    Annotations::with_prefix("flannel.alpha.coreos.com").unwrap()
}

fn data(value: serde_json::Value) -> Option<BackendData> {
    Some(BackendData::new(&value))
}

/// What is written, as `name=value` without the prefix; what must be absent, as `-name`.
fn written(attrs: &LeaseAttrs) -> Vec<String> {
    let wanted = names().wanted(attrs).into_iter();
    let line = |(name, value): (String, Option<String>)| {
        let (_, name) = name.split_once('/').unwrap();
        match value {
            Some(value) => format!("{name}={value}"),
            None => format!("-{name}"),
        }
    };
    wanted.map(line).collect()
}

#[test]
fn a_prefix_with_and_without_a_stem() {
    for (prefix, name) in [
        (
            "flannel.alpha.coreos.com",
            "flannel.alpha.coreos.com/public-ip",
        ),
        ("a.b/", "a.b/public-ip"),
        ("a.b/x", "a.b/x-public-ip"),
        ("a.b/x-", "a.b/x-public-ip"),
        ("a_1.b-2/x_y", "a_1.b-2/x_y-public-ip"),
    ] {
        let names = Annotations::with_prefix(prefix).unwrap();
        assert_eq!(names.name(PUBLIC_IP), name);
    }
}

#[test]
fn a_prefix_that_is_none_is_refused() {
    let slash = "prefix can contain at most single slash";
    let format = "prefix must be in a format: fqdn/[0-9a-z-_]*";
    for (prefix, why) in [
        ("a.b/c/d", slash),
        ("a.b//", slash),
        ("", format),
        ("ab", format),
        ("ab/c", format),
        ("A.b", format),
        ("a.b/C", format),
        (".b", format),
        ("a..b", format),
        ("a.b/c.d", format),
        ("a.b/-", format),
        ("a b.c", format),
    ] {
        assert_eq!(Annotations::with_prefix(prefix), Err(why), "{prefix:?}");
    }
}

#[test]
fn vxlan_writes_the_families_that_have_data() {
    let mut attrs = LeaseAttrs {
        public_ip: Some([192, 168, 64, 3].into()),
        public_ipv6: None,
        backend_type: "vxlan".to_owned(),
        backend_data: data(json!({"VNI": 1, "VtepMAC": "c6:d2:32:6f:8f:44"})),
        backend_v6_data: None,
    };
    let v4 = [
        r#"backend-data={"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}"#,
        "backend-type=vxlan",
        "-backend-v6-data",
        "kube-subnet-manager=true",
        "public-ip=192.168.64.3",
        "-public-ipv6",
    ];
    assert_eq!(written(&attrs), v4);
    attrs.public_ipv6 = Some("fd66::b".parse().unwrap());
    assert_eq!(written(&attrs), v4, "an address without a device");
    attrs.backend_v6_data = data(json!({"VNI": 1, "VtepMAC": "0a:00:00:00:00:01"}));
    let dual = [
        r#"backend-data={"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}"#,
        "backend-type=vxlan",
        r#"backend-v6-data={"VNI":1,"VtepMAC":"0a:00:00:00:00:01"}"#,
        "kube-subnet-manager=true",
        "public-ip=192.168.64.3",
        "public-ipv6=fd66::b",
    ];
    assert_eq!(written(&attrs), dual);
}

#[test]
fn backends_without_data_write_null() {
    let attrs = LeaseAttrs {
        public_ip: Some([10, 0, 0, 1].into()),
        public_ipv6: Some("fd66::b".parse().unwrap()),
        backend_type: "host-gw".to_owned(),
        ..LeaseAttrs::default()
    };
    let lines = [
        "backend-data=null",
        "backend-type=host-gw",
        "backend-v6-data=null",
        "kube-subnet-manager=true",
        "public-ip=10.0.0.1",
        "public-ipv6=fd66::b",
    ];
    assert_eq!(written(&attrs), lines);
}

#[test]
fn udp_and_alloc_have_no_type() {
    let attrs = LeaseAttrs {
        public_ip: Some([10, 0, 0, 1].into()),
        ..LeaseAttrs::default()
    };
    let lines = [
        "backend-data=null",
        "backend-type=",
        "-backend-v6-data",
        "kube-subnet-manager=true",
        "public-ip=10.0.0.1",
        "-public-ipv6",
    ];
    assert_eq!(written(&attrs), lines);
}

/// Go's encoder escapes these inside the JSON text, so flannel's annotation has them escaped.
#[test]
fn an_extensions_output_is_escaped_as_go_does() {
    let attrs = LeaseAttrs {
        public_ip: Some([10, 0, 0, 1].into()),
        backend_type: "extension".to_owned(),
        backend_data: data(json!("a<b & \"c\">")),
        ..LeaseAttrs::default()
    };
    let text = r#"backend-data="a\u003cb \u0026 \"c\"\u003e""#;
    assert_eq!(written(&attrs)[0], text);
}
