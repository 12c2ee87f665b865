//! Limits under made clocks.

use super::*;

const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

fn limits(queries: u32, forwards: u32, concurrent_forwards: u32) -> Limits {
    Limits::new(Settings {
        queries,
        forwards,
        concurrent_forwards,
        clients: 8,
    })
}

fn passed(limits: &mut Limits, client: IpAddr, count: usize, now: Instant) -> usize {
    (0..count)
        .filter(|_| limits.query(client, now) == Verdict::Pass)
        .count()
}

#[test]
fn a_second_s_worth_passes_at_once_and_then_as_time_goes() {
    let now = Instant::now();
    let mut limits = limits(100, 0, 0);
    assert_eq!(passed(&mut limits, A, 150, now), 100);
    assert_eq!(
        passed(&mut limits, A, 150, now + Duration::from_millis(100)),
        10
    );
    assert_eq!(
        passed(&mut limits, A, 150, now + Duration::from_secs(60)),
        100,
        "a bucket holds no more than a second's worth"
    );
}

#[test]
fn one_client_s_flood_is_not_another_s() {
    let now = Instant::now();
    let mut limits = limits(10, 0, 0);
    assert_eq!(passed(&mut limits, A, 1000, now), 10);
    assert_eq!(passed(&mut limits, B, 5, now), 5);
}

#[test]
fn zero_is_no_limit_and_remembers_nobody() {
    let now = Instant::now();
    let mut limits = limits(0, 0, 0);
    assert_eq!(passed(&mut limits, A, 100_000, now), 100_000);
    assert!(limits.young.is_empty());
    assert!((0..10_000).all(|_| limits.forward(A, now) == Verdict::Pass));
}

#[test]
fn an_ipv6_network_is_one_client_and_a_mapped_address_is_its_ipv4() {
    let now = Instant::now();
    let mut limits = limits(3, 0, 0);
    let near = |n: u16| IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, n));
    assert_eq!(
        (1..=9)
            .filter(|n| limits.query(near(*n), now) == Verdict::Pass)
            .count(),
        3
    );
    let far = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 2, 0, 0, 0, 1));
    assert_eq!(limits.query(far, now), Verdict::Pass);
    assert_eq!(passed(&mut limits, A, 9, now), 3);
    assert!(matches!(
        limits.query("::ffff:10.0.0.1".parse().unwrap(), now),
        Verdict::Excess { .. }
    ));
}

#[test]
fn forwards_under_way_are_counted_and_given_back() {
    let now = Instant::now();
    let mut limits = limits(0, 0, 2);
    assert_eq!(limits.forward(A, now), Verdict::Pass);
    assert_eq!(limits.forward(A, now), Verdict::Pass);
    assert!(matches!(limits.forward(A, now), Verdict::Excess { .. }));
    assert_eq!(limits.forward(B, now), Verdict::Pass);
    limits.forwarded(A);
    assert_eq!(limits.forward(A, now), Verdict::Pass);
}

#[test]
fn forwards_have_a_bucket_of_their_own_of_two_seconds_worth() {
    let now = Instant::now();
    let mut limits = limits(1000, 10, 0);
    assert_eq!(
        (0..100)
            .filter(|_| limits.forward(A, now) == Verdict::Pass)
            .count(),
        20
    );
    assert_eq!(
        limits.query(A, now),
        Verdict::Pass,
        "names of the cluster are still answered"
    );
}

#[test]
fn a_client_over_its_limit_is_told_of_once_a_minute_with_the_number() {
    let start = Instant::now();
    let mut limits = limits(1, 0, 0);
    assert_eq!(limits.query(A, start), Verdict::Pass);
    assert_eq!(limits.query(A, start), Verdict::Excess { told: Some(1) });
    for _ in 0..41 {
        assert_eq!(limits.query(A, start), Verdict::Excess { told: None });
    }
    let later = start + Duration::from_secs(61);
    assert_eq!(limits.query(A, later), Verdict::Pass);
    assert_eq!(limits.query(A, later), Verdict::Excess { told: Some(42) });
}

#[test]
fn memory_is_bounded_and_the_busy_are_not_forgotten() {
    let now = Instant::now();
    let mut limits = limits(1, 0, 0);
    assert_eq!(limits.query(A, now), Verdict::Pass);
    for n in 0..100_000u32 {
        limits.query(IpAddr::from(n.to_be_bytes()), now);
        assert!(
            matches!(limits.query(A, now), Verdict::Excess { .. }),
            "client {n} made us forget a busy one"
        );
        assert!(limits.young.len() + limits.old.len() <= 8);
    }
}

#[test]
fn a_clock_that_steps_back_gives_nothing_and_takes_nothing() {
    let now = Instant::now() + Duration::from_secs(100);
    let mut limits = limits(10, 0, 0);
    assert_eq!(passed(&mut limits, A, 10, now), 10);
    assert_eq!(passed(&mut limits, A, 10, now - Duration::from_secs(50)), 0);
    assert_eq!(passed(&mut limits, A, 10, now), 0);
}
