use super::*;
use crate::lease::{LeaseAttrs, Subnet};
use crate::peers::Peers;

/// Notes every call and lets it pass only when told to.
struct Slow {
    calls: mpsc::Sender<String>,
    pass: mpsc::Receiver<()>,
    /// Until the next reconcile.
    has_ended: bool,
}

impl Slow {
    fn call(&self, what: String) -> Report {
        self.calls.send(what).unwrap();
        // The test has ended when nobody lets it pass any more.
        let _ = self.pass.recv();
        Report::default()
    }
}

impl Backend for Slow {
    fn peer_types(&self) -> &'static [&'static str] {
        &[]
    }

    fn prepare(&mut self, uplink: &Uplink, _: Option<&Lease>) -> anyhow::Result<Announcement> {
        self.call(format!("prepare {}", uplink.name));
        Ok(Announcement::default())
    }

    fn announcement(&self) -> Announcement {
        Announcement::default()
    }

    fn mtu(&self, uplink: &Uplink) -> u32 {
        uplink.mtu
    }

    fn plan(&mut self, _: &Desired) -> anyhow::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn reconcile(&mut self, desired: &Desired) -> Report {
        self.has_ended = false;
        self.call(format!("reconcile {}", desired.uplink.name))
    }

    fn update(&mut self, desired: &Desired, changes: &[PeerChange]) -> Report {
        self.call(format!("update {} {}", desired.uplink.name, changes.len()))
    }

    fn has_ended(&self) -> bool {
        self.has_ended
    }

    fn cleanup(&mut self) -> Report {
        Report::default()
    }
}

/// Counts.
struct Rules(mpsc::Sender<bool>);

impl Firewall for Rules {
    fn plan(&mut self, _: &Wanted) -> anyhow::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn reconcile(&mut self, _: &Wanted, thorough: bool) -> Report {
        self.0.send(thorough).unwrap();
        Report::default()
    }

    fn cleanup(&mut self) -> Report {
        Report::default()
    }
}

fn uplink(name: &str) -> Uplink {
    Uplink {
        index: 1,
        name: name.to_owned(),
        mtu: 1500,
        address_v4: None,
        address_v6: None,
        public_v4: None,
        public_v6: None,
    }
}

fn goal(name: &str) -> Arc<Goal> {
    let subnet = Subnet { v4: None, v6: None };
    let own = Lease {
        subnet,
        attrs: LeaseAttrs::default(),
    };
    Arc::new(Goal {
        desired: Desired {
            uplink: uplink(name),
            own,
            peers: Peers::default(),
        },
        rules: Wanted {
            families: Vec::new(),
            masquerade: false,
            fully_random: false,
            forward: false,
        },
    })
}

#[test]
fn while_a_job_hangs_the_queue_stays_short_and_the_hang_is_told() {
    let (calls, called) = mpsc::channel();
    let (let_pass, pass) = mpsc::channel();
    let (rules, rules_checked) = mpsc::channel();
    let (done, _finished) = tokio::sync::mpsc::unbounded_channel();
    let datapath = Datapath::start(
        Box::new(Slow {
            calls,
            pass,
            has_ended: false,
        }),
        Box::new(Rules(rules)),
        None,
        Arc::default(),
        done,
    )
    .unwrap();
    let wait = || called.recv_timeout(Duration::from_secs(10)).unwrap();

    datapath.reconcile(&goal("first"), "event");
    assert_eq!(wait(), "reconcile first");
    for name in ["a", "b", "c"] {
        datapath.reconcile(&goal(name), "timer");
        datapath.reconcile(&goal(name), "event");
        datapath.update(&goal("updated"), Vec::new());
        datapath.rules(&goal(name));
    }
    let outdated = datapath.prepare(uplink("outdated"), None);
    drop(outdated);
    let _wanted = datapath.prepare(uplink("wanted"), None);
    datapath.update(&goal("last"), Vec::new());
    for _ in 0..3 {
        datapath.rules(&goal("last"));
    }
    std::thread::sleep(Duration::from_millis(60));
    assert_eq!(
        datapath.overdue(Duration::from_millis(50)),
        Some(Part::Backend)
    );
    assert_eq!(datapath.overdue(PATIENCE), None);

    let expected = ["reconcile updated", "prepare wanted", "update last 0"];
    for call in expected {
        let_pass.send(()).unwrap();
        assert_eq!(wait(), call);
    }
    let_pass.send(()).unwrap();
    // One check with each full look, thorough if any of those merged was. The trailing one was
    // covered by the look that still waited.
    let checks: Vec<bool> = [(); 2]
        .map(|()| rules_checked.recv_timeout(Duration::from_secs(10)).unwrap())
        .into();
    assert_eq!(checks, [false, true]);
    let until = Instant::now() + Duration::from_secs(10);
    while datapath.overdue(Duration::ZERO).is_some() {
        assert!(Instant::now() < until);
    }
    datapath.rules(&goal("last"));
    assert!(!rules_checked.recv_timeout(Duration::from_secs(10)).unwrap());
    assert!(rules_checked.try_recv().is_err() && called.try_recv().is_err());
}

#[test]
fn a_data_path_that_ended_is_mended_with_the_next_check_of_the_rules() {
    let (calls, called) = mpsc::channel();
    let (let_pass, pass) = mpsc::channel();
    drop(let_pass);
    let (rules, rules_checked) = mpsc::channel();
    let (done, mut finished) = tokio::sync::mpsc::unbounded_channel();
    let backend = Slow {
        calls,
        pass,
        has_ended: true,
    };
    let rules = Box::new(Rules(rules));
    let datapath = Datapath::start(Box::new(backend), rules, None, Arc::default(), done).unwrap();
    for parts in [vec![Part::Backend, Part::Firewall], vec![Part::Firewall]] {
        datapath.rules(&goal("eth0"));
        let done = finished.blocking_recv().unwrap();
        assert_eq!(done.errors.into_keys().collect::<Vec<_>>(), parts);
        assert!(!rules_checked.recv_timeout(Duration::from_secs(10)).unwrap());
        // A check in hand covers one that is asked for meanwhile.
        while datapath.overdue(Duration::ZERO).is_some() {
            std::thread::yield_now();
        }
    }
    let calls: Vec<_> = called.try_iter().collect();
    assert_eq!(calls, ["reconcile eth0"]);
}
