use super::*;

const JSON: &str = r#"{"conditionsV4": ["iifname", "!= \"lo\""], "runtimeConfig": {"portMappings": [
    {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
    {"hostPort": 53, "containerPort": 5353, "protocol": "udp", "hostIP": "192.168.0.2"},
    {"hostPort": 54, "containerPort": 54, "protocol": "udp", "hostIP": "::"}]}}"#;

fn config() -> Config {
    Config::parse(JSON.as_bytes()).unwrap()
}

#[test]
fn ipv4_golden() {
    assert_eq!(
        setup(&config(), "10.1.0.5/24".parse().unwrap(), "te", "abc"),
        "add table ip cni_hostport\n\
         add chain ip cni_hostport hostports\n\
         add chain ip cni_hostport hostip_hostports\n\
         add chain ip cni_hostport hostports_all\n\
         flush chain ip cni_hostport hostports_all\n\
         add rule ip cni_hostport hostports_all jump hostip_hostports\n\
         add rule ip cni_hostport hostports_all jump hostports\n\
         add chain ip cni_hostport prerouting { type nat hook prerouting priority -100 ; }\n\
         flush chain ip cni_hostport prerouting\n\
         add rule ip cni_hostport prerouting iifname != \"lo\" fib daddr type local jump hostports_all\n\
         add chain ip cni_hostport output { type nat hook output priority -100 ; }\n\
         flush chain ip cni_hostport output\n\
         add rule ip cni_hostport output iifname != \"lo\" fib daddr type local jump hostports_all\n\
         add chain ip cni_hostport masquerading { type nat hook postrouting priority 100 ; }\n\
         add rule ip cni_hostport hostports meta l4proto tcp th dport 8080 dnat to 10.1.0.5:80 comment \"abc\"\n\
         add rule ip cni_hostport hostports ip daddr 192.168.0.2 meta l4proto udp th dport 53 dnat to 10.1.0.5:5353 comment \"abc\"\n\
         add rule ip cni_hostport masquerading ip saddr 10.1.0.5 ip daddr 10.1.0.5 masquerade comment \"abc\"\n\
         add rule ip cni_hostport masquerading ip saddr 127.0.0.1 ip daddr 10.1.0.5 masquerade comment \"abc\"\n\
         add chain ip cni_hostport weft-owners\n\
         add rule ip cni_hostport weft-owners return comment \"52b526411070a0a9 abc\"\n"
    );
}

#[test]
fn ipv6_takes_the_mappings_of_its_family() {
    let script = setup(&config(), "fd00::5/64".parse().unwrap(), "te", "abc");
    let rules: Vec<_> = script
        .lines()
        .filter(|line| line.contains("comment \"abc\""))
        .collect();
    assert_eq!(
        rules,
        [
            "add rule ip6 cni_hostport hostports meta l4proto tcp th dport 8080 dnat to [fd00::5]:80 comment \"abc\"",
            "add rule ip6 cni_hostport hostports meta l4proto udp th dport 54 dnat to [fd00::5]:54 comment \"abc\"",
            "add rule ip6 cni_hostport masquerading ip6 saddr fd00::5 ip6 daddr fd00::5 masquerade comment \"abc\"",
        ]
    );
}

#[test]
fn masq_all_takes_one_rule_whatever_the_source() {
    let json = JSON.replacen('{', r#"{"masqAll": true, "#, 1);
    let config = Config::parse(json.as_bytes()).unwrap();
    for (address, rule) in [
        ("10.1.0.5/24", "ct status dnat ip daddr 10.1.0.5 masquerade"),
        ("fd00::5/64", "ct status dnat ip6 daddr fd00::5 masquerade"),
    ] {
        let script = setup(&config, address.parse().unwrap(), "te", "abc");
        let rules: Vec<_> = script
            .lines()
            .filter(|line| line.contains(" masquerade"))
            .collect();
        assert_eq!(rules.len(), 1, "{script}");
        assert!(rules[0].contains(rule), "{script}");
    }
}

#[test]
fn teardown_and_check_go_by_the_comment() {
    let json = r#"{"nftables": [
        {"rule": {"chain": "hostports", "handle": 7, "comment": "abc"}},
        {"rule": {"chain": "hostports", "handle": 8, "comment": "abcd"}},
        {"rule": {"chain": "masquerading", "handle": 9, "comment": "abc"}}]}"#;
    let listed = Listed::parse(json).unwrap();
    assert_eq!(
        teardown(true, "te", "abc", &listed),
        "delete rule ip6 cni_hostport hostports handle 7\n\
         delete rule ip6 cni_hostport masquerading handle 9\n"
    );
    let address = "10.1.0.5/24".parse().unwrap();
    assert_eq!(
        missing(&config(), address, "abc", &listed),
        ["hostports", "masquerading"]
    );
}

#[test]
fn rules_in_either_chain_count() {
    let json = r#"{"nftables": [
        {"rule": {"chain": "hostports", "handle": 7, "comment": "abc"}},
        {"rule": {"chain": "hostip_hostports", "handle": 8, "comment": "abc"}},
        {"rule": {"chain": "masquerading", "handle": 9, "comment": "abc"}},
        {"rule": {"chain": "masquerading", "handle": 10, "comment": "abc"}}]}"#;
    let listed = Listed::parse(json).unwrap();
    let address = "10.1.0.5/24".parse().unwrap();
    assert!(missing(&config(), address, "abc", &listed).is_empty());
    assert_eq!(teardown(false, "te", "abc", &listed).lines().count(), 4);
}

#[test]
fn garbage_is_what_no_valid_container_of_the_network_owns() {
    let rules: Vec<_> = [
        (HOSTPORTS, "here".to_owned()),
        (HOSTPORTS, "gone".to_owned()),
        (HOSTIP_HOSTPORTS, "gone".to_owned()),
        (HOSTPORTS, "elsewhere".to_owned()),
        (HOSTPORTS, "both".to_owned()),
        (HOSTPORTS, "of-the-reference".to_owned()),
        (OWNERS, of_network("te") + "here"),
        (OWNERS, of_network("te") + "gone"),
        (OWNERS, of_network("te") + "both"),
        (OWNERS, of_network("other") + "elsewhere"),
        (OWNERS, of_network("other") + "both"),
    ]
    .into_iter()
    .enumerate()
    .map(|(handle, (chain, comment))| {
        format!(r#"{{"rule": {{"chain": "{chain}", "handle": {handle}, "comment": "{comment}"}}}}"#)
    })
    .collect();
    let listed = Listed::parse(&format!(r#"{{"nftables": [{}]}}"#, rules.join(","))).unwrap();
    assert_eq!(
        garbage(false, "te", &["here"], &listed),
        "delete rule ip cni_hostport hostports handle 1\n\
         delete rule ip cni_hostport hostip_hostports handle 2\n\
         delete rule ip cni_hostport weft-owners handle 7\n\
         delete rule ip cni_hostport weft-owners handle 8\n"
    );
    assert_eq!(
        teardown(false, "te", "gone", &listed),
        "delete rule ip cni_hostport hostports handle 1\n\
         delete rule ip cni_hostport hostip_hostports handle 2\n\
         delete rule ip cni_hostport weft-owners handle 7\n"
    );
}
