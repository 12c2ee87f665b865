use super::*;
use proptest::prelude::*;

#[test]
fn an_entry_lives_as_long_as_it_is_used() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut map = Aging::new(8, Duration::from_secs(10));
    assert_eq!(map.deadline(), None);
    map.insert("a", 1, at(0));
    map.insert("b", 2, at(1));
    assert_eq!(map.touch(&"a", at(9)), Some(&mut 1));
    assert_eq!(map.expire(at(10)), None);
    assert_eq!(
        map.touch(&"b", at(11)),
        None,
        "due, so it is not handed out"
    );
    assert_eq!(map.expire(at(11)), Some(2));
    assert_eq!(map.expire(at(18)), None);
    assert_eq!(map.expire(at(19)), Some(1));
    assert_eq!(map.deadline(), None);
}

#[test]
fn a_full_map_forgets_the_least_recently_used() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut map = Aging::new(2, Duration::from_secs(100));
    map.insert("a", 1, at(0));
    map.insert("b", 2, at(1));
    map.touch(&"a", at(2));
    assert_eq!(map.insert("c", 3, at(3)), Some(2));
    assert_eq!(map.insert("c", 4, at(4)), Some(3), "its own former value");
    assert_eq!(map.touch(&"a", at(5)), Some(&mut 1));
}

/// The same, written as plainly as can be.
#[derive(Default)]
struct Model(Vec<(u8, u16, Instant)>);

proptest! {
    #[test]
    fn it_does_as_a_plain_list_would(
        steps in prop::collection::vec((0_u8..5, 0_u8..12, 0_u64..30), 1..200)
    ) {
        const LIMIT: usize = 5;
        let timeout = Duration::from_secs(60);
        let mut map = Aging::new(LIMIT, timeout);
        let mut model = Model::default();
        let mut now = Instant::now();
        for (value, (what, key, pause)) in steps.into_iter().enumerate() {
            // Strictly later each time, so that there is always one oldest.
            now += Duration::from_secs(pause) + Duration::from_nanos(1);
            let value = value as u16;
            match what {
                0 | 1 => {
                    let place = model.0.iter().position(|(k, ..)| *k == key).or_else(|| {
                        let full = model.0.len() == LIMIT;
                        full.then(|| (0..LIMIT).min_by_key(|at| model.0[*at].2)).flatten()
                    });
                    let gone = place.map(|at| model.0.remove(at).1);
                    model.0.push((key, value, now));
                    prop_assert_eq!(map.insert(key, value, now), gone);
                }
                2 => {
                    let entry = model.0.iter_mut().find(|(k, _, used)| *k == key && now - *used < timeout);
                    let expected = entry.map(|entry| { entry.2 = now; entry.1 });
                    prop_assert_eq!(map.touch(&key, now).copied(), expected);
                }
                3 => {
                    let mut due: Vec<_> = model.0.iter().filter(|e| now - e.2 >= timeout).copied().collect();
                    due.sort_by_key(|entry| entry.2);
                    model.0.retain(|e| now - e.2 < timeout);
                    let mut found = Vec::new();
                    while let Some(value) = map.expire(now) {
                        found.push(value);
                    }
                    prop_assert_eq!(found, due.into_iter().map(|e| e.1).collect::<Vec<_>>());
                }
                _ => {
                    let mut gone: Vec<_> = model.0.iter().filter(|e| e.0 % 3 == key % 3).map(|e| e.1).collect();
                    model.0.retain(|e| e.0 % 3 != key % 3);
                    let mut found = map.extract(|k, _| k % 3 == key % 3);
                    gone.sort_unstable();
                    found.sort_unstable();
                    prop_assert_eq!(found, gone);
                }
            }
            let earliest = model.0.iter().map(|e| e.2 + timeout).min();
            prop_assert_eq!(map.deadline().is_some(), earliest.is_some());
            prop_assert!(map.deadline() <= earliest);
        }
    }
}
