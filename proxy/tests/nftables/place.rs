//! A network namespace with the mode in it, and things to program.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use kernel::{Netns, process};
use proxy::mode::nftables::Nftables;
use proxy::mode::{Mode as _, Report};
use proxy::model::{
    Balancer, Changed, Endpoint, Family, Front, FrontKind, LocalDetector, NodePortAddresses,
    ObjectName, Policy, PortName, Protocol, Site, Wanted,
};

/// A namespace, on whose thread the test runs.
pub struct Place {
    pub family: Family,
    pub mode: Nftables,
}

struct Named(String);

impl Drop for Named {
    fn drop(&mut self) {
        if let Err(error) = Netns::delete(&self.0) {
            eprintln!("{error}");
        }
    }
}

impl Place {
    /// Runs a test in a namespace of its own for each family.
    pub fn each(test: fn(&mut Self)) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        for family in Family::ALL {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("weft-pn{}-{number}", std::process::id());
            let netns = match Netns::create(&name) {
                Ok(netns) => netns,
                Err(error) if std::env::var_os("WEFT_REQUIRE_ROOT").is_none() => {
                    let thread = std::thread::current();
                    let test = thread.name().unwrap_or("a test");
                    let line = format!(
                        "SKIPPED: {test}: needs root ({error}; run scripts/test.sh with sudo)\n"
                    );
                    std::io::stderr().write_all(line.as_bytes()).unwrap();
                    return;
                }
                Err(error) => panic!("{error}"),
            };
            let _goes_with_the_test = Named(name);
            netns
                .run(|| {
                    test(&mut Self {
                        family,
                        mode: Nftables::new(family),
                    });
                })
                .unwrap();
        }
    }

    /// Another process.
    pub fn restart(&mut self) {
        self.mode = Nftables::new(self.family);
    }

    pub fn sync(&mut self, wanted: &Wanted, changed: &Changed) -> Report {
        let report = self.mode.sync(wanted, changed);
        assert_eq!(report.errors, Vec::<String>::new());
        report
    }

    pub fn word(&self) -> &'static str {
        match self.family {
            Family::V4 => "ip",
            Family::V6 => "ip6",
        }
    }

    pub fn nft(&self, command: &str) -> String {
        process::run(command, "nft", &["-f", "-"], command).unwrap()
    }

    /// The table as `nft` lists it, its lines sorted: the order of elements is the hash's.
    pub fn listing(&self) -> String {
        let text = self.nft(&format!("list table {} weft-proxy", self.word()));
        let mut words: Vec<&str> = text
            .split([',', '\n'])
            .map(|line| {
                line.trim()
                    .trim_start_matches("elements = { ")
                    .trim_end_matches(" }")
            })
            .collect();
        words.sort_unstable();
        words.join("\n")
    }

    fn ip(&self, v4: u32, v6: u128) -> IpAddr {
        match self.family {
            Family::V4 => Ipv4Addr::from_bits(v4).into(),
            Family::V6 => Ipv6Addr::from_bits(v6).into(),
        }
    }

    pub fn cluster_ip(&self, number: u32) -> IpAddr {
        self.ip(0x0a60_0000 + number, (0xfd96 << 112) + u128::from(number))
    }

    pub fn client(&self, number: u32) -> IpAddr {
        self.ip(0xc000_0200 + number, (0xfd02 << 112) + u128::from(number))
    }

    fn endpoint(&self, number: u32) -> Endpoint {
        Endpoint {
            ip: self.ip(0x0af4_0000 + number, (0xfd44 << 112) + u128::from(number)),
            port: 8080,
            local: number.is_multiple_of(3),
        }
    }

    fn site(&self) -> Site {
        Site {
            family: self.family,
            node: "n1".into(),
            masquerade_all: false,
            masquerade_mark: 0x4000,
            local: LocalDetector::Interface("cni0".to_owned()),
            node_port_addresses: NodePortAddresses::Some(BTreeSet::from([self.client(1)])),
            service_cidrs: Vec::new(),
            affinity_by_hash: false,
            localhost_node_ports: false,
            conntrack_liberal: false,
        }
    }

    fn balancer(&self, number: u32, endpoints: u32) -> Balancer {
        Balancer {
            fronts: vec![Front {
                kind: FrontKind::ClusterIp,
                ip: Some(self.cluster_ip(number)),
                port: 80,
            }],
            internal_policy: Policy::Cluster,
            external_policy: Policy::Cluster,
            affinity: None,
            source_ranges: Vec::new(),
            cluster: (0..endpoints)
                .map(|n| self.endpoint(1 + number * 8 + n))
                .collect(),
            local: Vec::new(),
            draining: Vec::new(),
            any_endpoint: endpoints > 0,
        }
    }

    /// So many Services with a cluster IP, each with so many endpoints.
    pub fn many(&self, services: u32, endpoints: u32) -> Wanted {
        let balancer = |number| (port(number), Arc::new(self.balancer(number, endpoints)));
        Wanted {
            site: self.site(),
            balancers: (0..services).map(balancer).collect(),
        }
    }

    pub fn change(&self, wanted: &mut Wanted, number: u32, change: impl FnOnce(&mut Balancer)) {
        let balancer = wanted.balancers.get_mut(&port(number)).unwrap();
        change(Arc::make_mut(balancer));
    }

    /// A balancer with all kinds of fronts; its load balancer's address is for one network.
    pub fn load_balancer(&self, range: &str) -> Balancer {
        let mut balancer = self.balancer(0, 4);
        let external = self.cluster_ip(0x0f_0000);
        for (kind, ip, port) in [
            (FrontKind::ExternalIp, Some(self.cluster_ip(0x0f_0001)), 80),
            (FrontKind::LoadBalancer, Some(external), 80),
            (FrontKind::NodePort, None, 30_080),
        ] {
            balancer.fronts.push(Front { kind, ip, port });
        }
        balancer.source_ranges = vec![range.parse().unwrap()];
        balancer
    }

    /// One of each.
    pub fn variety(&self) -> Wanted {
        let mut wanted = self.many(6, 5);
        let range = match self.family {
            Family::V4 => "192.0.2.0/24",
            Family::V6 => "2001:db8::/32",
        };
        let mut all = self.load_balancer(range);
        all.external_policy = Policy::Local;
        all.local = all
            .cluster
            .iter()
            .copied()
            .filter(|each| each.local)
            .collect();
        self.change(&mut wanted, 0, |balancer| *balancer = all);
        self.change(&mut wanted, 2, |balancer| balancer.affinity = Some(10_800));
        self.change(&mut wanted, 3, |balancer| {
            balancer.cluster.clear();
            balancer.any_endpoint = false;
        });
        let crowd = self.balancer(4, 40);
        self.change(&mut wanted, 4, |balancer| *balancer = crowd);
        self.change(&mut wanted, 5, |balancer| {
            balancer.internal_policy = Policy::Local
        });
        wanted
    }
}

/// The name of Service `number`'s port.
pub fn port(number: u32) -> PortName {
    PortName {
        service: ObjectName::new("default", &format!("s{number}")),
        port: "http".into(),
        protocol: Protocol::Tcp,
    }
}
