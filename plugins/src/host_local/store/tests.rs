use super::*;
use proptest::prelude::*;

fn holder(id: &str, ifname: Option<&str>) -> Holder {
    Holder {
        container_id: id.into(),
        ifname: ifname.map(str::to_owned),
    }
}

#[test]
fn files_have_the_references_names_and_content() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("a/net");
    let store = Store::open(&folder).unwrap();
    store
        .reserve("10.1.0.7".parse().unwrap(), &holder("c1", Some("eth0")), 0)
        .unwrap();
    store
        .reserve("fd00::7".parse().unwrap(), &holder("c1", Some("eth0")), 1)
        .unwrap();
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    assert_eq!(read("10.1.0.7"), "c1\r\neth0");
    assert_eq!(read("fd00::7"), "c1\r\neth0");
    assert_eq!(read("last_reserved_ip.0"), "10.1.0.7");
    assert_eq!(read("last_reserved_ip.1"), "fd00::7");
    assert_eq!(read("lock"), "");
    assert_eq!(
        store.last_reserved(1).unwrap(),
        Some("fd00::7".parse().unwrap())
    );
    assert_eq!(store.last_reserved(2).unwrap(), None);
    let found = store.observe().unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].holder, Some(holder("c1", Some("eth0"))));
}

#[test]
fn a_taken_address_stays_taken_and_an_empty_file_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let ip = "10.1.0.7".parse().unwrap();
    std::fs::write(dir.path().join("10.1.0.7"), "").unwrap();
    assert_eq!(store.observe().unwrap()[0].holder, None);
    store.reserve(ip, &holder("c1", Some("eth0")), 0).unwrap();
    let error = store
        .reserve(ip, &holder("c2", Some("eth0")), 0)
        .unwrap_err();
    assert!(error.msg.starts_with("reserve 10.1.0.7: write "), "{error}");
    assert_eq!(
        std::fs::read_to_string(dir.path().join("10.1.0.7")).unwrap(),
        "c1\r\neth0"
    );
}

#[test]
fn a_last_file_that_cannot_be_written_undoes_the_reservation() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    std::fs::create_dir(dir.path().join("last_reserved_ip.0")).unwrap();
    let ip = "10.1.0.7".parse().unwrap();
    assert!(store.reserve(ip, &holder("c", None), 0).is_err());
    assert_eq!(store.observe().unwrap(), []);
}

#[test]
fn other_files_are_not_reservations() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for name in [
        "lock",
        "last_reserved_ip.0",
        "README",
        "fd00:0::7",
        "10.1.0.07",
        ".10.1.0.7",
    ] {
        std::fs::write(dir.path().join(name), "c1").unwrap();
    }
    assert_eq!(store.observe().unwrap(), []);
    assert_eq!(store.last_reserved(0).unwrap(), None);
}

#[test]
fn the_lock_is_exclusive_and_ends_with_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let other = File::open(dir.path().join("lock")).unwrap();
    assert!(other.try_lock().is_err());
    drop(store);
    assert!(other.try_lock().is_ok());
}

#[test]
fn an_absent_folder_is_not_made_for_a_release() {
    let dir = tempfile::tempdir().unwrap();
    let absent = dir.path().join("none");
    assert!(Store::open_existing(&absent).unwrap().is_none());
    assert!(!absent.exists());
}

#[test]
fn the_old_content_and_stray_white_space_are_read() {
    assert_eq!(Holder::parse(b"c1"), Some(holder("c1", None)));
    assert_eq!(
        Holder::parse(b"c1\r\neth0\n"),
        Some(holder("c1", Some("eth0")))
    );
    assert_eq!(Holder::parse(b"c1\r\n"), Some(holder("c1", None)));
    assert_eq!(Holder::parse(b""), None);
    assert_eq!(Holder::parse(b" \n"), Some(holder("", None)));
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(id in "[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}", ifname in "[!-.0-9;-~]{1,15}") {
        let written = holder(&id, Some(&ifname));
        prop_assert_eq!(Holder::parse(written.render().as_bytes()), Some(written));
    }

    #[test]
    fn any_content_has_a_holder_unless_it_is_empty(content in prop::collection::vec(any::<u8>(), 0..60)) {
        prop_assert_eq!(Holder::parse(&content).is_none(), content.is_empty());
    }
}
