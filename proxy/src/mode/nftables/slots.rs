//! Which endpoint is in which slot.
//!
//! A packet draws a slot number, and `front . slot` is looked up. The rules' modulus must be a
//! constant, so there is a chain for each size that a list may have:
//! - up to [`EXACT`] endpoints there are as many slots as endpoints: every endpoint is as likely as
//!   any other;
//! - above, the size is the next power of two and the slots behind the last endpoint are empty. A
//!   packet that draws an empty one draws again, up to [`TRIES`] times, at last from half the size,
//!   which is full. Less than half is empty, so the last draw is needed once in 2^[`TRIES`] packets
//!   at most, and no endpoint gets more than 1/63 (1.6 %) above another's share ([`imbalance`]).
//!
//! So a list costs as many elements as it has endpoints, and one endpoint more or less is one
//! element, or two ([`reslot`]).
//!
//! Where the client's address decides (session affinity by hash) an empty slot would always be empty
//! for the same client. There the table is full, eight slots or more for an endpoint, filled as
//! Maglev does (Eisenbud et al., NSDI 2016, section 3.4): all nodes agree, shares differ by 1/8 at
//! most, and few clients move when the endpoints change ([`hashed`]).

use std::collections::BTreeSet;
use std::net::IpAddr;

/// Address and port of an endpoint.
pub type Target = (IpAddr, u16);

/// Up to here each number of endpoints has a size of its own.
pub const EXACT: u32 = 16;
/// The most endpoints of one list; those beyond get no connections.
pub const MOST: u32 = 131_072;
/// How often a packet draws from a size above [`EXACT`].
pub const TRIES: u32 = 6;
/// The largest table of hashed slots.
const HASH_MOST: u32 = 1 << 20;
const HASH_LEAST: u32 = 64;
const HASH_EACH: u32 = 8;

/// All sizes, for the rules.
pub fn sizes() -> impl Iterator<Item = u32> {
    let doubled = std::iter::successors(Some(EXACT * 2), |size| Some(size * 2));
    (1..=EXACT).chain(doubled.take_while(|size| *size <= MOST))
}

/// The size for so many endpoints, which must be 1 … [`MOST`].
pub fn size_for(endpoints: usize) -> u32 {
    let count = u32::try_from(endpoints).unwrap_or(MOST).min(MOST);
    match count {
        ..=EXACT => count,
        _ => count.next_power_of_two(),
    }
}

/// All sizes of hashed tables.
pub fn hash_sizes() -> impl Iterator<Item = u32> {
    std::iter::successors(Some(HASH_LEAST), |size| Some(size * 2))
        .take_while(|size| *size <= HASH_MOST)
}

/// The size of the hashed table for so many endpoints.
pub fn hash_size_for(endpoints: usize) -> u32 {
    let count = u32::try_from(endpoints).unwrap_or(MOST).min(MOST);
    (count * HASH_EACH)
        .next_power_of_two()
        .clamp(HASH_LEAST, HASH_MOST)
}

/// How much more often the most likely of so many endpoints is drawn than the least likely one, as a
/// ratio (1 = even).
pub fn imbalance(endpoints: usize) -> f64 {
    let size = size_for(endpoints);
    if size <= EXACT {
        return 1.0;
    }
    let count = endpoints as f64;
    let missed = (1.0 - count / f64::from(size)).powi(TRIES as i32);
    let drawn = (1.0 - missed) / count;
    (drawn + missed / f64::from(size / 2)) / drawn
}

/// The new slots: as few as possible differ from `previous`. `wanted` is sorted and has no double;
/// the result has each of them once. Who leaves is replaced by who comes, then by the last ones.
pub fn reslot(previous: &[Target], wanted: &[Target]) -> Vec<Target> {
    let mut coming: BTreeSet<Target> = wanted.iter().copied().collect();
    if previous.is_empty() {
        return wanted.to_vec();
    }
    let mut slots: Vec<Option<Target>> = previous
        .iter()
        .map(|target| coming.remove(target).then_some(*target))
        .collect();
    let mut coming = coming.into_iter();
    for slot in slots.iter_mut().filter(|slot| slot.is_none()) {
        *slot = coming.next();
    }
    slots.extend(coming.map(Some));
    // Close the gaps from the end.
    let mut filled = Vec::with_capacity(wanted.len());
    let mut at = 0;
    while at < slots.len() {
        match slots[at] {
            Some(target) => filled.push(target),
            None => {
                while let Some(None) = slots.last() {
                    slots.pop();
                }
                if at < slots.len()
                    && let Some(Some(last)) = slots.pop()
                {
                    filled.push(last);
                }
            }
        }
        at += 1;
    }
    filled
}

/// A full table of `size` slots, a power of two: each endpoint has the same number of them, or one
/// more. Depends on nothing but its arguments.
pub fn hashed(wanted: &[Target], size: u32) -> Vec<Target> {
    let mask = u64::from(size) - 1;
    // An odd step visits every slot of a table whose size is a power of two.
    let mut walks: Vec<(u64, u64)> = wanted
        .iter()
        .map(|target| (digest(target, 1) & mask, digest(target, 2) & mask | 1))
        .collect();
    let mut table: Vec<Option<Target>> = vec![None; size as usize];
    let mut left = if wanted.is_empty() { 0 } else { table.len() };
    while left > 0 {
        for (target, (at, step)) in wanted.iter().zip(&mut walks) {
            if left == 0 {
                break;
            }
            while table[*at as usize].is_some() {
                *at = (*at + *step) & mask;
            }
            table[*at as usize] = Some(*target);
            left -= 1;
        }
    }
    table.into_iter().flatten().collect()
}

/// FNV-1a with a final mix (splitmix64): the same on every node and in every release.
fn digest(target: &Target, salt: u8) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut eat = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    eat(salt);
    match target.0 {
        IpAddr::V4(ip) => ip.octets().into_iter().for_each(&mut eat),
        IpAddr::V6(ip) => ip.octets().into_iter().for_each(&mut eat),
    }
    target.1.to_be_bytes().into_iter().for_each(&mut eat);
    let mixed = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn targets(numbers: impl IntoIterator<Item = u32>) -> Vec<Target> {
        let target = |n: u32| (IpAddr::from((0x0a00_0000 + n).to_be_bytes()), 8080);
        numbers.into_iter().map(target).collect()
    }

    #[test]
    fn sizes_are_few_and_each_count_has_one() {
        let all: Vec<u32> = sizes().collect();
        assert_eq!(all.len(), 29);
        for count in [1, 5, 16, 17, 32, 33, 1000, 100_000, 131_072, 200_000] {
            assert!(all.contains(&size_for(count)), "{count}");
            assert!(hash_sizes().any(|size| size == hash_size_for(count)));
        }
        assert_eq!((size_for(16), size_for(17), size_for(33)), (16, 32, 64));
    }

    #[test]
    fn no_endpoint_is_favoured_by_more_than_the_bound() {
        for count in 1..2000 {
            assert!(imbalance(count) <= 1.0 + 1.0 / 62.0, "{count}");
        }
        assert!(imbalance(100_000) <= 1.0 + 1.0 / 62.0);
    }

    #[test]
    fn one_that_leaves_is_one_slot_and_the_last() {
        let before = targets(0..6);
        let after = reslot(&before, &targets([0, 1, 3, 4, 5]));
        assert_eq!(after, targets([0, 1, 5, 3, 4]));
        assert_eq!(
            reslot(&after, &targets([0, 1, 3, 4, 5, 9])),
            targets([0, 1, 5, 3, 4, 9])
        );
        assert_eq!(
            reslot(&before, &targets([0, 1, 2, 3, 4, 9])),
            targets([0, 1, 2, 3, 4, 9])
        );
        assert_eq!(reslot(&before, &[]), []);
    }

    #[test]
    fn hashed_tables_are_even_and_move_few() {
        for count in [1, 2, 3, 7, 50, 300] {
            let all = targets(0..count);
            let size = hash_size_for(all.len());
            let table = hashed(&all, size);
            assert_eq!(table.len(), size as usize);
            let mut shares: BTreeMap<Target, u32> = BTreeMap::new();
            for target in &table {
                *shares.entry(*target).or_default() += 1;
            }
            let (least, most) = (
                shares.values().min().unwrap(),
                shares.values().max().unwrap(),
            );
            assert_eq!(shares.len(), all.len());
            assert!(most - least <= 1, "{count}: {least} {most}");
            if count > 2 {
                let fewer = hashed(&all[1..], size);
                let others = |(a, b): (&Target, &Target)| *a != all[0] && a != b;
                let moved = table
                    .iter()
                    .zip(&fewer)
                    .filter(|pair| others(*pair))
                    .count();
                assert!(
                    moved * 100 <= table.len() * 25,
                    "{count}: {moved} of {size}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn slots_hold_each_endpoint_once_and_few_move(
            before in prop::collection::btree_set(0u32..60, 0..40),
            after in prop::collection::btree_set(0u32..60, 0..40),
        ) {
            let (before, after) = (targets(before), targets(after));
            let slots = reslot(&before, &after);
            let mut sorted = slots.clone();
            sorted.sort();
            prop_assert_eq!(&sorted, &after);
            let gone = before.iter().filter(|target| !after.contains(target)).count();
            let new = after.iter().filter(|target| !before.contains(target)).count();
            let moved = before.iter().zip(&slots).filter(|(a, b)| a != b).count();
            prop_assert!(moved <= gone.max(new), "{} moved, {} gone, {} new", moved, gone, new);
        }
    }
}
