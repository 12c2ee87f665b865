//! Whole ones come back, all others are named.

use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::model::Kind;
use crate::zone::tests::samples::event;
use crate::zone::tests::{cluster, settings, zone_of};

const HOUR: Duration = Duration::from_secs(3600);

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// A snapshot of the sample cluster, taken at 1000 s.
fn written() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("state/dns.snapshot");
    write(&zone_of(settings(), cluster()), &path, at(1000)).unwrap();
    (folder, path)
}

fn refused(path: &Path, now: u64) -> String {
    read(path, at(now), HOUR).unwrap_err().to_string()
}

/// As the test's own zone has it, whatever the order in the store.
fn sorted(zone: &Zone) -> Vec<String> {
    let mut told: Vec<_> = zone.told().map(|event| format!("{event:?}")).collect();
    told.sort_unstable();
    told
}

#[test]
fn what_was_written_is_read() {
    let (folder, path) = written();
    let Snapshot { events, age } = read(&path, at(1030), HOUR).unwrap().unwrap();
    assert_eq!(age, Duration::from_secs(30));
    let zone = zone_of(settings(), events);
    assert!(zone.is_complete());
    assert_eq!(sorted(&zone), sorted(&zone_of(settings(), cluster())));
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    // Another one takes its place, also after one that was cut off.
    fs::write(folder.path().join("state/dns.snapshot.new"), "half").unwrap();
    write(
        &zone_of(settings(), vec![Event::Listed(Kind::Pods)]),
        &path,
        at(2000),
    )
    .unwrap();
    let snapshot = read(&path, at(2000), HOUR).unwrap().unwrap();
    assert_eq!(snapshot.events, [Event::Listed(Kind::Pods)]);
    assert_eq!(
        fs::read_dir(folder.path().join("state")).unwrap().count(),
        1
    );
}

#[test]
fn none_is_no_error() {
    let folder = TempDir::new().unwrap();
    assert!(
        read(&folder.path().join("none"), at(0), HOUR)
            .unwrap()
            .is_none()
    );
}

#[test]
fn old_ones_and_those_of_the_future_are_refused() {
    let (_folder, path) = written();
    let shown = path.display();
    assert!(read(&path, at(1000 + 3600), HOUR).is_ok());
    assert_eq!(
        refused(&path, 1000 + 3601),
        format!("snapshot {shown} is ignored: it is 3601 s old, and 3600 s are allowed")
    );
    assert_eq!(
        read(&path, at(950), HOUR).unwrap().unwrap().age,
        Duration::ZERO
    );
    assert_eq!(
        refused(&path, 900),
        format!(
            "snapshot {shown} is ignored: it was written 100 s from now; was the clock set back?"
        )
    );
}

#[test]
fn damage_is_named() {
    let (_folder, path) = written();
    let whole = fs::read_to_string(&path).unwrap();
    let lines = whole.lines().count();
    let cases: [(&str, String, usize, &str); 9] = [
        ("empty", String::new(), 1, "the file ends in the middle"),
        (
            "no snapshot",
            "hello\n".to_owned(),
            1,
            "expected value at line 1 column 1",
        ),
        (
            "another version",
            whole.replace("\"version\":1", "\"version\":2"),
            1,
            "version 2 is not known, only 1",
        ),
        (
            "another format",
            whole.replace("weft-dns snapshot", "flannel"),
            1,
            "format \"flannel\" is not \"weft-dns snapshot\"",
        ),
        (
            "a key more",
            whole.replace("\"taken\":1000", "\"taken\":1000,\"by\":\"me\""),
            1,
            "unknown field `by`, expected one of `format`, `version`, `taken` at line 1 column 59",
        ),
        (
            "another address",
            whole.replace("10.96.0.10", "10.96.0.11"),
            lines,
            "the lines before it are not those that were written",
        ),
        (
            "a line less",
            whole
                .lines()
                .enumerate()
                .filter(|(at, _)| *at != 5)
                .map(|(_, line)| format!("{line}\n"))
                .collect(),
            lines - 1,
            "26 lines should precede it, not 25",
        ),
        (
            "an end after the end",
            format!("{whole}\n"),
            lines + 1,
            "more follows after the end",
        ),
        (
            "a time past all time",
            whole.replace(":1000}", ":18446744073709551615}"),
            1,
            "its time is past all time",
        ),
    ];
    for (what, text, line, cause) in cases {
        fs::write(&path, &text).unwrap();
        let expected = format!(
            "snapshot {} is ignored: line {line}: {cause}",
            path.display()
        );
        assert_eq!(refused(&path, 1000), expected, "{what}");
    }
}

#[test]
fn trouble_with_the_disk_is_named() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a");
    fs::create_dir(&path).unwrap();
    let error = write(&zone_of(settings(), cluster()), &path, at(0)).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("write snapshot {}", path.display())
    );
    assert!(std::error::Error::source(&error).is_some());
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        1,
        "nothing is left behind"
    );
    assert_eq!(
        refused(&path, 0),
        format!("read snapshot {}", path.display())
    );
}

#[test]
fn every_cut_is_noticed() {
    let (_folder, path) = written();
    let whole = fs::read(&path).unwrap();
    for length in (0..whole.len()).step_by(7).chain([whole.len() - 1]) {
        fs::write(&path, &whole[..length]).unwrap();
        let error = read(&path, at(1000), HOUR).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{length}: {error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_zone_comes_back(events in prop::collection::vec(event(), 0..40)) {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("snapshot");
        let zone = zone_of(settings(), events);
        write(&zone, &path, at(7)).unwrap();
        let snapshot = read(&path, at(7), HOUR).unwrap().unwrap();
        prop_assert_eq!(&snapshot.events, &zone.told().collect::<Vec<_>>());
        prop_assert_eq!(sorted(&zone_of(settings(), snapshot.events)), sorted(&zone));
    }

    #[test]
    fn any_flipped_bit_is_noticed(place in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let (_folder, path) = written();
        let mut bytes = fs::read(&path).unwrap();
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << bit;
        fs::write(&path, &bytes).unwrap();
        prop_assert!(read(&path, at(1000), HOUR).is_err());
    }

    #[test]
    fn any_bytes_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("snapshot");
        fs::write(&path, &bytes).unwrap();
        prop_assert!(read(&path, at(1000), HOUR).is_err());
    }
}
