use proptest::prelude::*;

use super::*;

const VXLAN: &str = r#"{"PublicIP":"192.168.64.3","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}}"#;

#[test]
fn a_vxlan_lease_is_written_byte_for_byte_as_flannel_does() {
    #[derive(serde::Serialize)]
    #[allow(non_snake_case, reason = "flannel's member names")]
    struct Data {
        VNI: u32,
        VtepMAC: &'static str,
    }
    let attrs = LeaseAttrs {
        public_ip: Some([192, 168, 64, 3].into()),
        backend_type: "vxlan".to_owned(),
        backend_data: Some(BackendData::new(&Data {
            VNI: 1,
            VtepMAC: "c6:d2:32:6f:8f:44",
        })),
        ..LeaseAttrs::default()
    };
    assert_eq!(attrs.to_json(), VXLAN);
    assert_eq!(LeaseAttrs::parse(VXLAN).unwrap(), attrs);
}

#[test]
fn a_lease_without_backend_members_has_just_the_two_addresses() {
    let attrs = LeaseAttrs {
        public_ip: Some([10, 0, 0, 1].into()),
        ..LeaseAttrs::default()
    };
    assert_eq!(
        attrs.to_json(),
        r#"{"PublicIP":"10.0.0.1","PublicIPv6":null}"#
    );
    let v6 = LeaseAttrs {
        public_ipv6: "fd00::1".parse().ok(),
        ..LeaseAttrs::default()
    };
    assert_eq!(
        v6.to_json(),
        r#"{"PublicIP":"0.0.0.0","PublicIPv6":"fd00::1"}"#
    );
    assert_eq!(LeaseAttrs::parse(&v6.to_json()).unwrap(), v6);
}

#[test]
fn both_families_data_follow_in_order() {
    let text = r#"{"PublicIP":"10.0.0.1","PublicIPv6":"fd00::1","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"aa:bb:cc:dd:ee:ff"},"BackendV6Data":{"VNI":1,"VtepMAC":"aa:bb:cc:dd:ee:00"}}"#;
    assert_eq!(LeaseAttrs::parse(text).unwrap().to_json(), text);
}

#[test]
fn blanks_go_and_member_order_stays() {
    let attrs = LeaseAttrs::parse(
        "{ \"publicip\" : \"10.0.0.1\", \"backenddata\": { \"b c\" : 1,\n \"a\": \"x \\\" y\" } }",
    )
    .unwrap();
    assert_eq!(
        attrs.backend_data.as_ref().map(BackendData::as_str),
        Some(r#"{"b c":1,"a":"x \" y"}"#)
    );
}

#[test]
fn gos_html_escapes_are_written() {
    let attrs = LeaseAttrs {
        backend_type: "extension".to_owned(),
        backend_data: Some(BackendData::new(&"a<b>&c")),
        ..LeaseAttrs::default()
    };
    assert!(
        attrs
            .to_json()
            .ends_with(r#""BackendData":"a\u003cb\u003e\u0026c"}"#),
        "{}",
        attrs.to_json()
    );
    assert_eq!(
        attrs.backend_data.unwrap().parse::<String>().unwrap(),
        "a<b>&c"
    );
}

#[test]
fn null_data_is_no_data_and_unknown_members_are_dropped() {
    let attrs =
        LeaseAttrs::parse(r#"{"PublicIP":"10.0.0.1","BackendData":null,"Future":[1]}"#).unwrap();
    assert_eq!(
        attrs,
        LeaseAttrs {
            public_ip: Some([10, 0, 0, 1].into()),
            ..LeaseAttrs::default()
        }
    );
}

#[test]
fn garbage_names_the_member() {
    for (text, word) in [
        ("", "JSON"),
        ("[]", "JSON"),
        ("{} x", "JSON"),
        (r#"{"PublicIP":7}"#, "PublicIP"),
        (r#"{"PublicIP":"10.0.0"}"#, "PublicIP"),
        (r#"{"BackendType":{}}"#, "BackendType"),
    ] {
        let error = LeaseAttrs::parse(text).unwrap_err().to_string();
        assert!(error.contains(word), "{text}: {error}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_without_panic(text in ".*") {
        let _ = LeaseAttrs::parse(&text);
    }

    #[test]
    fn what_is_written_reads_back(v4 in proptest::option::of(1u32..), v6 in proptest::option::of(1u128..), kind in "[a-z<>&\"-]*", data in proptest::option::of(".*")) {
        let attrs = LeaseAttrs {
            public_ip: v4.map(Ipv4Addr::from_bits),
            public_ipv6: v6.map(Ipv6Addr::from_bits),
            backend_type: kind,
            backend_data: data.as_ref().map(BackendData::new),
            backend_v6_data: None,
        };
        let text = attrs.to_json();
        let back = LeaseAttrs::parse(&text).unwrap();
        prop_assert_eq!(back.to_json(), text);
        prop_assert_eq!(&back.backend_type, &attrs.backend_type);
        prop_assert_eq!(back.public_ipv6, attrs.public_ipv6);
        prop_assert_eq!(back.backend_data.map(|d| d.parse::<String>().unwrap()), data);
    }
}
