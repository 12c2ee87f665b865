use super::*;

fn command(args: &[&str], env: &[(&str, &str)]) -> Result<Command, String> {
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    parse("flanneld-rs", &args, |key| {
        env.iter()
            .find(|(name, _)| *name == key)
            .map(|(_, value)| (*value).to_owned())
    })
}

fn options(args: &[&str], env: &[(&str, &str)]) -> Options {
    match command(args, env) {
        Ok(Command::Run(options)) => options,
        other => panic!("{args:?}: {other:?}"),
    }
}

fn usage(args: &[&str]) -> String {
    match command(args, &[]) {
        Ok(Command::Usage(text)) => text,
        other => panic!("{args:?}: {other:?}"),
    }
}

#[test]
fn defaults_are_flannels() {
    let options = options(&[], &[]);
    assert_eq!(
        options.etcd.endpoints,
        ["http://127.0.0.1:4001", "http://127.0.0.1:2379"]
    );
    assert_eq!(options.etcd.prefix, "/coreos.com/network");
    assert_eq!(
        options.subnet_file,
        PathBuf::from("/run/flannel/subnet.env")
    );
    assert_eq!(options.renew_margin, Duration::from_secs(3600));
    assert_eq!(options.firewall_resync, Duration::from_secs(5));
    assert!(
        !options.masquerade && options.fully_random && options.forward && !options.blackhole_route
    );
    assert_eq!(options.health, None);
    assert_eq!(options.data_path, None);
}

#[test]
fn one_or_two_dashes_and_both_value_forms_are_taken() {
    for args in [["-etcd-prefix", "/x"], ["--etcd-prefix", "/x"]] {
        assert_eq!(options(&args, &[]).etcd.prefix, "/x");
    }
    let options = options(
        &[
            "--etcd-prefix=/a=b",
            "-ip-masq",
            "-iptables-forward-rules=false",
            "-healthz-port=0x10",
        ],
        &[],
    );
    assert_eq!(options.etcd.prefix, "/a=b");
    assert!(options.masquerade && !options.forward);
    assert_eq!(
        options.health.map(|at| at.to_string()).as_deref(),
        Some("0.0.0.0:16")
    );
}

#[test]
fn a_boolean_takes_no_separate_value() {
    assert!(usage(&["-ip-masq", "false"]).starts_with("unexpected argument \"false\""));
}

#[test]
fn iface_can_be_repeated_and_the_last_of_others_wins() {
    let options = options(
        &[
            "--iface=eth1",
            "--iface",
            "10.0.0.1",
            "--iface-regex=^eth",
            "--etcd-prefix=/a",
            "--etcd-prefix=/b",
        ],
        &[],
    );
    assert_eq!(options.iface.iface, ["eth1", "10.0.0.1"]);
    assert_eq!(options.iface.regex.len(), 1);
    assert_eq!(options.etcd.prefix, "/b");
}

#[test]
fn variables_fill_in_only_what_the_command_line_left_out() {
    let env = [
        ("FLANNELD_ETCD_PREFIX", "/env"),
        ("FLANNELD_IP_MASQ", "true"),
        ("FLANNELD_IFACE", "eth9"),
        ("FLANNELD_PUBLIC_IP", ""),
        ("FLANNELD_DATA_PATH", "ebpf"),
    ];
    let options = options(&["--etcd-prefix=/arg"], &env);
    assert_eq!(options.etcd.prefix, "/arg");
    assert!(options.masquerade);
    assert_eq!(options.iface.iface, ["eth9"]);
    assert_eq!(options.data_path.as_deref(), Some("ebpf"));
    assert!(options.notes.is_empty());
}

#[test]
fn a_bad_variable_is_noted_and_ignored() {
    let options = options(&[], &[("FLANNELD_IPTABLES_RESYNC", "often")]);
    assert_eq!(options.firewall_resync, Duration::from_secs(5));
    assert!(
        options.notes[0].contains("FLANNELD_IPTABLES_RESYNC"),
        "{:?}",
        options.notes
    );
}

#[test]
fn help_and_malformed_flags_print_the_usage_as_flanneld_does() {
    for args in [["-h"], ["--help"]] {
        assert!(usage(&args).starts_with("Usage: flanneld-rs [OPTION]..."));
    }
    assert!(usage(&["--no-such"]).starts_with("flag provided but not defined: -no-such\nUsage"));
    assert!(usage(&["-etcd-prefix"]).starts_with("flag needs an argument: -etcd-prefix"));
    assert!(usage(&["-healthz-port=x"]).starts_with("invalid value \"x\" for flag -healthz-port"));
    assert!(usage(&["---x"]).starts_with("bad flag syntax"));
    assert!(
        flags::FLAGS
            .iter()
            .all(|flag| usage(&["-h"]).contains(&format!("  -{}", flag.name)))
    );
}

#[test]
fn values_out_of_range_are_errors() {
    for args in [
        "--subnet-lease-renew-margin=0",
        "--subnet-lease-renew-margin=1440",
        "--healthz-port=70000",
        "--public-ip=fd00::1",
        "--public-ipv6=10.0.0.1",
        "--iface-can-reach=x",
        "--iface-regex=(",
        "--iptables-resync=0",
        "--kube-subnet-mgr",
    ] {
        let error = command(&[args], &[]).unwrap_err();
        let flag = args.split('=').next().unwrap_or_default();
        assert!(error.contains(flag), "{args}: {error}");
    }
    let env = [("NODE_NAME", "n1")];
    let flags = ["--kube-subnet-mgr", "--kube-annotation-prefix=x"];
    let error = command(&flags, &env).unwrap_err();
    assert!(error.contains("--kube-annotation-prefix"), "{error}");
}

#[test]
fn kubernetes_mode_knows_its_node_from_the_environment() {
    let settings = |args: &[&str], env: &[(&str, &str)]| {
        let args: Vec<&str> = ["--kube-subnet-mgr"].iter().chain(args).copied().collect();
        options(&args, env).kubernetes.unwrap()
    };
    assert!(options(&[], &[("NODE_NAME", "n1")]).kubernetes.is_none());
    let pod = [("POD_NAME", "p"), ("POD_NAMESPACE", "s")];
    let defaults = settings(&[], &pod);
    let of_pod = NodeName::OfPod {
        namespace: "s".to_owned(),
        name: "p".to_owned(),
    };
    assert_eq!(defaults.node, of_pod);
    assert_eq!(
        defaults.net_config,
        PathBuf::from("/etc/kube-flannel/net-conf.json")
    );
    assert!(defaults.set_network_unavailable);
    assert_eq!((defaults.api_url, defaults.kubeconfig), (None, None));
    assert_eq!(defaults.annotations.name("x"), "flannel.alpha.coreos.com/x");
    let env = [
        pod[0],
        pod[1],
        ("NODE_NAME", "n1"),
        ("FLANNELD_KUBECONFIG_FILE", "/k"),
    ];
    let given = settings(
        &[
            "--kube-api-url=https://a:1",
            "--kube-annotation-prefix=a.b/c",
            "--net-config-path=/n",
            "--set-node-network-unavailable=false",
        ],
        &env,
    );
    assert_eq!(given.node, NodeName::Name("n1".to_owned()));
    assert_eq!(given.kubeconfig, Some(PathBuf::from("/k")));
    assert_eq!(given.api_url.as_deref(), Some("https://a:1"));
    assert_eq!(given.annotations.name("x"), "a.b/c-x");
    assert_eq!(given.net_config, PathBuf::from("/n"));
    assert!(!given.set_network_unavailable);
}

#[test]
fn cleanup_and_version_are_recognised() {
    assert!(matches!(
        command(&["cleanup", "--etcd-prefix=/x"], &[]),
        Ok(Command::Cleanup(_))
    ));
    assert!(matches!(command(&["--version"], &[]), Ok(Command::Version)));
}

#[test]
fn no_debug_text_shows_the_password() {
    let options = options(&["--etcd-password=sesame"], &[]);
    assert!(!format!("{options:?}").contains("sesame"));
}

#[test]
fn the_prefix_is_cleaned_and_a_relative_one_stays_relative() {
    for (given, key) in [
        ("/coreos.com/network", "/coreos.com/network/config"),
        ("coreos.com/network", "coreos.com/network/config"),
        ("//coreos.com//network/", "/coreos.com/network/config"),
        ("/a/./b/../c", "/a/c/config"),
        ("/../a", "/a/config"),
        ("../a/", "../a/config"),
        ("/", "/config"),
        (".", "config"),
    ] {
        let access = options(&[&format!("--etcd-prefix={given}")], &[]).etcd;
        assert_eq!(access.key("config"), key, "{given}");
    }
}
