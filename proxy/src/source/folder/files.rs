//! The files of a folder: a look at them, and the difference between two looks.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Folder;
use super::document::{self, Format, Manifest};
use crate::intern::Interner;
use crate::model::{Event, Kind, ObjectName};

/// A manifest that is larger than this is refused.
const LARGEST: u64 = 64 << 20;
/// A file changed so lately that a further change might not show in its time stamp.
const FRESH: Duration = Duration::from_secs(2);

/// By name. Shared, so that two looks can be compared.
pub(super) type Files = BTreeMap<Arc<str>, Arc<Content>>;

/// What a file said when it could last be read.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// `None`: it has never been read, or has to be read again at the next look.
    stamp: Option<Stamp>,
    /// Sorted by key. They are shared with the state.
    objects: Vec<Event>,
}

impl Content {
    fn find(&self, key: &Key) -> Option<&Event> {
        let by_key = |event: &Event| key_of(event).as_ref().cmp(&Some(key));
        let at = self.objects.binary_search_by(by_key).ok()?;
        self.objects.get(at)
    }
}

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    kind: Kind,
    /// `None` for the own Node.
    name: Option<ObjectName>,
}

/// Tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What a look has found.
#[derive(Debug, Default)]
pub(super) struct Look {
    pub(super) files: Files,
    /// A file may have changed again without a trace: look again soon.
    pub(super) unsettled: bool,
    /// Per file that was read or should have been: why it could not be, if so.
    pub(super) problems: Vec<(Arc<str>, Option<String>)>,
    /// Per file that was read: what of it was left out.
    pub(super) complaints: Vec<(Arc<str>, Vec<String>)>,
    /// Per file that was read: kinds that are no concern of ours.
    pub(super) ignored: Vec<(Arc<str>, Vec<String>)>,
}

/// Looks at the folder and reads the files that have changed since `before`. The error is why the
/// folder itself cannot be read.
pub(super) fn look(
    folder: &Folder,
    before: &Files,
    interner: &mut Interner,
) -> Result<Look, String> {
    let names = manifests(&folder.path).map_err(|error| error.to_string())?;
    Ok(look_at(folder, names, Look::default(), before, interner))
}

/// The same for these files only; of the others nothing is asked.
pub(super) fn look_at_some(
    folder: &Folder,
    names: &BTreeSet<Arc<str>>,
    before: &Files,
    interner: &mut Interner,
) -> Look {
    let mut look = Look {
        files: before.clone(),
        ..Look::default()
    };
    let is_there = |name: &Arc<str>| folder.path.join(&**name).symlink_metadata().is_ok();
    let (there, gone): (BTreeSet<_>, BTreeSet<_>) = names.iter().cloned().partition(is_there);
    for name in gone {
        look.files.remove(&name);
    }
    look_at(folder, there, look, before, interner)
}

fn look_at(
    folder: &Folder,
    names: BTreeSet<Arc<str>>,
    mut look: Look,
    before: &Files,
    interner: &mut Interner,
) -> Look {
    for name in names {
        let known = before.get(&name);
        match stamped(&folder.path.join(&*name)) {
            Err(problem) => look.keep(name, known, problem),
            Ok((file, stamp)) if known.is_none_or(|known| known.stamp != Some(stamp)) => {
                let manifest = read(folder, &name, &file, interner);
                let settled = stamp.settled(&file);
                look.take_in(name, known, manifest, settled);
            }
            Ok(_) => {
                let known = known.cloned().unwrap_or_default();
                look.files.insert(name, known);
            }
        }
    }
    for name in before.keys().filter(|name| !look.files.contains_key(*name)) {
        look.problems.push((name.clone(), None));
        look.complaints.push((name.clone(), Vec::new()));
        look.ignored.push((name.clone(), Vec::new()));
    }
    look
}

/// Names of manifests, sorted. Names with a dot in front are editors' and mounts' own; names that
/// are not UTF-8 cannot be named in a log and are none of ours.
fn manifests(folder: &Path) -> std::io::Result<BTreeSet<Arc<str>>> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        if let Some(name) = name.to_str().filter(|name| format_of(name).is_some()) {
            names.insert(name.into());
        }
    }
    Ok(names)
}

/// Whether a file of this name is read.
pub(super) fn is_manifest(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| format_of(name).is_some())
}

fn format_of(name: &str) -> Option<Format> {
    match name.rsplit_once('.')? {
        ("", _) => None,
        (stem, _) if stem.starts_with('.') => None,
        (_, "yaml" | "yml") => Some(Format::Yaml),
        (_, "json") => Some(Format::Json),
        _ => None,
    }
}

/// Opens a file without waiting for a writer (it may be a FIFO), and only then asks what it is.
fn stamped(path: &Path) -> Result<(File, Stamp), String> {
    let mut options = OpenOptions::new();
    let options = options.read(true).custom_flags(libc::O_NONBLOCK);
    let file = options.open(path).map_err(|error| error.to_string())?;
    let stamp = stamp(&file)?;
    if stamp.size > LARGEST {
        return Err(format!(
            "{} bytes are more than {LARGEST}; split it",
            stamp.size
        ));
    }
    Ok((file, stamp))
}

fn stamp(file: &File) -> Result<Stamp, String> {
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("not a regular file".to_owned());
    }
    Ok(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

fn read(
    folder: &Folder,
    name: &str,
    file: &File,
    interner: &mut Interner,
) -> Result<Manifest, String> {
    let format = format_of(name).unwrap_or(Format::Yaml);
    // It may grow while it is read.
    let input = BufReader::new(file.take(LARGEST));
    let mut manifest = document::read(input, format, &folder.node)?;
    for reduced in manifest.objects.iter_mut().flatten() {
        interner.event(&mut reduced.event);
    }
    Ok(manifest)
}

impl Stamp {
    /// The stamp of a file that has been read, unless the file may have changed meanwhile.
    fn settled(self, file: &File) -> Option<Self> {
        let same = stamp(file).is_ok_and(|now| now == self);
        (same && !self.is_fresh()).then_some(self)
    }

    /// Time stamps are coarse: what was written just now could be written once more within the same
    /// tick.
    fn is_fresh(&self) -> bool {
        let seconds = u64::try_from(self.changed.0.max(self.modified.0)).unwrap_or(0);
        let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        // A time to come is no proof of age either, but would make us look for ever.
        let age = SystemTime::now().duration_since(changed);
        age.is_ok_and(|age| age < FRESH)
    }
}

impl Look {
    fn keep(&mut self, name: Arc<str>, known: Option<&Arc<Content>>, problem: String) {
        let problem = format!("{problem}; what it said before, if anything, stays");
        self.problems.push((name.clone(), Some(problem)));
        self.files.insert(name, known.cloned().unwrap_or_default());
    }

    fn take_in(
        &mut self,
        name: Arc<str>,
        known: Option<&Arc<Content>>,
        manifest: Result<Manifest, String>,
        stamp: Option<Stamp>,
    ) {
        self.unsettled |= stamp.is_none();
        let manifest = match manifest {
            Ok(manifest) => manifest,
            Err(problem) => return self.keep(name, known, problem),
        };
        self.problems.push((name.clone(), None));
        let ignored = manifest.ignored.iter().cloned().collect();
        self.ignored.push((name.clone(), ignored));
        let (objects, complaints) = objects(manifest, known);
        self.complaints.push((name.clone(), complaints));
        self.files
            .insert(name, Arc::new(Content { stamp, objects }));
    }
}

/// By key, and what is to be complained of. An object that cannot be used stays as it was.
fn objects(manifest: Manifest, known: Option<&Arc<Content>>) -> (Vec<Event>, Vec<String>) {
    let mut objects = BTreeMap::new();
    let mut complaints = Vec::new();
    let mut kept = Vec::new();
    for object in manifest.objects {
        match object {
            Ok(reduced) => {
                complaints.extend(reduced.complaints);
                let Some(key) = key_of(&reduced.event) else {
                    continue;
                };
                match objects.entry(key) {
                    Entry::Vacant(entry) => {
                        entry.insert(reduced.event);
                    }
                    Entry::Occupied(entry) => {
                        complaints.push(format!("a second {} in this file is ignored", entry.key()))
                    }
                }
            }
            Err(unusable) => {
                complaints.push(unusable.to_string());
                kept.extend(unusable.object);
            }
        }
    }
    for (kind, name) in kept {
        let name = (kind != Kind::Node).then_some(name);
        let key = Key { kind, name };
        if let Some(before) = known.and_then(|known| known.find(&key)) {
            objects.entry(key).or_insert_with(|| before.clone());
        }
    }
    (objects.into_values().collect(), complaints)
}

fn key_of(event: &Event) -> Option<Key> {
    let (kind, name) = match event {
        Event::Service(service) => (Kind::Services, Some(service.name.clone())),
        Event::ServiceGone(name) => (Kind::Services, Some(name.clone())),
        Event::Slice(slice) => (Kind::Slices, Some(slice.name.clone())),
        Event::SliceGone(name) => (Kind::Slices, Some(name.clone())),
        Event::Node(_) => (Kind::Node, None),
        Event::ServiceCidrs(_) | Event::Restarted(_) | Event::Listed(_) => return None,
    };
    Some(Key { kind, name })
}

impl Key {
    /// What says that the object is no more.
    fn gone(self) -> Event {
        match (self.kind, self.name) {
            (Kind::Services, Some(name)) => Event::ServiceGone(name),
            (Kind::Slices, Some(name)) => Event::SliceGone(name),
            _ => Event::Node(None),
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            Kind::Services => "Service",
            Kind::Slices => "EndpointSlice",
            Kind::Node => "Node",
        };
        match &self.name {
            Some(name) => write!(out, "{kind} {name}"),
            None => write!(out, "{kind} of this machine"),
        }
    }
}

/// What has changed from one look to the next, and which objects are in several files: the first
/// file by name has it.
pub(super) fn plan(before: &Files, after: &Files) -> (Vec<Event>, Vec<String>) {
    let mut doubles = Vec::new();
    let mut old = owned(before, |_, _, _| {});
    let new = owned(after, |key, first, second| {
        doubles.push(format!(
            "{key} is in {first} and in {second}; the former counts"
        ));
    });
    let mut news = Vec::new();
    for (key, (_, event)) in new {
        match old.remove(&key) {
            Some((_, known)) if std::ptr::eq(known, event) || known == event => {}
            _ => news.push(event.clone()),
        }
    }
    news.extend(old.into_keys().map(Key::gone));
    (news, doubles)
}

/// The same where only these files can differ: `None` if one of their objects is in another file too,
/// which takes a look at all of them.
pub(super) fn plan_some(
    before: &Files,
    after: &Files,
    names: &BTreeSet<Arc<str>>,
) -> Option<Vec<Event>> {
    let of = |files: &Files| -> Option<BTreeMap<Key, Event>> {
        let mut all = BTreeMap::new();
        for content in names.iter().filter_map(|name| files.get(name)) {
            for event in &content.objects {
                if all.insert(key_of(event)?, event.clone()).is_some() {
                    return None;
                }
            }
        }
        Some(all)
    };
    let (mut old, new) = (of(before)?, of(after)?);
    let others = after.iter().filter(|(name, _)| !names.contains(*name));
    for (_, content) in others {
        if old
            .keys()
            .chain(new.keys())
            .any(|key| content.find(key).is_some())
        {
            return None;
        }
    }
    let mut news = Vec::new();
    for (key, event) in new {
        if old.remove(&key).as_ref() != Some(&event) {
            news.push(event);
        }
    }
    news.extend(old.into_keys().map(Key::gone));
    Some(news)
}

/// Each object with the file that has it.
fn owned(files: &Files, mut double: impl FnMut(&Key, &str, &str)) -> BTreeMap<Key, (&str, &Event)> {
    let mut owned = BTreeMap::<Key, (&str, &Event)>::new();
    for (name, content) in files {
        for event in &content.objects {
            let Some(key) = key_of(event) else {
                continue;
            };
            match owned.entry(key) {
                Entry::Vacant(entry) => {
                    entry.insert((name, event));
                }
                Entry::Occupied(entry) => double(entry.key(), entry.get().0, name),
            }
        }
    }
    owned
}
