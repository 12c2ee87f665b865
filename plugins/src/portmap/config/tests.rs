use super::*;

fn parse(json: &str) -> Result<Config> {
    Config::parse(json.as_bytes())
}

fn refused(json: &str) -> String {
    parse(json).unwrap_err().msg
}

#[test]
fn defaults() {
    let config = parse(r#"{"type": "portmap", "capabilities": {"portMappings": true}}"#).unwrap();
    assert!(config.snat && !config.masq_all && config.mappings.is_empty());
    assert_eq!(config.mark, Mark::Bit(13));
    assert_eq!(config.backend, None);
}

#[test]
fn mappings() {
    let config = parse(
        r#"{"runtimeConfig": {"portMappings": [
            {"hostPort": 8080, "containerPort": 80, "protocol": "TCP"},
            {"hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": "0.0.0.0"},
            {"hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": "fd00::1"}]}}"#,
    )
    .unwrap();
    let [any, all_v4, one_v6] = &config.mappings[..] else {
        panic!("{config:?}");
    };
    assert!(any.applies_to(false) && any.applies_to(true) && any.destination().is_none());
    assert!(all_v4.applies_to(false) && !all_v4.applies_to(true));
    assert_eq!(all_v4.destination(), None);
    assert!(!one_v6.applies_to(false));
    assert_eq!(one_v6.destination(), Some("fd00::1".parse().unwrap()));
}

#[test]
fn an_ipv4_address_written_as_ipv6_is_one() {
    for (text, destination) in [
        ("::ffff:192.0.2.1", Some("192.0.2.1".parse().unwrap())),
        ("::ffff:0.0.0.0", None),
    ] {
        let config = parse(&format!(
            r#"{{"runtimeConfig": {{"portMappings": [
                {{"hostPort": 1, "containerPort": 1, "protocol": "tcp", "hostIP": "{text}"}}]}}}}"#
        ))
        .unwrap();
        let mapping = &config.mappings[0];
        assert!(mapping.applies_to(false) && !mapping.applies_to(true));
        assert_eq!(mapping.destination(), destination);
    }
}

#[test]
fn conditions_tell_their_backend() {
    use Backend::{Iptables, Nftables};
    for (conditions, fits) in [
        (r#"["-s", "192.0.2.0/24"]"#, Iptables),
        (r#"["!", "-s", "192.0.2.0/24"]"#, Iptables),
        (r#"["! -s 192.0.2.0/24"]"#, Iptables),
        (r#"["ip saddr != 192.0.2.0/24"]"#, Nftables),
    ] {
        for (found, named) in [(Iptables, "iptables"), (Nftables, "nftables")] {
            let config = parse(&format!(r#"{{"conditionsV4": {conditions}}}"#)).unwrap();
            assert_eq!(config.backend_in_use(|| found), Ok(fits), "{conditions}");
            let outcome = parse(&format!(
                r#"{{"backend": "{named}", "conditionsV4": {conditions}}}"#
            ));
            assert_eq!(outcome.is_ok(), found == fits, "{conditions} {named}");
        }
    }
    let mixed =
        parse(r#"{"conditionsV4": ["-s", "::"], "conditionsV6": ["ip6 saddr ::"]}"#).unwrap();
    assert!(mixed.backend_in_use(|| Iptables).is_err());
    assert_eq!(
        parse("{}").unwrap().backend_in_use(|| Nftables),
        Ok(Nftables)
    );
}

#[test]
fn what_is_refused() {
    let mapping = |text: &str| format!(r#"{{"runtimeConfig": {{"portMappings": [{text}]}}}}"#);
    for (json, words) in [
        (r#"{"markMasqBit": 32}"#.to_owned(), "between 0 and 31"),
        (
            r#"{"markMasqBit": 1, "externalSetMarkChain": "X"}"#.to_owned(),
            "cannot specify",
        ),
        (r#"{"backend": "ipvs"}"#.to_owned(), "unrecognized backend"),
        (
            r#"{"backend": "nftables", "conditionsV4": ["-s", "1.2.3.4"]}"#.to_owned(),
            "conditionsV4",
        ),
        (
            r#"{"backend": "iptables", "conditionsV6": ["ip6 saddr ::1"]}"#.to_owned(),
            "conditionsV6",
        ),
        (
            r#"{"backend": "nftables", "externalSetMarkChain": "X"}"#.to_owned(),
            "externalSetMarkChain",
        ),
        (
            mapping(r#"{"hostPort": 0, "containerPort": 1, "protocol": "tcp"}"#),
            "invalid host port",
        ),
        (
            mapping(r#"{"hostPort": 1, "containerPort": 65536, "protocol": "tcp"}"#),
            "invalid container port",
        ),
        (
            mapping(r#"{"hostPort": 1, "containerPort": 1, "protocol": "icmp"}"#),
            "invalid protocol",
        ),
        (
            mapping(r#"{"hostPort": 1, "containerPort": 1, "protocol": "tcp", "hostIP": "x"}"#),
            "invalid hostIP",
        ),
    ] {
        let msg = refused(&json);
        assert!(msg.contains(words), "{json}: {msg}");
    }
}
