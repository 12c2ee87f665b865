use std::fs;

use jiff::Timestamp;
use proptest::prelude::*;

use super::files;
use super::line::{self, Printer};
use super::{Options, Query};

fn options(query: &str) -> Result<Options, String> {
    let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
    Options::parse(&Query::parse(query), now)
}

fn print(query: &str, log: &str) -> String {
    let mut printer = Printer::new(options(query).unwrap());
    let mut out = Vec::new();
    for line in log.lines() {
        printer.print(line.as_bytes(), &mut out);
    }
    String::from_utf8(out).unwrap()
}

const LOG: &str = "2026-01-01T00:00:01Z stdout F one\n2026-01-01T00:00:20.5Z stderr P tw\n\
    2026-01-01T00:00:20.6Z stderr F o\nnonsense\n\n2026-01-01T00:00:59Z stdout F \n2026-01-01T00:00:59Z stdout F";

#[test]
fn lines_are_picked_and_written_out() {
    assert_eq!(print("", LOG), "one\ntwo\n\n\n");
    assert_eq!(print("stream=Stderr", LOG), "two\n");
    assert_eq!(print("sinceSeconds=40", LOG), "two\n\n\n");
    assert_eq!(print("sinceTime=2026-01-01T00:00:30Z", LOG), "\n\n");
    assert_eq!(print("limitBytes=5", LOG), "one\nt");
    assert_eq!(
        print("timestamps=true&stream=Stderr", LOG),
        "2026-01-01T00:00:20.5Z two\n"
    );
}

#[test]
fn options_are_checked() {
    for bad in [
        "tailLines=-1",
        "tailLines=x",
        "limitBytes=0",
        "sinceSeconds=0",
        "sinceTime=yesterday",
        "stream=x",
        "tailLines=1&stream=Stdout",
        "sinceSeconds=1&sinceTime=2026-01-01T00:00:30Z",
    ] {
        assert!(options(bad).is_err(), "{bad}");
    }
    assert_eq!(
        options("sinceSeconds=99999999999999999").unwrap().since,
        Some(Timestamp::MIN)
    );
}

fn tail(log: &std::path::Path, lines: Option<u64>) -> String {
    let mut text = Vec::new();
    for mut part in files::open(log, lines).unwrap() {
        while part.read(&mut text).unwrap() {}
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn the_last_lines_are_found_across_rotated_files() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("0.log");
    assert_eq!(tail(&log, Some(3)), "");
    fs::write(folder.path().join("0.log.10"), "a\n").unwrap();
    fs::write(folder.path().join("0.log.2"), "b\nc\n").unwrap();
    fs::write(folder.path().join("0.log.1"), "").unwrap();
    fs::write(&log, "d\ne").unwrap();
    for other in ["0.log.x", "0.logs", "10.log", "0.log.0"] {
        fs::write(folder.path().join(other), "?\n").unwrap();
    }
    assert_eq!(tail(&log, None), "a\nb\nc\nd\ne");
    for (lines, text) in [
        (0, ""),
        (1, "e"),
        (2, "d\ne"),
        (3, "c\nd\ne"),
        (5, "a\nb\nc\nd\ne"),
        (9, "a\nb\nc\nd\ne"),
    ] {
        assert_eq!(tail(&log, Some(lines)), text, "{lines}");
    }
    // One goes on reading where a file has moved to.
    let part = files::open(&log, None).unwrap().pop().unwrap();
    assert!(files::after(&log, &part).unwrap().is_empty());
    fs::rename(
        folder.path().join("0.log.10"),
        folder.path().join("0.log.11"),
    )
    .unwrap();
    fs::rename(&log, folder.path().join("0.log.1")).unwrap();
    assert!(files::after(&log, &part).unwrap().is_empty());
    fs::write(&log, "f\n").unwrap();
    assert_eq!(files::after(&log, &part).unwrap().len(), 1);
}

proptest! {
    #[test]
    fn the_last_lines_are_those_of_the_text(
        lengths in proptest::collection::vec(0usize..40_000, 0..8), wanted in 0u64..10
    ) {
        let lines: Vec<String> = lengths.iter().map(|length| "x".repeat(*length)).collect();
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("l");
        fs::write(&log, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
        let skip = lines.len().saturating_sub(wanted as usize);
        let last: String = lines[skip..].iter().map(|line| format!("{line}\n")).collect();
        prop_assert_eq!(tail(&log, Some(wanted)), last);
    }

    #[test]
    fn no_line_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = line::parse(&bytes);
        Printer::new(Options::default()).print(&bytes, &mut Vec::new());
    }
}
