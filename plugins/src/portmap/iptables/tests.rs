use super::*;

fn config(json: &str) -> Config {
    Config::parse(json.as_bytes()).unwrap()
}

const TWO: &str = r#"{"runtimeConfig": {"portMappings": [
    {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
    {"hostPort": 5353, "containerPort": 53, "protocol": "udp", "hostIP": "192.168.0.2"},
    {"hostPort": 99, "containerPort": 99, "protocol": "tcp", "hostIP": "fd00::1"}]}}"#;

fn plan(json: &str, address: &str, saved: &Saved) -> String {
    desired(&config(json), address.parse().unwrap(), "test", "abc")
        .plan(saved)
        .join("\n")
        .replace(&chain_name("test", "abc"), "CNI-DN-x")
}

/// What iptables-save shows after `lines`, near enough for the planner.
fn saved(lines: &str) -> Saved {
    let text: String = lines
        .lines()
        .map(|line| match line.strip_prefix("-N ") {
            Some(chain) => format!(":{chain} - [0:0]\n"),
            None => format!("{}\n", line.replace("-I POSTROUTING 1", "-A POSTROUTING")),
        })
        .collect();
    Saved::parse(&text)
}

#[test]
fn first_container_golden() {
    assert_eq!(
        plan(TWO, "10.1.0.5/24", &Saved::default()),
        r#"-N CNI-HOSTPORT-DNAT
-N CNI-HOSTPORT-SETMARK
-N CNI-HOSTPORT-MASQ
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A CNI-HOSTPORT-SETMARK -m comment --comment "CNI portfwd masquerade mark" -j MARK --set-xmark 0x2000/0x2000
-A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE
-I POSTROUTING 1 -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ
-N CNI-DN-x
-A CNI-DN-x -p tcp --dport 8080 -s 10.1.0.5/24 -j CNI-HOSTPORT-SETMARK
-A CNI-DN-x -p tcp --dport 8080 -s 127.0.0.1 -j CNI-HOSTPORT-SETMARK
-A CNI-DN-x -p tcp --dport 8080 -j DNAT --to-destination 10.1.0.5:80
-A CNI-DN-x -p udp --dport 5353 -d 192.168.0.2 -s 10.1.0.5/24 -j CNI-HOSTPORT-SETMARK
-A CNI-DN-x -p udp --dport 5353 -d 192.168.0.2 -s 127.0.0.1 -j CNI-HOSTPORT-SETMARK
-A CNI-DN-x -p udp --dport 5353 -d 192.168.0.2 -j DNAT --to-destination 10.1.0.5:53
-A CNI-HOSTPORT-DNAT -m comment --comment "dnat name: \"test\" id: \"abc\"" -m multiport -p tcp --destination-ports 8080,99 -j CNI-DN-x
-A CNI-HOSTPORT-DNAT -m comment --comment "dnat name: \"test\" id: \"abc\"" -m multiport -p udp --destination-ports 5353 -j CNI-DN-x"#
    );
}

#[test]
fn ipv6_and_masq_all_mark_every_source_once() {
    let json = TWO.replacen('{', r#"{"masqAll": true, "#, 1);
    let text = plan(&json, "fd00::5/64", &Saved::default());
    let marks: Vec<_> = text
        .lines()
        .filter(|l| l.ends_with("-j CNI-HOSTPORT-SETMARK"))
        .collect();
    assert_eq!(
        marks,
        [
            "-A CNI-DN-x -p tcp --dport 8080 -s ::/0 -j CNI-HOSTPORT-SETMARK",
            "-A CNI-DN-x -p tcp --dport 99 -d fd00::1 -s ::/0 -j CNI-HOSTPORT-SETMARK",
        ]
    );
    assert!(text.contains("--to-destination [fd00::5]:80"));
}

#[test]
fn without_snat_or_with_an_external_chain_we_keep_no_mark_chains() {
    let off = TWO.replacen('{', r#"{"snat": false, "#, 1);
    let text = plan(&off, "10.1.0.5/24", &Saved::default());
    assert!(
        !text.contains("SETMARK") && !text.contains("MASQ"),
        "{text}"
    );
    let external = TWO.replacen('{', r#"{"externalSetMarkChain": "KUBE-MARK-MASQ", "#, 1);
    let text = plan(&external, "10.1.0.5/24", &Saved::default());
    assert!(
        !text.contains("CNI-HOSTPORT-MASQ") && text.contains("-j KUBE-MARK-MASQ"),
        "{text}"
    );
}

#[test]
fn a_second_container_finds_the_shared_rules() {
    let first = saved(&plan(TWO, "10.1.0.5/24", &Saved::default()));
    let text = desired(
        &config(TWO),
        "10.1.0.6/24".parse().unwrap(),
        "test",
        "other",
    )
    .plan(&first)
    .join("\n");
    assert!(text.starts_with("-N CNI-DN-"), "{text}");
    assert!(
        !text.contains("PREROUTING") && !text.contains("-I POSTROUTING"),
        "{text}"
    );
}

#[test]
fn another_mark_bit_is_added_beside_the_first() {
    let first = saved(&plan(TWO, "10.1.0.5/24", &Saved::default()));
    let json = TWO.replacen('{', r#"{"markMasqBit": 20, "#, 1);
    let text = plan(&json, "10.1.0.6/24", &first);
    assert!(text.contains("--set-xmark 0x100000/0x100000"), "{text}");
    assert!(text.contains("--mark 0x100000/0x100000"), "{text}");
    assert!(!text.contains("POSTROUTING"), "{text}");
}

#[test]
fn leftovers_of_the_same_container_go_first() {
    let lines =
        plan(TWO, "10.1.0.5/24", &Saved::default()).replace("CNI-DN-x", &chain_name("test", "abc"));
    let text = plan(TWO, "10.1.0.9/24", &saved(&lines));
    assert!(text.starts_with("-D CNI-HOSTPORT-DNAT "), "{text}");
    assert!(
        text.contains("-F CNI-DN-x\n-X CNI-DN-x\n-N CNI-DN-x"),
        "{text}"
    );
}

#[test]
fn the_optimistic_text_checks_what_it_relies_on() {
    let desired = desired(&config(TWO), "10.1.0.5/24".parse().unwrap(), "test", "abc");
    let lines = desired.optimistic();
    assert_eq!(
        lines.iter().filter(|line| line.starts_with("-C ")).count(),
        5
    );
    assert!(desired.checks().iter().all(|line| line.starts_with("-C ")));
}

#[test]
fn more_than_fifteen_ports_take_more_rules() {
    let ports: Vec<_> = (1..=31)
        .map(|p| format!(r#"{{"hostPort": {p}, "containerPort": {p}, "protocol": "tcp"}}"#))
        .collect();
    let json = format!(
        r#"{{"runtimeConfig": {{"portMappings": [{}]}}}}"#,
        ports.join(",")
    );
    let text = plan(&json, "10.1.0.5/24", &Saved::default());
    assert_eq!(text.matches("--destination-ports").count(), 3);
    assert!(text.contains("--destination-ports 31 "));
}

#[test]
fn garbage_is_what_no_valid_container_owns() {
    let address = "10.1.0.5/24".parse().unwrap();
    let mut lines = desired(&config(TWO), address, "test", "gone").plan(&Saved::default());
    let first = saved(&lines.join("\n"));
    lines.extend(desired(&config(TWO), address, "test", "here").plan(&first));
    lines.extend(desired(&config(TWO), address, "else", "gone").plan(&first));
    let removal = garbage("test", &["here"], &saved(&lines.join("\n")));
    let chain = chain_name("test", "gone");
    assert_eq!(removal.len(), 4, "{removal:?}");
    assert!(
        removal.iter().all(|line| line.contains(&chain)),
        "{removal:?}"
    );
}
