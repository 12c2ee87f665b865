//! Programs do not carry packets past an IPsec policy.

use tunnel::ebpf::Ebpf;

use crate::bed::{Bed, may_run, table};

const POLICY: &str = "src 192.168.66.1/32 dst 192.168.66.2/32 dir out";

#[test]
fn refuses_while_an_outbound_ipsec_policy_is_there() {
    if !may_run() {
        return;
    }
    let bed = Bed::new(false);
    let one = bed.node(1);
    let refusal = || {
        let attach = || Ebpf::attach(&one.settings, &table(2)).err();
        one.netns
            .run(attach)
            .unwrap()
            .map(|error| error.to_string())
    };
    one.ip(&format!("xfrm policy add {POLICY} action block"));
    assert!(!one.ping("-c 1 192.168.66.2"), "the policy has no effect");
    let error = refusal().expect("attached past a policy");
    assert!(error.contains("IPsec") && !error.contains('\n'), "{error}");
    assert!(error.contains("192.168.66.2/32"), "{error}");
    assert!(!one.sh("tc filter show dev u0 ingress").contains("weft"));

    one.ip(&format!("xfrm policy delete {POLICY}"));
    // One that packets on their way in obey is no reason.
    one.ip("xfrm policy add src 192.168.66.2/32 dst 192.168.66.1/32 dir in");
    let [first, _second] = bed.attach();
    assert!(one.ping("-c 3 10.5.2.0"));
    let check = || one.netns.run(|| first.check()).unwrap();
    assert!(check().unwrap());

    one.ip(&format!("xfrm policy add {POLICY} action block"));
    let error = check().unwrap_err().to_string();
    assert!(error.contains("IPsec"), "{error}");
    one.ip(&format!("xfrm policy delete {POLICY}"));
    assert!(check().unwrap());
}
