use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

fn held(now: Instant) -> Renewal {
    let mut renewal = Renewal::new(HOUR);
    assert_eq!(renewal.poll(now), Action::Acquire);
    renewal.written(now, Some(24 * HOUR));
    renewal
}

#[test]
fn a_lease_is_renewed_a_margin_before_it_expires() {
    let start = Instant::now();
    let mut renewal = held(start);
    assert_eq!(renewal.poll(start), Action::Wait(Some(start + 23 * HOUR)));
    assert_eq!(renewal.poll(start + 23 * HOUR), Action::Renew);
    renewal.written(start + 23 * HOUR, Some(24 * HOUR));
    assert_eq!(
        renewal.poll(start + 23 * HOUR),
        Action::Wait(Some(start + 46 * HOUR))
    );
}

#[test]
fn a_ttl_shorter_than_the_margin_is_renewed_at_half_time() {
    let start = Instant::now();
    let mut renewal = Renewal::new(HOUR);
    renewal.written(start, Some(10 * SECOND));
    assert_eq!(renewal.poll(start), Action::Wait(Some(start + 5 * SECOND)));
}

#[test]
fn failures_pause_longer_and_longer_but_never_beyond_the_limits() {
    let start = Instant::now() + 23 * HOUR;
    let mut renewal = held(start - 23 * HOUR);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        renewal.failed(start);
        let Action::Wait(Some(until)) = renewal.poll(start) else {
            panic!("no pause")
        };
        pauses.push((until - start).as_secs());
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    renewal.lost();
    for _ in 0..8 {
        renewal.failed(start);
    }
    assert_eq!(renewal.poll(start), Action::Wait(Some(start + 5 * SECOND)));
    renewal.store_is_back();
    assert_eq!(renewal.poll(start), Action::Acquire);
}

#[test]
fn an_expired_or_lost_lease_is_acquired_again() {
    let start = Instant::now();
    let mut renewal = held(start);
    renewal.failed(start + 24 * HOUR - SECOND);
    assert_eq!(renewal.poll(start + 24 * HOUR), Action::Acquire);
    assert!(!renewal.holds());

    let mut renewal = held(start);
    assert!(renewal.lost());
    assert!(!renewal.lost());
    assert_eq!(renewal.poll(start), Action::Acquire);
}

#[test]
fn expiry_is_noticed_even_during_a_pause() {
    let start = Instant::now();
    let mut renewal = Renewal::new(SECOND);
    renewal.written(start, Some(10 * SECOND));
    for _ in 0..6 {
        renewal.failed(start + 9 * SECOND);
    }
    assert_eq!(
        renewal.poll(start + 9 * SECOND),
        Action::Wait(Some(start + 10 * SECOND))
    );
}

#[test]
fn a_reservation_waits_for_ever_until_there_is_something_to_publish() {
    let start = Instant::now();
    let mut renewal = Renewal::new(HOUR);
    renewal.written(start, None);
    assert_eq!(renewal.poll(start + 1000 * HOUR), Action::Wait(None));
    renewal.publish();
    assert_eq!(renewal.poll(start), Action::Renew);
    renewal.written(start, None);
    assert_eq!(renewal.poll(start), Action::Wait(None));
}
