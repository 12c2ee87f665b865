use super::*;

fn now() -> Timestamp {
    "2026-01-02T03:04:05.000000006Z".parse().unwrap()
}

fn texts(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(str::to_owned).collect()
}

#[test]
fn lines_of_both_streams_are_put_together_from_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/0.log");
    let mut log = Log::open(&path, 1 << 20, 5).unwrap();
    log.append(From::Stdout, b"one\ntw", now());
    log.append(From::Stderr, b"bad\n", now());
    log.append(From::Stdout, b"o\n\nthr", now());
    log.finish(now());
    let at = "2026-01-02T03:04:05.000000006Z";
    assert_eq!(
        texts(&path),
        [
            format!("{at} stdout F one"),
            format!("{at} stderr F bad"),
            format!("{at} stdout F two"),
            format!("{at} stdout F "),
            format!("{at} stdout F thr"),
        ]
    );
}

#[test]
fn a_long_line_is_cut_and_marked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0.log");
    let mut log = Log::open(&path, 1 << 20, 5).unwrap();
    for _ in 0..5 {
        log.append(From::Stdout, &[b'x'; 8 * 1024], now());
    }
    log.append(From::Stdout, b"\n", now());
    let tags: Vec<_> = texts(&path)
        .iter()
        .map(|line| (line.contains(" P "), line.len() - 40))
        .collect();
    assert_eq!(tags, [(true, 16384), (true, 16384), (false, 8192)]);
}

#[test]
fn rotation_keeps_so_many_files_and_loses_the_oldest_lines_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0.log");
    let mut log = Log::open(&path, 1000, 3).unwrap();
    for number in 0..100 {
        log.append(From::Stdout, format!("line {number}\n").as_bytes(), now());
    }
    assert!(!rotated(&path, 3).exists());
    let kept: Vec<_> = [2, 1, 0]
        .iter()
        .flat_map(|&number| {
            assert!(fs::metadata(rotated(&path, number)).unwrap().len() <= 1000);
            texts(&rotated(&path, number))
        })
        .collect();
    let first = 100 - kept.len();
    for (line, number) in kept.iter().zip(first..) {
        assert!(line.ends_with(&format!(" F line {number}")), "{line}");
    }
    assert!(kept.len() > 40);
}

#[test]
fn one_file_only_starts_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0.log");
    let mut log = Log::open(&path, 200, 1).unwrap();
    for number in 0..20 {
        log.append(From::Stdout, format!("line {number}\n").as_bytes(), now());
    }
    assert!(fs::metadata(&path).unwrap().len() <= 200);
    assert!(texts(&path).last().unwrap().ends_with("line 19"));
}

#[test]
fn a_full_disk_loses_lines_and_says_so_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0.log");
    let mut log = Log::open(&path, 1 << 20, 5).unwrap();
    log.append(From::Stdout, b"before\n", now());
    // /dev/full answers ENOSPC to every write.
    let real = log
        .file
        .replace(File::options().append(true).open("/dev/full").unwrap());
    log.append(From::Stdout, b"lost 1\nlost 2\n", now());
    log.append(From::Stdout, b"lost 3\n", now());
    log.file = real;
    log.append(From::Stdout, b"after\n", now());
    log.append(From::Stdout, b"more\n", now());
    let lines: Vec<_> = texts(&path)
        .iter()
        .map(|line| line[31..].to_owned())
        .collect();
    assert_eq!(
        lines,
        [
            "stdout F before",
            "stderr F weft: 3 lines were lost here: No space left on device (os error 28)",
            "stdout F after",
            "stdout F more",
        ]
    );
}
