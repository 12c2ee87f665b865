use super::*;

fn config(families: &str, backend: &str) -> NetworkConfig {
    NetworkConfig::parse(&format!(r#"{{{families},"Backend":{{{backend}}}}}"#)).unwrap()
}

const V4: &str = r#""Network":"10.3.0.0/16""#;
const OTHER_V4: &str = r#""Network":"10.4.0.0/16""#;
const DUAL: &str = r#""Network":"10.3.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:42::/48""#;
const VXLAN: &str = r#""Type":"vxlan""#;
const DIRECT: &str = r#""Type":"vxlan","DirectRouting":true"#;
const HOST_GW: &str = r#""Type":"host-gw""#;
const UDP: &str = r#""Type":"udp""#;

fn left(old: (&str, &str), new: (&str, &str)) -> Leavings {
    leavings(&config(old.0, old.1), &config(new.0, new.1), true)
}

#[test]
fn the_same_configuration_leaves_nothing() {
    for backend in [VXLAN, DIRECT, HOST_GW, UDP] {
        let same = left((V4, backend), (V4, backend));
        assert_eq!(same, Leavings::default(), "{backend}");
    }
    // Another port of the tunnel, or no direct routes any more: the backend mends that itself.
    assert_eq!(left((V4, DIRECT), (V4, VXLAN)), Leavings::default());
}

#[test]
fn another_backend_leaves_all_its_own() {
    let made = left((V4, VXLAN), (V4, UDP));
    assert_eq!(made.backends, [config(V4, VXLAN)]);
    assert!(!made.rules && made.devices.is_empty());
    let made = left((V4, DIRECT), (V4, UDP));
    assert_eq!(made.backends, [config(V4, DIRECT), config(V4, HOST_GW)]);
    // host-gw looks after the routes in its network.
    let made = left((V4, DIRECT), (V4, HOST_GW));
    assert_eq!(made.backends, [config(V4, DIRECT)]);
    let made = left((V4, HOST_GW), (V4, UDP));
    assert_eq!(made.backends, [config(V4, HOST_GW)]);
}

#[test]
fn a_family_that_is_switched_off_leaves_its_device_and_rules() {
    let made = left((DUAL, VXLAN), (V4, VXLAN));
    assert_eq!(made.devices, ["flannel-v6.1"]);
    assert!(made.rules && made.backends.is_empty());
    assert_eq!(made.blackholes, ["fd00:42::/48".parse().unwrap()]);
    let made = left((DUAL, HOST_GW), (V4, HOST_GW));
    let v6_only = NetworkConfig {
        v4: None,
        ..config(DUAL, HOST_GW)
    };
    assert!(made.rules && made.devices.is_empty());
    assert_eq!(made.backends, [v6_only]);
}

#[test]
fn another_network_leaves_plain_routes_and_blackholes_of_the_old_one() {
    let made = left((V4, HOST_GW), (OTHER_V4, HOST_GW));
    assert_eq!(made.backends, [config(V4, HOST_GW)]);
    assert_eq!(made.blackholes, ["10.3.0.0/16".parse().unwrap()]);
    assert!(!made.rules);
    assert_eq!(left((V4, VXLAN), (OTHER_V4, VXLAN)).backends, []);
}

#[test]
fn blackholes_go_when_they_are_switched_off() {
    let same = config(V4, VXLAN);
    let made = leavings(&same, &same, false);
    assert_eq!(made.blackholes, ["10.3.0.0/16".parse().unwrap()]);
}
