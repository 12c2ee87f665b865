use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::*;

const DUAL: &str = "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.72.1/24\nFLANNEL_IPV6_NETWORK=2001:cafe:42::/56\n\
                    FLANNEL_IPV6_SUBNET=2001:cafe:42:1::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";

#[test]
fn flannels_own_file_survives_unchanged() {
    assert_eq!(SubnetEnv::parse(DUAL).render(), DUAL);
    let v4 = "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.72.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=false\n";
    assert_eq!(SubnetEnv::parse(v4).render(), v4);
    assert_eq!(
        SubnetEnv::parse(v4).subnet.unwrap().to_string(),
        "10.5.72.0/24"
    );
}

#[test]
fn odd_lines_are_skipped() {
    let env = SubnetEnv::parse(
        "# x\nFLANNEL_SUBNET\nFLANNEL_NETWORK=10.5.0.0/16,10.6.0.0/16\n\nFLANNEL_MTU=big\nOTHER=1\n",
    );
    assert_eq!(
        env,
        SubnetEnv {
            network_v4: "10.5.0.0/16".parse().ok(),
            ..SubnetEnv::default()
        }
    );
}

#[test]
fn the_file_appears_in_one_step_readable_by_all_and_only_when_it_differs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/flannel/subnet.env");
    assert_eq!(SubnetEnv::read(&path).unwrap(), None);
    let env = SubnetEnv::parse(DUAL);
    assert!(env.write(&path).unwrap());
    assert!(!env.write(&path).unwrap());
    assert_eq!(SubnetEnv::read(&path).unwrap(), Some(env));
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o644
    );
    let names: Vec<_> = std::fs::read_dir(path.parent().unwrap())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names, ["subnet.env"]);
}

proptest! {
    #[test]
    fn any_text_is_read_without_panic_and_what_was_understood_is_stable(text in "(FLANNEL_[A-Z0-9_]{0,14}=?[0-9a-f.:/,truels]*\n|.*\n)*") {
        let env = SubnetEnv::parse(&text);
        let whole = env.subnet.is_some_and(|s| s.v4.is_some() == env.network_v4.is_some() && s.v6.is_some() == env.network_v6.is_some());
        if whole && env.mtu.is_some() {
            prop_assert_eq!(SubnetEnv::parse(&env.render()), env);
        }
    }

    #[test]
    fn what_is_written_reads_back(net in any::<u32>(), len in 8u8..30, mtu in 68u32..65536, masquerade: bool) {
        let subnet = Ipv4Net::new(net.into(), len).unwrap().trunc();
        let env = SubnetEnv { network_v4: Some(subnet), network_v6: None, subnet: Some(Subnet { v4: Some(subnet), v6: None }), mtu: Some(mtu), masquerade };
        prop_assert_eq!(SubnetEnv::parse(&env.render()), env);
    }
}
