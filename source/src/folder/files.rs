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
use crate::Consumer;

/// A manifest that is larger than this is refused.
const LARGEST: u64 = 64 << 20;
/// A file changed so lately that a further change might not show in its time stamp.
const FRESH: Duration = Duration::from_secs(2);

/// By name. Shared, so that two looks can be compared.
pub(super) type Files<C> = BTreeMap<Arc<str>, Arc<Content<C>>>;

/// What a file said when it could last be read.
pub(super) struct Content<C: Consumer> {
    /// `None`: it has never been read, or has to be read again at the next look.
    stamp: Option<Stamp>,
    /// Sorted by key.
    objects: Vec<C::Event>,
}

impl<C: Consumer> Default for Content<C> {
    fn default() -> Self {
        Self {
            stamp: None,
            objects: Vec::new(),
        }
    }
}

impl<C: Consumer> Content<C> {
    fn find(&self, key: &C::Key) -> Option<&C::Event> {
        let by_key = |event: &C::Event| C::key_of(event).as_ref().cmp(&Some(key));
        let at = self.objects.binary_search_by(by_key).ok()?;
        self.objects.get(at)
    }
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
pub(super) struct Look<C: Consumer> {
    pub(super) files: Files<C>,
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
pub(super) fn look<C: Consumer>(
    folder: &Folder<C>,
    before: &Files<C>,
    interner: &mut C::Interner,
) -> Result<Look<C>, String> {
    let names = manifests(&folder.path).map_err(|error| error.to_string())?;
    let look = Look::at(Files::<C>::default());
    Ok(look_at(folder, names, look, before, interner))
}

/// The same for these files only; of the others nothing is asked.
pub(super) fn look_at_some<C: Consumer>(
    folder: &Folder<C>,
    names: &BTreeSet<Arc<str>>,
    before: &Files<C>,
    interner: &mut C::Interner,
) -> Look<C> {
    let mut look = Look::at(before.clone());
    let is_there = |name: &Arc<str>| folder.path.join(&**name).symlink_metadata().is_ok();
    let (there, gone): (BTreeSet<_>, BTreeSet<_>) = names.iter().cloned().partition(is_there);
    for name in gone {
        look.files.remove(&name);
    }
    look_at(folder, there, look, before, interner)
}

fn look_at<C: Consumer>(
    folder: &Folder<C>,
    names: BTreeSet<Arc<str>>,
    mut look: Look<C>,
    before: &Files<C>,
    interner: &mut C::Interner,
) -> Look<C> {
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

fn read<C: Consumer>(
    folder: &Folder<C>,
    name: &str,
    file: &File,
    interner: &mut C::Interner,
) -> Result<Manifest<C>, String> {
    let format = format_of(name).unwrap_or(Format::Yaml);
    // It may grow while it is read.
    let input = BufReader::new(file.take(LARGEST));
    let mut manifest = document::read(input, format, &folder.consumer)?;
    for reduced in manifest.objects.iter_mut().flatten() {
        C::intern(interner, &mut reduced.event);
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

impl<C: Consumer> Look<C> {
    /// Before anything was looked at.
    fn at(files: Files<C>) -> Self {
        Self {
            files,
            unsettled: false,
            problems: Vec::new(),
            complaints: Vec::new(),
            ignored: Vec::new(),
        }
    }

    fn keep(&mut self, name: Arc<str>, known: Option<&Arc<Content<C>>>, problem: String) {
        let problem = format!("{problem}; what it said before, if anything, stays");
        self.problems.push((name.clone(), Some(problem)));
        self.files.insert(name, known.cloned().unwrap_or_default());
    }

    fn take_in(
        &mut self,
        name: Arc<str>,
        known: Option<&Arc<Content<C>>>,
        manifest: Result<Manifest<C>, String>,
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
fn objects<C: Consumer>(
    manifest: Manifest<C>,
    known: Option<&Arc<Content<C>>>,
) -> (Vec<C::Event>, Vec<String>) {
    let mut objects = BTreeMap::new();
    let mut complaints = Vec::new();
    let mut kept = Vec::new();
    for object in manifest.objects {
        match object {
            Ok(reduced) => {
                complaints.extend(reduced.complaints);
                let Some(key) = C::key_of(&reduced.event) else {
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
    for key in kept {
        if let Some(before) = known.and_then(|known| known.find(&key)) {
            objects.entry(key).or_insert_with(|| before.clone());
        }
    }
    (objects.into_values().collect(), complaints)
}

/// What has changed from one look to the next, and which objects are in several files: the first
/// file by name has it.
pub(super) fn plan<C: Consumer>(
    before: &Files<C>,
    after: &Files<C>,
) -> (Vec<C::Event>, Vec<String>) {
    let mut doubles = Vec::new();
    let mut old = owned::<C>(before, |_, _, _| {});
    let new = owned::<C>(after, |key, first, second| {
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
    news.extend(old.into_keys().map(C::gone));
    (news, doubles)
}

/// The same where only these files can differ: `None` if one of their objects is in another file too,
/// which takes a look at all of them.
pub(super) fn plan_some<C: Consumer>(
    before: &Files<C>,
    after: &Files<C>,
    names: &BTreeSet<Arc<str>>,
) -> Option<Vec<C::Event>> {
    let of = |files: &Files<C>| -> Option<BTreeMap<C::Key, C::Event>> {
        let mut all = BTreeMap::new();
        for content in names.iter().filter_map(|name| files.get(name)) {
            for event in &content.objects {
                if all.insert(C::key_of(event)?, event.clone()).is_some() {
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
    news.extend(old.into_keys().map(C::gone));
    Some(news)
}

/// Each object with the file that has it.
fn owned<C: Consumer>(
    files: &Files<C>,
    mut double: impl FnMut(&C::Key, &str, &str),
) -> BTreeMap<C::Key, (&str, &C::Event)> {
    let mut owned = BTreeMap::<C::Key, (&str, &C::Event)>::new();
    for (name, content) in files {
        for event in &content.objects {
            let Some(key) = C::key_of(event) else {
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
