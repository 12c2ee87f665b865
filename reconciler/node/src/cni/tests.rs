use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;
use crate::runtime::{Event, PodRef, PortMapping, SandboxConfig};

/// A folder with configurations and plugins; a plugin notes its calls in `calls`.
struct Bed(TempDir);

impl Bed {
    fn new() -> Self {
        let bed = Self(tempfile::tempdir().unwrap());
        for folder in ["net.d", "bin"] {
            fs::create_dir(bed.path(folder)).unwrap();
        }
        bed
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn cni(&self, timeout: Duration) -> Cni {
        Cni::new(Config {
            conf_dir: self.path("net.d"),
            bin_dirs: vec![self.path("bin")],
            cache_dir: self.path("cache"),
            timeout,
        })
    }

    fn list(&self, file: &str, list: &Value) {
        fs::write(self.path("net.d").join(file), list.to_string()).unwrap();
    }

    /// A plugin: a line and its standard input to `calls`, then the script.
    fn plugin(&self, name: &str, script: &str) {
        let text = format!(
            "#!/bin/sh\n{{ printf '%s' \"{name} $CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME $CNI_NETNS $CNI_ARGS \"; \
             cat; echo; }} >> {}\n{script}\n",
            self.path("calls").display()
        );
        let path = self.path("bin").join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Plugin and verb of each call, and its input.
    fn calls(&self) -> Vec<(String, Value)> {
        let text = fs::read_to_string(self.path("calls")).unwrap_or_default();
        text.lines()
            .map(|line| {
                let (head, input) = line.split_at(line.find('{').unwrap());
                let words: Vec<_> = head.split_whitespace().take(2).collect();
                (words.join(" "), serde_json::from_str(input).unwrap())
            })
            .collect()
    }

    fn verbs(&self) -> Vec<String> {
        self.calls().into_iter().map(|(verb, _)| verb).collect()
    }

    fn left(&self) -> usize {
        fs::read_dir(self.path("cache/results")).map_or(0, Iterator::count)
    }
}

const RESULT: &str = r#"[ "$CNI_COMMAND" = ADD ] && echo '{"cniVersion":"1.1.0","interfaces":[{"name":"veth1"},{"name":"eth0","mac":"0a:00:00:00:00:01","sandbox":"/ns"}],"ips":[{"interface":1,"address":"10.1.2.3/24"}]}'; exit 0"#;

fn attachment(id: &str) -> Attachment {
    let config = SandboxConfig {
        pod: PodRef {
            namespace: "default".to_owned(),
            name: "p".to_owned(),
            uid: "u-1".to_owned(),
        },
        port_mappings: vec![PortMapping {
            host_port: 8080,
            container_port: 80,
            protocol: "TCP".to_owned(),
            host_ip: String::new(),
        }],
        annotations: [(
            "kubernetes.io/ingress-bandwidth".to_owned(),
            "10M".to_owned(),
        )]
        .into(),
        resolv_conf: "search a b\nnameserver 10.96.0.10\noptions ndots:5\n".to_owned(),
        ..SandboxConfig::default()
    };
    Attachment::of(id, "/proc/self/ns/net", &config)
}

const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_list_is_added_checked_and_deleted_by_what_is_remembered() {
    let bed = Bed::new();
    bed.plugin("first", RESULT);
    bed.plugin("second", "[ $CNI_COMMAND = ADD ] || exit 0; sed -n '$s/.*\"prevResult\":\\({.*}\\),\"type.*/\\1/p' CALLS".replace("CALLS", bed.path("calls").to_str().unwrap()).as_str());
    bed.list(
        "10-a.conflist",
        &json!({"name": "net", "cniVersion": "1.0.0", "plugins": [
            {"type": "first", "capabilities": {"portMappings": true, "bandwidth": false}},
            {"type": "second"},
        ]}),
    );
    let cni = bed.cni(LIMIT);
    let added = cni.add(&attachment("c1")).await.unwrap();
    assert_eq!(added.ips, ["10.1.2.3".parse::<IpAddr>().unwrap()]);
    assert_eq!(added.mac.as_deref(), Some("0a:00:00:00:00:01"));
    let calls = bed.calls();
    assert_eq!(bed.verbs(), ["first ADD", "second ADD"]);
    assert_eq!(
        calls[0].1["runtimeConfig"],
        json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""}]})
    );
    assert_eq!(calls[1].1["runtimeConfig"], Value::Null);
    assert_eq!(calls[1].1["prevResult"], added.result);
    assert_eq!(calls[1].1["cniVersion"], "1.0.0");
    let text = fs::read_to_string(bed.path("calls")).unwrap();
    assert!(text.contains(
        " c1 eth0 /proc/self/ns/net IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=p;\
         K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=u-1 "
    ));
    let cached: Value =
        serde_json::from_slice(&fs::read(bed.path("cache/results/net-c1-eth0")).unwrap()).unwrap();
    assert_eq!(cached["kind"], "cniCacheV1");
    assert_eq!(cached["result"], added.result);
    assert_eq!(cached["cniArgs"][1], json!(["K8S_POD_NAME", "p"]));

    cni.check("c1", "eth0").await.unwrap();
    assert!(matches!(
        cni.check("c2", "eth0").await,
        Err(Error::NotFound(_))
    ));
    // The list on disk becomes another one; what was added goes by the one that added it.
    bed.list(
        "10-a.conflist",
        &json!({"name": "other", "cniVersion": "1.0.0", "plugins": [{"type": "third"}]}),
    );
    cni.del("c1", "eth0").await.unwrap();
    assert_eq!(
        bed.verbs()[2..],
        ["first CHECK", "second CHECK", "second DEL", "first DEL"]
    );
    assert_eq!(bed.calls()[5].1["prevResult"], added.result);
    assert_eq!(bed.left(), 0);
    // Again: nothing is there, nothing is called.
    cni.del("c1", "eth0").await.unwrap();
    assert_eq!(bed.verbs().len(), 6);
}

#[tokio::test]
async fn a_plugin_that_fails_is_named_and_undone() {
    let bed = Bed::new();
    bed.plugin("first", RESULT);
    bed.plugin(
        "second",
        r#"[ $CNI_COMMAND = ADD ] || exit 0; echo '{"code": 11, "msg": "no more addresses", "details": "in 10.1.2.0/24"}'; exit 1"#,
    );
    bed.list(
        "a.conflist",
        &json!({"name": "net", "cniVersion": "0.4.0", "plugins": [{"type": "first"}, {"type": "second"}]}),
    );
    let error = bed.cni(LIMIT).add(&attachment("c")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"plugin type="second" name="net" failed (add): no more addresses; in 10.1.2.0/24"#
    );
    assert_eq!(
        bed.verbs(),
        ["first ADD", "second ADD", "second DEL", "first DEL"]
    );
    assert!(bed.calls()[3].1.get("prevResult").is_none());
    assert_eq!(bed.left(), 0);
}

#[tokio::test]
async fn a_plugin_that_hangs_is_killed_with_its_children() {
    let bed = Bed::new();
    let marker = bed.path("child");
    bed.plugin(
        "slow",
        &format!(
            "[ $CNI_COMMAND = ADD ] || exit 0; sleep 600 & echo $! > {}; wait",
            marker.display()
        ),
    );
    bed.list(
        "a.conf",
        &json!({"name": "net", "cniVersion": "1.0.0", "type": "slow"}),
    );
    let begun = Instant::now();
    let error = bed
        .cni(Duration::from_millis(700))
        .add(&attachment("c"))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"plugin type="slow" name="net" failed (add): no answer within 700ms, killed"#
    );
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(bed.verbs(), ["slow ADD", "slow DEL"]);
    let child = fs::read_to_string(marker).unwrap();
    let stat = Path::new("/proc").join(child.trim()).join("stat");
    // It is gone, or a zombie that nobody has reaped yet.
    let gone = || fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
    let deadline = Instant::now() + Duration::from_secs(5);
    while !gone() {
        assert!(
            Instant::now() < deadline,
            "the child of the plugin lives on"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_cannot_be_undone_stays_known() {
    let bed = Bed::new();
    bed.plugin("p", "exit 3");
    bed.list(
        "a.conf",
        &json!({"name": "net", "cniVersion": "1.0.0", "type": "p"}),
    );
    let cni = bed.cni(LIMIT);
    let error = cni.add(&attachment("c")).await.unwrap_err().to_string();
    assert!(error.contains("failed (add): exit status: 3"), "{error}");
    assert!(error.contains("undoing it: plugin type=\"p\""), "{error}");
    assert_eq!(bed.left(), 1);
    cni.del("c", "eth0").await.unwrap_err();
    bed.plugin("p", "exit 0");
    cni.del("c", "eth0").await.unwrap();
    assert_eq!(bed.left(), 0);
}

#[tokio::test]
async fn gc_removes_what_is_not_alive() {
    let bed = Bed::new();
    bed.plugin("p", RESULT);
    bed.list(
        "a.conf",
        &json!({"name": "net", "cniVersion": "0.3.1", "cniVersions": ["1.1.0", "9.9.9"], "type": "p"}),
    );
    // Only the list's own members are of the list.
    bed.list(
        "0.conflist",
        &json!({"name": "net", "cniVersions": ["0.4.0", "1.1.0", "9.9.9"], "plugins": [{"type": "p"}]}),
    );
    let cni = bed.cni(LIMIT);
    let (one, two) = (attachment("c1"), attachment("c2"));
    // One after the other: the plugin writes its line in pieces.
    cni.add(&one).await.unwrap();
    cni.add(&two).await.unwrap();
    assert_eq!(cni.unready().await, None);
    cni.gc(|id| id == "c2").await.unwrap();
    assert_eq!(bed.verbs()[2..], ["p STATUS", "p DEL", "p GC"]);
    let (_, input) = bed.calls().pop().unwrap();
    assert_eq!(
        input["cni.dev/valid-attachments"],
        json!([{"containerID": "c2", "ifname": "eth0"}])
    );
    assert_eq!(input["cniVersion"], "1.1.0");
    assert_eq!(bed.left(), 1);
}

#[tokio::test]
async fn readiness_is_told_with_its_reason_and_its_changes() {
    let bed = Bed::new();
    fs::remove_dir(bed.path("net.d")).unwrap();
    let cni = bed.cni(LIMIT);
    let (sender, mut events) = mpsc::channel(4);
    let none = format!("no CNI configuration in {}", bed.path("net.d").display());
    let seen = async {
        assert_eq!(cni.unready().await, Some(none.clone()));
        // Both the folder and its file come while it is watched.
        tokio::time::sleep(Duration::from_millis(50)).await;
        fs::create_dir(bed.path("net.d")).unwrap();
        bed.list("a.conf", &json!({"name": "net", "type": "p"}));
        assert_eq!(events.recv().await, Some(Event::Ready));
        let error = cni.unready().await.unwrap();
        assert!(error.starts_with("failed to find plugin \"p\" in path ["));
        bed.plugin("p", "exit 0");
        assert_eq!(cni.unready().await, None);
        fs::remove_file(bed.path("net.d/a.conf")).unwrap();
        assert_eq!(events.recv().await, Some(Event::Ready));
        assert_eq!(cni.unready().await, Some(none));
    };
    let both = async {
        tokio::select! {
            () = cni.watch(&sender) => panic!("nobody listens?"),
            () = seen => {}
        }
    };
    tokio::time::timeout(LIMIT, both).await.unwrap();
}

#[test]
fn the_first_valid_list_is_taken() {
    let bed = Bed::new();
    let choose = || list::choose(&bed.path("net.d"));
    bed.list("05.txt", &json!({"name": "text", "type": "p"}));
    bed.list(
        "10.conflist",
        &json!({"name": "../x", "plugins": [{"type": "p"}]}),
    );
    assert!(choose().unwrap_err().contains("is not one CNI allows"));
    bed.list("11.conf", &json!({"name": "x", "type": "/bin/sh"}));
    assert!(choose().unwrap_err().contains("no name of a plugin"));
    bed.list(
        "12.conflist",
        &json!({"name": "x", "cniVersion": "7", "plugins": [{"type": "p"}]}),
    );
    assert!(choose().unwrap_err().contains("none of 0.1.0 to 1.1.0"));
    fs::write(bed.path("net.d/13.conf"), "{").unwrap();
    bed.list("14.conflist", &json!({"name": "x", "plugins": []}));
    bed.list("20.json", &json!({"name": "single", "type": "p"}));
    assert_eq!(choose().unwrap().name, "single");
    bed.list(
        "15.conflist",
        &json!({"name": "list", "disableCheck": "true", "plugins": [{"type": "p"}]}),
    );
    let list = choose().unwrap();
    assert_eq!((list.name.as_str(), list.disable_check), ("list", true));
    // Further plugins of the list's own folder.
    fs::create_dir(bed.path("net.d/list")).unwrap();
    bed.list("list/1.conf", &json!({"type": "q"}));
    let kinds = |list: &List| -> Vec<String> {
        list.plugins
            .iter()
            .map(|plugin| plugin.kind.clone())
            .collect()
    };
    assert_eq!(kinds(&choose().unwrap()), ["p", "q"]);
    bed.list(
        "15.conflist",
        &json!({"name": "list", "loadOnlyInlinedPlugins": true, "plugins": [{"type": "p"}]}),
    );
    assert_eq!(kinds(&choose().unwrap()), ["p"]);
}

#[test]
fn results_of_every_version_are_read() {
    let read = |value: Value| result::read(&value, "eth0").map(|added| added.ips);
    let ips = |texts: &[&str]| Ok(texts.iter().map(|text| text.parse().unwrap()).collect());
    assert_eq!(
        read(json!({"ip4": {"ip": "10.0.0.2/24"}, "ip6": {"ip": "fd00::2/64"}})),
        ips(&["10.0.0.2", "fd00::2"])
    );
    let both = json!({
        "interfaces": [{"name": "cni0"}, {"name": "eth0", "sandbox": "/x"}],
        "ips": [{"address": "10.0.0.1/24", "interface": 0}, {"address": "fd00::2/64", "interface": 1},
            {"address": "10.0.0.2/24"}],
    });
    assert_eq!(read(both), ips(&["fd00::2", "10.0.0.2"]));
    assert!(read(json!({})).is_err());
    assert!(read(json!({"ips": [{"address": "x"}]})).is_err());
    assert!(read(json!({"ips": 3})).is_err());
}

proptest::proptest! {
    #[test]
    fn no_configuration_makes_it_panic(text in "\\PC{0,80}") {
        if let Ok(value) = serde_json::from_str::<Value>(&text) {
            let _ = result::read(&value, "eth0");
            let _ = List::parse(value, None);
        }
        let _ = Attachment { container_id: text, ..attachment("c") }.check();
    }
}
