use std::cell::RefCell;

use tunnel::{Counters, Own};

use super::*;

/// What the kernel of this test's thread did and will refuse.
#[derive(Default)]
struct Kernel {
    calls: Vec<String>,
    refuses: Option<&'static str>,
    /// What a check finds wrong.
    wrong: Option<&'static str>,
    may_pass: bool,
    left: usize,
    removed: bool,
    carried: u64,
}

impl Kernel {
    fn refusal(&self) -> Option<Refusal> {
        self.refuses.map(|why| Refusal {
            why: why.to_owned(),
            may_pass: self.may_pass,
        })
    }
}

thread_local! {
    static KERNEL: RefCell<Kernel> = RefCell::default();
}

fn kernel<T>(look: impl FnOnce(&mut Kernel) -> T) -> T {
    KERNEL.with_borrow_mut(look)
}

fn calls() -> Vec<String> {
    kernel(|kernel| std::mem::take(&mut kernel.calls))
}

struct Fake;

impl Attach for Fake {
    fn attach(place: &Place, table: &Table) -> Result<Self, Refusal> {
        kernel(|kernel| {
            let (device, underlay) = (&place.device.1, &place.underlay.1);
            let peers = table.peers().len();
            kernel
                .calls
                .push(format!("attach {device} {underlay} {peers}"));
            kernel.removed = false;
            kernel.refusal().map_or(Ok(Self), Err)
        })
    }

    fn publish(&mut self, table: &Table) -> Result<(), Refusal> {
        kernel(|kernel| {
            kernel
                .calls
                .push(format!("publish {}", table.peers().len()));
            kernel.refusal().map_or(Ok(()), Err)
        })
    }

    fn check(&self) -> Result<bool, String> {
        kernel(|kernel| {
            kernel
                .wrong
                .map_or(Ok(!kernel.removed), |why| Err(why.to_owned()))
        })
    }

    fn describe(&self) -> String {
        "here and there".to_owned()
    }

    fn counts(&self) -> Arc<dyn Count> {
        // Seven of their own.
        let packets = kernel(|kernel| kernel.carried) + 7;
        Arc::new(counting(packets))
    }

    fn carried(&self) -> Sums {
        counting(kernel(|kernel| kernel.carried)).sums()
    }

    fn remove(device: &str, underlay: Option<&str>) -> Result<usize, String> {
        kernel(|kernel| {
            let underlay = underlay.unwrap_or("?");
            kernel.calls.push(format!("remove {device} {underlay}"));
            Ok(std::mem::take(&mut kernel.left))
        })
    }
}

fn counting(packets: u64) -> Counters {
    let counters = Counters::default();
    counters.count_sent(packets, 100 * packets);
    counters
}

fn place(underlay: (u32, &str)) -> Place {
    Place {
        device: (9, "flannel0".to_owned()),
        underlay: (underlay.0, underlay.1.to_owned()),
        underlay_mtu: 1500,
        local: "192.168.66.11:8285".parse().unwrap(),
    }
}

/// One look at a place, with a table of no peers; returns the kinds of changes.
fn look(programs: &mut Programs<Fake>, underlay: (u32, &str)) -> Vec<&'static str> {
    let mut report = Report::default();
    let table = Table::new(Own::default(), Vec::new());
    programs.ensure(place(underlay), &table, &mut report);
    report.changes.into_keys().collect()
}

const ETH0: (u32, &str) = (2, "eth0");
const ATTACH: &str = "attach flannel0 eth0 0";

#[test]
fn attached_once_and_then_only_the_table_is_published() {
    let mut programs = Programs::<Fake>::new(true);
    assert_eq!(look(&mut programs, ETH0), ["attach ebpf"]);
    assert!(look(&mut programs, ETH0).is_empty());
    assert_eq!(calls(), [ATTACH, "publish 0"]);
    assert!(programs.are_attached());
    assert_eq!(programs.counts().sums().sent, (7, 700));
}

#[test]
fn what_somebody_removed_comes_back() {
    let mut programs = Programs::<Fake>::new(true);
    look(&mut programs, ETH0);
    kernel(|kernel| kernel.removed = true);
    assert_eq!(look(&mut programs, ETH0), ["attach ebpf"]);
    assert_eq!(calls(), [ATTACH, ATTACH]);
}

#[test]
fn sums_never_go_down_whatever_is_left_to_take_over() {
    let mut programs = Programs::<Fake>::new(true);
    let sent = |programs: &Programs<Fake>| programs.counts().sums().sent;
    look(&mut programs, ETH0);
    assert_eq!(sent(&programs), (7, 700));
    // With the program that counted: the next one begins at 0. Without it: where that one was.
    for (carried, sum) in [(0, 14), (14, 21), (0, 28)] {
        kernel(|kernel| (kernel.removed, kernel.carried) = (true, carried));
        look(&mut programs, ETH0);
        assert_eq!(sent(&programs), (sum, 100 * sum));
    }
    // The kernel lets removed programs go some moments later; what moves finds them.
    kernel(|kernel| kernel.carried = 28);
    look(&mut programs, (3, "eth1"));
    assert_eq!(sent(&programs), (35, 3500));
}

#[test]
fn they_follow_the_external_interface_and_leave_nothing_on_the_old_one() {
    let mut programs = Programs::<Fake>::new(true);
    look(&mut programs, ETH0);
    kernel(|kernel| kernel.left = 2);
    assert_eq!(
        look(&mut programs, (3, "eth1")),
        ["attach ebpf", "detach ebpf"]
    );
    let moved = [ATTACH, "remove flannel0 eth0", "attach flannel0 eth1 0"];
    assert_eq!(calls(), moved);
}

#[test]
fn a_refusal_is_not_tried_again_until_the_place_changes() {
    let mut programs = Programs::<Fake>::new(true);
    kernel(|kernel| kernel.refuses = Some("no"));
    assert!(look(&mut programs, ETH0).is_empty());
    assert!(look(&mut programs, ETH0).is_empty());
    assert_eq!(calls(), [ATTACH, "remove flannel0 ?"]);
    assert_eq!(programs.refused(), Some("no"));
    assert!(!programs.may_attach(&place(ETH0)));
    kernel(|kernel| kernel.refuses = None);
    assert_eq!(look(&mut programs, (3, "eth1")), ["attach ebpf"]);
    assert_eq!(programs.refused(), None);
}

#[test]
fn a_refusal_that_may_pass_is_tried_again_after_a_while() {
    for may_pass in [false, true] {
        let mut programs = Programs::<Fake>::new(true);
        kernel(|kernel| (kernel.refuses, kernel.may_pass) = (Some("no memory"), may_pass));
        look(&mut programs, ETH0);
        calls();
        kernel(|kernel| kernel.refuses = None);
        assert!(look(&mut programs, ETH0).is_empty(), "at once");
        let refused = programs.refused.as_mut().unwrap();
        refused.at = refused.at.checked_sub(AGAIN).unwrap();
        look(&mut programs, ETH0);
        assert_eq!(programs.are_attached(), may_pass);
        assert_eq!(programs.refused().is_none(), may_pass);
    }
}

#[test]
fn a_refusal_while_running_removes_what_would_send_packets_astray() {
    let mut programs = Programs::<Fake>::new(true);
    look(&mut programs, ETH0);
    kernel(|kernel| (kernel.refuses, kernel.left) = (Some("full"), 2));
    let mut report = Report::default();
    programs.publish(&Table::default(), &mut report);
    assert_eq!(
        report.changes.into_keys().collect::<Vec<_>>(),
        ["detach ebpf"]
    );
    assert_eq!(calls(), [ATTACH, "publish 0", "remove flannel0 eth0"]);
    assert!(!programs.are_attached());
    assert_eq!(programs.counts().sums().sent, (7, 700), "sums went down");
    assert!(look(&mut programs, ETH0).is_empty());
}

#[test]
fn a_look_that_finds_what_forbids_them_removes_them() {
    let mut programs = Programs::<Fake>::new(true);
    look(&mut programs, ETH0);
    kernel(|kernel| {
        (kernel.wrong, kernel.refuses, kernel.left) = (Some("IPsec"), Some("IPsec"), 2);
    });
    assert_eq!(look(&mut programs, ETH0), ["detach ebpf"]);
    assert_eq!(calls(), [ATTACH, ATTACH, "remove flannel0 eth0"]);
    assert!(!programs.are_attached());
    assert_eq!(programs.refused(), Some("IPsec"));
    assert!(look(&mut programs, ETH0).is_empty());
}

#[test]
fn where_they_are_not_wanted_what_a_former_process_left_goes_once() {
    let mut programs = Programs::<Fake>::new(false);
    kernel(|kernel| kernel.left = 2);
    assert_eq!(look(&mut programs, ETH0), ["detach ebpf"]);
    assert!(look(&mut programs, ETH0).is_empty());
    // On whatever underlay that was.
    assert_eq!(calls(), ["remove flannel0 ?"]);
}
