//! The agent with the process runtime: programs of this machine, in namespaces, without CNI.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Secret};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use node::runtime::Runtime;
use node::runtime::process::{Config, Process};
use serde_json::json;

use crate::cluster::{Cluster, until};
use crate::leaks;

fn may_run() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    let required = std::env::var_os("WEFT_REQUIRE_ROOT").is_some_and(|value| value == "1");
    assert!(
        !required,
        "this test needs root and WEFT_REQUIRE_ROOT=1 forbids to skip it"
    );
    eprintln!("SKIPPED: the agent with the process runtime needs root");
    false
}

fn config(folder: &std::path::Path) -> Config {
    let name = folder
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .trim_start_matches('.');
    Config {
        stage: vec![env!("CARGO_BIN_EXE_weft-stage").into()],
        cgroup: format!("weft-test/{name}"),
        ..Config::new(folder.join("runtime"))
    }
}

const SCRIPT: &str = r#"
cp /conf/a /out/conf; cat /secret/k > /out/secret; cat /var/run/secrets/kubernetes.io/serviceaccount/token > /out/token
env > /out/env; hostname > /out/hostname; cat /etc/hosts > /out/hosts; cat /etc/resolv.conf > /out/resolv
df -P /mem | tail -1 > /out/mem; echo "$@" > /out/args; cat /part/x > /out/part
trap 'echo bye > /out/end; exit 0' TERM
echo up; touch /out/ready
while :; do sleep 0.1; done
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_pod_has_all_it_was_promised() {
    if !may_run() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let runtime: Arc<dyn Runtime> = Arc::new(Process::open(config(folder.path())).await.unwrap());
    let mut cluster = Cluster::with(Some(runtime.clone())).await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "default");
    let map = json!({"metadata": {"name": "conf"}, "data": {"a": "A"}});
    maps.create(
        &PostParams::default(),
        &serde_json::from_value(map).unwrap(),
    )
    .await
    .unwrap();
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), "default");
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"k": "hush"}});
    secrets
        .create(
            &PostParams::default(),
            &serde_json::from_value(secret).unwrap(),
        )
        .await
        .unwrap();
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(cluster.client.clone(), "default");
    let claim = json!({"metadata": {"name": "kept"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}});
    claims
        .create(
            &PostParams::default(),
            &serde_json::from_value(claim).unwrap(),
        )
        .await
        .unwrap();
    let spec = json!({
        "hostname": "me", "subdomain": "sub", "terminationGracePeriodSeconds": 5,
        "hostAliases": [{"ip": "10.1.1.1", "hostnames": ["alias"]}],
        "volumes": [
            {"name": "conf", "configMap": {"name": "conf"}}, {"name": "secret", "secret": {"secretName": "s"}},
            {"name": "out", "persistentVolumeClaim": {"claimName": "kept"}},
            {"name": "mem", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "shared", "emptyDir": {}},
        ],
        "initContainers": [{"name": "i", "image": "host", "command": ["sh", "-c", "mkdir -p /shared/p && echo part > /shared/p/x"],
            "volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}],
        "containers": [{
            "name": "c", "image": "host", "command": ["sh", "-c", SCRIPT, "$(WHO)"], "args": ["one", "$(WHO)"],
            "env": [{"name": "WHO", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "readinessProbe": {"exec": {"command": ["test", "-e", "/out/ready"]}, "periodSeconds": 1},
            "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", "echo pre > /out/pre"]}}},
            "volumeMounts": [
                {"name": "conf", "mountPath": "/conf"}, {"name": "secret", "mountPath": "/secret"},
                {"name": "out", "mountPath": "/out"}, {"name": "mem", "mountPath": "/mem"},
                {"name": "shared", "mountPath": "/part", "subPath": "p"}],
        }],
    });
    cluster.create("real", spec).await;
    cluster.running("real").await;
    let out = cluster.data().join("claims/default/kept");
    let read = |name: &str| {
        fs::read_to_string(out.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    assert_eq!(
        (&*read("conf"), &*read("secret"), &*read("part")),
        ("A", "hush", "part\n")
    );
    assert_eq!(read("token").split('.').count(), 3, "a token");
    assert_eq!((&*read("hostname"), &*read("args")), ("me\n", "one real\n"));
    assert!(
        read("env").contains("WHO=real\n") && read("env").contains("KUBERNETES_SERVICE_PORT=443\n")
    );
    assert!(
        read("hosts").contains("10.1.1.1\talias"),
        "{}",
        read("hosts")
    );
    assert!(
        read("resolv").contains("search default.svc.cluster.local"),
        "{}",
        read("resolv")
    );
    assert!(
        read("mem").starts_with("tmpfs") && read("mem").contains(" 1024 "),
        "{}",
        read("mem")
    );
    let log = cluster
        .directory
        .pod("default", "real")
        .unwrap()
        .container("c", false)
        .unwrap()
        .log
        .clone();
    assert!(fs::read_to_string(log).unwrap().ends_with("stdout F up\n"));

    // The agent goes and comes: the container is the same.
    let before = cluster.get("real").await["status"]["containerStatuses"].clone();
    cluster.stop_agent().await;
    cluster.start_agent();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(
        cluster.running("real").await["status"]["containerStatuses"],
        before
    );

    cluster.delete("real").await;
    cluster.gone("real").await;
    assert_eq!((&*read("pre"), &*read("end")), ("pre\n", "bye\n"));
    claims
        .delete("kept", &DeleteParams::default())
        .await
        .unwrap();
    until(|| async { !out.exists() }).await;
    until(|| async { runtime.sandboxes().await.unwrap().is_empty() }).await;
    cluster.real = None;
    cluster.close(true).await;
    drop(runtime);
    Process::destroy_all(config(folder.path())).await.unwrap();
    assert_eq!(
        leaks::of(folder.path(), &config(folder.path()).cgroup),
        [""; 0]
    );
    until(|| async { leaks::open_namespaces() == 0 }).await;
}
