use proptest::prelude::*;

use super::*;

fn roundtrip(key: &str) {
    let subnet = parse(key).unwrap_or_else(|| panic!("{key} is not read"));
    assert_eq!(render(&subnet), key);
}

#[test]
fn flannels_own_forms_survive_unchanged() {
    roundtrip("10.5.52.0-24");
    roundtrip("10.5.52.0-24&2001:cafe:42:1::-64");
    roundtrip("0.0.0.0-0&2001:cafe:42:1::-64");
}

#[test]
fn what_names_no_subnet_is_refused() {
    let bad = [
        "",
        "x",
        "10.5.52.0",
        "10.5.52.0-",
        "10.5.52.0-33",
        "10.5.52.0-32",
        "10.5.52.0-+4",
        "10.5-24",
        "0.0.0.0-0",
        "10.5.52.0-24&",
        "10.5.52.0-24&::1-128",
        "10.5.52.0-24&10.0.0.0-8",
        "10.5.52.0-24&fd00::-64x",
        "a/10.5.52.0-24",
    ];
    for key in bad {
        assert_eq!(parse(key), None, "{key}");
    }
}

#[test]
fn host_bits_are_dropped() {
    assert_eq!(parse("10.5.52.9-24"), parse("10.5.52.0-24"));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_without_panic(text in ".*") {
        let _ = parse(&text);
    }

    #[test]
    fn every_subnet_has_a_key_that_reads_back(v4 in any::<u32>(), len4 in 1u8..32, v6 in any::<u128>(), len6 in 1u8..128, which in 0u8..3) {
        let v4 = Ipv4Net::new(Ipv4Addr::from_bits(v4), len4).unwrap().trunc();
        let v6 = Ipv6Net::new(Ipv6Addr::from_bits(v6), len6).unwrap().trunc();
        let subnet = Subnet { v4: (which != 1).then_some(v4), v6: (which != 0).then_some(v6) };
        prop_assert_eq!(parse(&render(&subnet)), Some(subnet));
    }
}
