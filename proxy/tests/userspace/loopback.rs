//! Node ports on loopback alone, beside another mode.

use std::io::ErrorKind;

use super::lab::*;
use proxy::mode::userspace::{Loopback, Options};
use proxy::model::{Changed, Family, Protocol};

#[test]
fn node_ports_answer_on_loopback_and_nothing_else_is_bound() {
    for family in Family::ALL {
        let Some(mut lab) = Lab::new(family) else {
            return;
        };
        for (host, name) in lab.ends.iter().zip(["one", "two"]) {
            host.tcp_server("[::]:8080", name);
        }
        let mut b = web(family);
        b.fronts.push(node_port(30080));
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let name = port_name("web", protocol);
            lab.wanted.balancers.insert(name, b.clone().into());
        }
        let mut loopback = Loopback::new(family, Options::default());
        let report = lab.node.run(|| loopback.sync(&lab.wanted, &Changed::All));
        assert_eq!((report.errors, report.changes), (Vec::new(), 1));
        let (here, outside) = match family {
            Family::V4 => ("127.0.0.1:30080", format!("{}:30080", NODE[0])),
            Family::V6 => ("[::1]:30080", format!("[{NODE6}]:30080")),
        };
        ask(&mut lab.node.connect(here).unwrap());
        let error = lab.client.connect(&outside).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(lab.node.ip("route show table local proto 87"), "");
        assert_eq!(loopback.counters().tcp_accepted.get(), 1);
        // The node port goes.
        lab.wanted.balancers.clear();
        let name = port_name("web", Protocol::Tcp);
        let changed = Changed::Ports([name].into());
        let report = lab.node.run(|| loopback.sync(&lab.wanted, &changed));
        assert_eq!((report.errors, report.changes), (Vec::new(), 1));
        assert!(lab.node.connect(here).is_err());
    }
}
