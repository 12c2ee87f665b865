//! A real folder, changed in the ways editors, scripts and mounts change folders.

mod bed;

use std::collections::BTreeMap;
use std::fs;

use proptest::prelude::*;

use super::*;
use crate::sample::{Event, Key, Kind, Sample};
use bed::Bed;
use document::Format;

fn service(name: &str, ip: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop}}
spec:
  clusterIP: {ip}
  ports:
  - {{port: 80, name: http}}
"
    )
}

fn slice(name: &str, address: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}-1
  namespace: shop
  labels: {{kubernetes.io/service-name: {name}}}
addressType: IPv4
ports: [{{port: 8080, name: http}}]
endpoints:
- addresses: [{address}]
  nodeName: n1
"
    )
}

#[tokio::test]
async fn objects_come_with_files_and_go_with_them() {
    let mut bed = Bed::with_folder(|path| {
        let two = format!(
            "---\n{}---\n{}",
            service("a", "10.0.0.1"),
            slice("a", "10.1.0.1")
        );
        fs::write(path.join("a.yaml"), two).unwrap();
        fs::write(path.join("notes.txt"), "{{{").unwrap();
        fs::write(path.join(".b.yaml"), service("b", "10.0.0.9")).unwrap();
    });
    bed.until("listed", |bed| bed.listed).await;
    let names: Vec<_> = bed.objects.keys().collect();
    assert_eq!(names, ["EndpointSlice shop/a-1", "Service shop/a"]);
    assert_eq!(bed.objects["EndpointSlice shop/a-1"], ["10.1.0.1"]);

    fs::write(bed.path("b.yml"), service("b", "10.0.0.2")).unwrap();
    bed.until_address("b", "10.0.0.2").await;
    fs::remove_file(bed.path("a.yaml")).unwrap();
    bed.until("a is gone", |bed| bed.objects.len() == 1).await;
    assert_eq!(bed.address("b"), Some("10.0.0.2"));
}

#[tokio::test]
async fn lists_and_nodes_and_other_kinds() {
    let list = serde_json::json!({
        "apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n2",
                "labels": {"topology.kubernetes.io/zone": "far"}}},
            {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1",
                "labels": {"topology.kubernetes.io/zone": "near"}}},
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}},
            {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": "x"}},
            {"apiVersion": "v1", "kind": "List", "items": [
                {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "in", "namespace": "shop"},
                 "spec": {"clusterIP": "10.0.0.7"}}]},
        ]
    });
    let typed = "items:
- metadata: {name: typed, namespace: shop}
  spec: {clusterIP: 10.0.0.8}
kind: ServiceList
apiVersion: v1
";
    let mut bed = Bed::with_folder(|path| {
        fs::write(path.join("all.json"), list.to_string()).unwrap();
        fs::write(path.join("typed.yaml"), typed).unwrap();
        fs::write(
            path.join("none.yaml"),
            "apiVersion: v1\nkind: List\nitems: null\n",
        )
        .unwrap();
    });
    bed.until("listed", |bed| bed.listed).await;
    assert_eq!(bed.objects["Node default/n1"], ["near"]);
    let names: Vec<_> = bed.objects.keys().collect();
    assert_eq!(
        names,
        ["Node default/n1", "Service shop/in", "Service shop/typed"]
    );
}

#[tokio::test]
async fn a_broken_file_keeps_what_it_said() {
    let mut bed = Bed::with_folder(|path| {
        fs::write(path.join("a.yaml"), service("a", "10.0.0.1")).unwrap();
    });
    bed.until_address("a", "10.0.0.1").await;
    // The first document is good: half of a file is not taken either.
    let broken = format!("{}---\nkind: [", service("a", "10.0.0.2"));
    fs::write(bed.path("a.yaml"), broken).unwrap();
    fs::write(bed.path("b.yaml"), service("b", "10.0.0.3")).unwrap();
    bed.until_address("b", "10.0.0.3").await;
    bed.for_a_while().await;
    assert_eq!(bed.address("a"), Some("10.0.0.1"));
    fs::write(bed.path("a.yaml"), service("a", "10.0.0.4")).unwrap();
    bed.until_address("a", "10.0.0.4").await;
}

#[tokio::test]
async fn an_unusable_object_keeps_what_it_was_and_spares_the_others() {
    let mut bed = Bed::with_folder(|path| {
        fs::write(path.join("a.yaml"), service("a", "10.0.0.1")).unwrap();
    });
    bed.until_address("a", "10.0.0.1").await;
    let unusable = service("a", "10.0.0.2").replace("port: 80", "port: eighty");
    let both = format!("{unusable}---\n{}", service("b", "10.0.0.3"));
    fs::write(bed.path("a.yaml"), both).unwrap();
    bed.until_address("b", "10.0.0.3").await;
    assert_eq!(bed.address("a"), Some("10.0.0.1"));
}

#[tokio::test]
async fn editors_and_mounts_replace_files_by_renaming() {
    let mut bed = Bed::with_folder(|path| {
        // As the kubelet mounts a ConfigMap.
        fs::create_dir(path.join("..1")).unwrap();
        fs::write(path.join("..1/a.yaml"), service("a", "10.0.0.1")).unwrap();
        std::os::unix::fs::symlink("..1", path.join("..data")).unwrap();
        std::os::unix::fs::symlink("..data/a.yaml", path.join("a.yaml")).unwrap();
        fs::write(path.join("b.yaml"), service("b", "10.0.0.1")).unwrap();
    });
    bed.until("listed", |bed| bed.listed).await;
    fs::create_dir(bed.path("..2")).unwrap();
    fs::write(bed.path("..2/a.yaml"), service("a", "10.0.0.2")).unwrap();
    std::os::unix::fs::symlink("..2", bed.path("..data_tmp")).unwrap();
    fs::rename(bed.path("..data_tmp"), bed.path("..data")).unwrap();
    bed.until_address("a", "10.0.0.2").await;

    fs::write(bed.path("b.yaml~"), service("b", "10.0.0.3")).unwrap();
    fs::rename(bed.path("b.yaml~"), bed.path("b.yaml")).unwrap();
    bed.until_address("b", "10.0.0.3").await;
}

#[tokio::test]
async fn of_two_files_the_first_by_name_has_an_object() {
    let mut bed = Bed::with_folder(|path| {
        fs::write(path.join("1.yaml"), service("a", "10.0.0.1")).unwrap();
        fs::write(path.join("2.yaml"), service("a", "10.0.0.2")).unwrap();
    });
    bed.until("listed", |bed| bed.listed).await;
    assert_eq!(bed.address("a"), Some("10.0.0.1"));
    fs::remove_file(bed.path("1.yaml")).unwrap();
    bed.until_address("a", "10.0.0.2").await;
    fs::write(bed.path("0.yaml"), service("a", "10.0.0.3")).unwrap();
    bed.until_address("a", "10.0.0.3").await;
}

#[tokio::test]
async fn a_folder_may_come_late_and_leave() {
    let mut bed = Bed::start(|_| {});
    bed.for_a_while().await;
    assert!(!bed.listed, "an absent folder is not an empty one");
    let folder = bed.folder.path().join("manifests");
    let away = bed.folder.path().join("away");
    fs::create_dir(&away).unwrap();
    fs::write(away.join("a.yaml"), service("a", "10.0.0.1")).unwrap();
    fs::rename(&away, &folder).unwrap();
    bed.until("listed", |bed| bed.listed).await;
    assert_eq!(bed.address("a"), Some("10.0.0.1"));

    fs::rename(&folder, &away).unwrap();
    bed.for_a_while().await;
    assert_eq!(bed.objects.len(), 1, "what came from the folder stays");
    fs::write(away.join("a.yaml"), service("a", "10.0.0.2")).unwrap();
    fs::rename(&away, &folder).unwrap();
    bed.until_address("a", "10.0.0.2").await;
}

fn looked(folder: &Folder<Sample>, before: &Files<Sample>) -> Look<Sample> {
    look(folder, before, &mut ()).unwrap()
}

#[test]
fn what_is_not_a_manifest_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    nix::unistd::mkfifo(&path("fifo.yaml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::create_dir(path("folder.json")).unwrap();
    std::os::unix::fs::symlink("nowhere", path("link.yml")).unwrap();
    let large = fs::File::create(path("large.yaml")).unwrap();
    large.set_len((64 << 20) + 1).unwrap();
    fs::write(path("no.yaml"), "just words").unwrap();
    fs::write(path("one.yaml"), "kind: Service\n---\napiVersion: v1\n").unwrap();
    let source = Folder {
        path: folder.path().to_owned(),
        consumer: Sample,
    };
    let found = looked(&source, &Files::<Sample>::default());
    let problems: BTreeMap<_, _> = found.problems.into_iter().collect();
    let expected = [
        ("fifo.yaml", "not a regular file"),
        ("folder.json", "not a regular file"),
        ("large.yaml", "67108865 bytes are more than"),
        ("link.yml", "No such file"),
        ("no.yaml", "document 1: "),
        ("one.yaml", "document 2: "),
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:?}");
    for (name, words) in expected {
        let problem = problems[name].as_deref().unwrap();
        assert!(problem.contains(words), "{name}: {problem}");
    }
}

#[test]
fn a_file_that_was_written_within_a_tick_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let source = Folder {
        path: folder.path().to_owned(),
        consumer: Sample,
    };
    fs::write(folder.path().join("a.yaml"), service("a", "10.0.0.1")).unwrap();
    let first = looked(&source, &Files::<Sample>::default());
    assert!(first.unsettled);
    // Same length, and perhaps the same time.
    fs::write(folder.path().join("a.yaml"), service("a", "10.0.0.2")).unwrap();
    let second = looked(&source, &first.files);
    let (news, doubles) = plan::<Sample>(&first.files, &second.files);
    assert_eq!((news.len(), doubles.len()), (1, 0), "{news:?}");
}

#[test]
fn names_of_two_files_with_one_object_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let source = Folder {
        path: folder.path().to_owned(),
        consumer: Sample,
    };
    let twice = format!("{0}---\n{0}", service("a", "10.0.0.1"));
    fs::write(folder.path().join("1.yaml"), &twice).unwrap();
    fs::write(folder.path().join("2.yaml"), service("a", "10.0.0.2")).unwrap();
    let found = looked(&source, &Files::<Sample>::default());
    let (news, doubles) = plan::<Sample>(&Files::<Sample>::default(), &found.files);
    assert_eq!(news.len(), 1);
    let double = "Service shop/a is in 1.yaml and in 2.yaml; the former counts";
    assert_eq!(doubles, [double]);
    let complaints: Vec<_> = found
        .complaints
        .into_iter()
        .flat_map(|(_, lines)| lines)
        .collect();
    assert_eq!(
        complaints,
        ["a second Service shop/a in this file is ignored"]
    );
    let gone = plan::<Sample>(&found.files, &Files::<Sample>::default()).0;
    assert_eq!(gone, [Event::Gone(Key(Kind::Service, "shop/a".to_owned()))]);
}

#[test]
fn a_large_list_is_within_the_limits() {
    // More nodes than the parser's own limit for one document allows.
    let items = "- [x, x, x, x, x, x, x, x, x]\n".repeat(26_000);
    let text = format!(
        "kind: List\nitems:\n{items}---\n{}",
        service("a", "10.0.0.1")
    );
    let manifest = document::read(text.as_bytes(), Format::Yaml, &Sample).unwrap();
    assert_eq!(manifest.objects.len(), 1);
}

#[test]
fn words_that_yaml_once_read_as_truth_are_names() {
    let text = service("on", "10.0.0.1").replace("http", "no");
    let manifest = document::read(text.as_bytes(), Format::Yaml, &Sample).unwrap();
    let reduced = manifest.objects.into_iter().next().unwrap().unwrap();
    let Event::There(key, _, ports) = reduced.event else {
        panic!("{reduced:?}");
    };
    assert_eq!((&*key.1, &*ports[0]), ("shop/on", "no"));
}

#[test]
fn aliases_do_not_multiply_without_end() {
    let mut bomb = String::from("kind: Service\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let before = level - 1;
        let ten = vec![format!("*a{before}"); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{ten}]\n"));
    }
    assert!(document::read(bomb.as_bytes(), Format::Yaml, &Sample).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = document::read(&bytes[..], Format::Yaml, &Sample);
        let _ = document::read(&bytes[..], Format::Json, &Sample);
    }

    #[test]
    fn any_damage_to_a_manifest_is_read_without_a_panic(
        at in 0usize..600, with in "[\\[\\]{}&*!|>:\\-\n \"'a-z0-9]{0,6}", cut in 0usize..600,
    ) {
        let mut text = format!("{}---\n{}", service("a", "10.0.0.1"), slice("a", "10.1.0.1"));
        text.insert_str(at.min(text.len()), &with);
        text.truncate(cut.max(at));
        let _ = document::read(text.as_bytes(), Format::Yaml, &Sample);
        let _ = document::read(text.as_bytes(), Format::Json, &Sample);
    }
}
