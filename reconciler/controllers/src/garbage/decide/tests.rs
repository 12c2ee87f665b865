use std::collections::{BTreeMap, BTreeSet, VecDeque};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::garbage::graph::{Graph, Object, Uid};

fn owned(uids: &[&str]) -> ObjectMeta {
    let owner = |uid: &&str| OwnerReference {
        uid: (*uid).to_owned(),
        block_owner_deletion: Some(true),
        ..OwnerReference::default()
    };
    ObjectMeta {
        owner_references: Some(uids.iter().map(owner).collect()),
        ..ObjectMeta::default()
    }
}

fn deleted(finalizer: Option<&str>) -> ObjectMeta {
    ObjectMeta {
        deletion_timestamp: Some(Time(Timestamp::UNIX_EPOCH)),
        finalizers: finalizer.map(|name| vec![name.to_owned()]),
        ..ObjectMeta::default()
    }
}

const BLOCKS: Dependent = Dependent {
    blocks: true,
    deleting: None,
};

#[test]
fn an_object_lives_as_long_as_one_owner() {
    let two = owned(&["a", "b"]);
    let of = |owners: [Owner; 2]| decide(&two, &owners, &[]);
    assert_eq!(of([Owner::Present, Owner::Present]), Action::Nothing);
    assert_eq!(
        of([Owner::Present, Owner::Absent]),
        Action::Disown(vec!["b".into()])
    );
    assert_eq!(
        of([Owner::Waiting, Owner::Present]),
        Action::Disown(vec!["a".into()])
    );
    assert_eq!(of([Owner::Absent, Owner::Unknown]), Action::Nothing);
    assert_eq!(
        of([Owner::Absent, Owner::Absent]),
        Action::Delete(Deleting::Background)
    );
    assert_eq!(
        of([Owner::Absent, Owner::Waiting]),
        Action::Delete(Deleting::Background)
    );
    assert_eq!(decide(&ObjectMeta::default(), &[], &[]), Action::Nothing);
}

#[test]
fn foreground_waits_for_what_blocks_and_goes_down() {
    assert_eq!(
        decide(&deleted(Some("foregroundDeletion")), &[], &[BLOCKS]),
        Action::Descend
    );
    let free = Dependent {
        blocks: false,
        ..BLOCKS
    };
    assert_eq!(
        decide(&deleted(Some("foregroundDeletion")), &[], &[free]),
        Action::Release
    );
    assert_eq!(
        decide(&deleted(Some("orphan")), &[], &[BLOCKS]),
        Action::Orphan
    );
    assert_eq!(decide(&deleted(None), &[], &[BLOCKS]), Action::Nothing);
    let child = owned(&["a"]);
    assert_eq!(
        decide(&child, &[Owner::Waiting], &[BLOCKS]),
        Action::Delete(Deleting::Foreground)
    );
    let circle = Dependent {
        deleting: Some(Deleting::Foreground),
        ..BLOCKS
    };
    assert_eq!(
        decide(&child, &[Owner::Waiting], &[circle]),
        Action::UnblockAndDelete
    );
}

#[test]
fn the_own_finalizers_say_how_an_object_is_deleted_for_its_owners() {
    let mut child = owned(&["a"]);
    child.finalizers = Some(vec!["orphan".into()]);
    assert_eq!(
        decide(&child, &[Owner::Absent], &[]),
        Action::Delete(Deleting::Orphan)
    );
}

/// A server with objects of three kinds, whose watches are read late, each in its order.
#[derive(Default)]
struct World {
    objects: BTreeMap<String, (usize, ObjectMeta)>,
    watches: [VecDeque<(String, Option<ObjectMeta>)>; 3],
    graph: Graph,
    queue: BTreeSet<Uid>,
    made: usize,
    /// Those that lived on an owner which was let go of.
    revision: usize,
}

impl World {
    fn told(&mut self, uid: &str) {
        let Some((kind, metadata)) = self.objects.get_mut(uid) else {
            return;
        };
        let held = metadata
            .finalizers
            .as_ref()
            .is_some_and(|names| !names.is_empty());
        self.revision += 1;
        metadata.resource_version = Some(self.revision.to_string());
        if metadata.deletion_timestamp.is_some() && !held {
            self.watches[*kind].push_back((uid.to_owned(), None));
            self.objects.remove(uid);
        } else {
            self.watches[*kind].push_back((uid.to_owned(), Some(metadata.clone())));
        }
    }

    fn create(&mut self, kind: usize, owners: &[usize]) {
        let uid = format!("u{}", self.made);
        self.made += 1;
        let owners: BTreeSet<_> = owners.iter().map(|owner| format!("u{owner}")).collect();
        // Clients name owners that are there.
        let owners: Vec<&str> = owners
            .iter()
            .map(String::as_str)
            .filter(|uid| self.objects.contains_key(*uid))
            .collect();
        let mut metadata = owned(&owners);
        metadata.uid = Some(uid.clone());
        metadata.name = Some(uid.clone());
        self.objects.insert(uid.clone(), (kind, metadata));
        self.told(&uid);
    }

    fn delete(&mut self, uid: &str, how: Deleting) {
        let Some((_, metadata)) = self.objects.get_mut(uid) else {
            return;
        };
        metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        let name = match how {
            Deleting::Background => None,
            Deleting::Foreground => Some(graph::FOREGROUND),
            Deleting::Orphan => Some(graph::ORPHAN),
        };
        metadata.finalizers = name.map(|name| vec![name.to_owned()]);
        self.told(uid);
    }

    /// One change of a kind is observed.
    fn hear(&mut self, kind: usize) -> bool {
        let Some((uid, metadata)) = self.watches[kind].pop_front() else {
            return false;
        };
        let look = match metadata {
            Some(metadata) => self
                .graph
                .observe(uid.as_str().into(), Object::new(kind, &metadata)),
            None => self.graph.gone(&uid),
        };
        self.queue.extend(look);
        true
    }

    /// One object is looked at, as `act` does.
    fn look(&mut self, which: usize) -> bool {
        let Some(uid) = self
            .queue
            .iter()
            .nth(which % self.queue.len().max(1))
            .cloned()
        else {
            return false;
        };
        self.queue.remove(&uid);
        let Some((_, metadata)) = self.objects.get(&*uid).cloned() else {
            return true;
        };
        if self.graph.get(&uid).is_none() {
            return true;
        }
        let state = |owner: &OwnerReference| {
            let known = self.graph.get(&owner.uid).map(|owner| owner.deleting);
            let live = || {
                self.objects
                    .get(&owner.uid)
                    .map(|(_, owner)| graph::deleting(owner))
            };
            match known.or_else(live) {
                None => Owner::Absent,
                Some(Some(Deleting::Foreground)) => Owner::Waiting,
                Some(_) => Owner::Present,
            }
        };
        let owners: Vec<_> = metadata
            .owner_references
            .iter()
            .flatten()
            .map(state)
            .collect();
        let (uids, dependents): (Vec<_>, Vec<_>) = self
            .graph
            .dependents(&uid)
            .map(|(own, dependent)| {
                let blocks = dependent
                    .owners
                    .iter()
                    .any(|(owner, blocks)| *owner == uid && *blocks);
                (
                    own.clone(),
                    Dependent {
                        blocks,
                        deleting: dependent.deleting,
                    },
                )
            })
            .unzip();
        match decide(&metadata, &owners, &dependents) {
            Action::Nothing => {}
            Action::Descend => {
                let going = uids.into_iter().zip(dependents);
                self.queue.extend(
                    going
                        .filter(|(_, one)| one.deleting.is_none())
                        .map(|(uid, _)| uid),
                );
            }
            Action::Delete(how) => self.delete(&uid, how),
            Action::UnblockAndDelete => {
                let (_, metadata) = self.objects.get_mut(&*uid).unwrap();
                for owner in metadata.owner_references.iter_mut().flatten() {
                    owner.block_owner_deletion = Some(false);
                }
                self.told(&uid);
                self.delete(&uid, Deleting::Foreground);
            }
            Action::Disown(lost) => self.disown(&uid, &lost),
            Action::Orphan => {
                for dependent in uids {
                    self.disown(&dependent, &[uid.to_string()]);
                }
                self.release(&uid);
            }
            Action::Release => self.release(&uid),
        }
        true
    }

    fn disown(&mut self, uid: &str, lost: &[String]) {
        if let Some((_, metadata)) = self.objects.get_mut(uid) {
            metadata
                .owner_references
                .iter_mut()
                .for_each(|owners| owners.retain(|owner| !lost.contains(&owner.uid)));
            self.told(uid);
        }
    }

    fn release(&mut self, uid: &str) {
        if let Some((_, metadata)) = self.objects.get_mut(uid) {
            metadata.finalizers = None;
            self.told(uid);
        }
    }

    fn settle(&mut self) {
        for _ in 0..100_000 {
            let heard = (0..3).any(|kind| self.hear(kind));
            if !heard && !self.look(0) {
                return;
            }
        }
        panic!("it does not end");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Create(usize, Vec<usize>),
    Delete(usize, Deleting),
    Hear(usize),
    Look(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let how = prop_oneof![Just(Deleting::Background), Just(Deleting::Foreground)];
    prop_oneof![
        3 => (0_usize..3, prop::collection::vec(0_usize..12, 0..3)).prop_map(|(kind, owners)| Step::Create(kind, owners)),
        2 => (0_usize..12, how).prop_map(|(which, how)| Step::Delete(which, how)),
        4 => (0_usize..3).prop_map(Step::Hear),
        4 => (0_usize..8).prop_map(Step::Look),
    ]
}

proptest! {
    /// Whatever the order in which things are made, deleted and observed: in the end exactly those are gone that were
    /// deleted or have lost all their owners.
    #[test]
    fn exactly_what_has_lost_all_owners_is_gone(steps in prop::collection::vec(step(), 0..60)) {
        let mut world = World::default();
        let mut owners: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut deleted = BTreeSet::new();
        for step in steps {
            match step {
                Step::Create(kind, of) => {
                    world.create(kind, &of);
                    let uid = format!("u{}", world.made - 1);
                    let (_, metadata) = &world.objects[&uid];
                    let of = metadata.owner_references.iter().flatten().map(|owner| owner.uid.clone());
                    owners.insert(uid, of.collect());
                }
                Step::Delete(which, how) => {
                    let uid = format!("u{which}");
                    if world.objects.contains_key(&uid) {
                        deleted.insert(uid.clone());
                        world.delete(&uid, how);
                    }
                }
                Step::Hear(kind) => { world.hear(kind); }
                Step::Look(which) => { world.look(which); }
            }
        }
        world.settle();
        // Owners are older than what they own: one pass tells who lives.
        let mut alive = BTreeSet::new();
        for number in 0..world.made {
            let uid = format!("u{number}");
            let lives = !deleted.contains(&uid)
                && (owners[&uid].is_empty() || owners[&uid].iter().any(|owner| alive.contains(owner)));
            if lives {
                alive.insert(uid);
            }
        }
        let there: BTreeSet<_> = world.objects.keys().cloned().collect();
        prop_assert_eq!(there, alive);
    }

    /// What an orphan's parent owned, and was observed, lives on.
    #[test]
    fn orphans_live_on(count in 1_usize..8, order in prop::collection::vec(0_usize..8, 0..30)) {
        let mut world = World::default();
        world.create(0, &[]);
        for _ in 0..count {
            world.create(1, &[0]);
        }
        while (0..3).any(|kind| world.hear(kind)) {}
        world.delete("u0", Deleting::Orphan);
        for which in order {
            if which % 2 == 0 { world.hear(which / 2 % 3); } else { world.look(which); }
        }
        world.settle();
        prop_assert_eq!(world.objects.len(), count);
        let owned = world.objects.values().any(|(_, metadata)| metadata.owner_references.iter().flatten().count() > 0);
        prop_assert!(!owned);
    }
}

#[test]
fn a_circle_that_is_deleted_in_the_foreground_ends() {
    let mut world = World::default();
    for _ in 0..3 {
        world.create(0, &[]);
    }
    for number in 0..3 {
        let (_, metadata) = world.objects.get_mut(&format!("u{number}")).unwrap();
        metadata.owner_references =
            owned(&[format!("u{}", (number + 1) % 3).as_str()]).owner_references;
        world.told(&format!("u{number}"));
    }
    world.settle();
    assert_eq!(world.objects.len(), 3);
    world.delete("u0", Deleting::Foreground);
    world.settle();
    assert!(world.objects.is_empty(), "{:?}", world.objects.keys());
}
