//! What containers find inside: variables, volumes, names, namespaces, ports, images, their cluster.

use super::pods::{LIMIT, can_run, hold, inside, prints};
use anyhow::{Result, ensure};
use tests::up::Up;
use tests::{eventually, process};

#[test]
fn pods_find_what_they_are_given() -> Result<()> {
    if !can_run() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    super::images::build(&folder.path().join("images"))?;
    let images = folder.path().join("images").display().to_string();
    let up = Up::start(&["--nodes", "1", "--images", &images])?;
    let outside = folder.path().join("outside");
    let manifest = include_str!("../data/up_pods/inside.yaml");
    up.apply(&manifest.replace("HOSTPATH", &outside.display().to_string()))?;
    variables(&up)?;
    let running = "pod/volumes pod/named pod/shares pod/on-node pod/by-port";
    up.wait_for(running, "condition=Ready", LIMIT)?;
    volumes(&up, &outside)?;
    updates(&up)?;
    names(&up)?;
    namespaces(&up)?;
    ports(&up)?;
    roots(&up)?;
    token(&up)
}

/// The log of a Pod that has ended.
fn log(up: &Up, pod: &str) -> Result<String> {
    hold(up, &[(pod, "/status/phase", "Succeeded")])?;
    up.kubectl(&format!("logs {pod}"))
}

fn variables(up: &Up) -> Result<()> {
    let text = log(up, "variables")?;
    let address = up.field("pod/variables", "{.status.podIP}")?;
    for wanted in [
        "FIRST=one",
        "SECOND=one-two $(FIRST) $(NONE)",
        "NAME=variables",
        &format!("IP={address}"),
        "NODE=n1",
        "LABEL=web",
        "LIMIT=64",
        "COLOUR=blue",
        "KEY=hidden",
        "P_colour=blue",
        "P_size=3",
        "HOSTNAME=variables",
        "KUBERNETES_SERVICE_HOST=10.96.0.1",
        "KUBERNETES_PORT=tcp://10.96.0.1:443",
        "SOME_DB_SERVICE_HOST=10.96.3.3",
        "SOME_DB_SERVICE_PORT_SQL=5432",
        "SOME_DB_PORT_5432_TCP_ADDR=10.96.3.3",
        "args:one",
    ] {
        ensure!(
            text.lines().any(|line| line == wanted),
            "no line {wanted:?} in\n{text}"
        );
    }
    ensure!(!text.contains("MAYBE"), "{text}");
    Ok(())
}

fn volumes(up: &Up, outside: &std::path::Path) -> Result<()> {
    let reads = |script: &str| inside(up, "volumes", "reads", script);
    ensure!(reads("cat /seen/file")? == "from-writes\n");
    ensure!(reads("touch /seen/x || echo refused")? == "refused\n");
    let memory = reads("stat -f -c %T /memory; df --output=size -k /memory | tail -1")?;
    ensure!(memory.split_whitespace().eq(["tmpfs", "1024"]), "{memory}");
    reads("echo written >/outside/file")?;
    ensure!(std::fs::read_to_string(outside.join("file"))? == "written\n");
    ensure!(reads("cat /settings/sub/page.txt")? == "first\n");
    ensure!(reads("ls /settings")? == "sub\n");
    ensure!(reads("cat /keys/key; stat -L -c %a /keys/key")? == "hidden400\n");
    ensure!(reads("cat /labels/labels")?.trim() == "app=\"web\"");
    // A claim outlives its Pod.
    reads("echo kept >/data/file")?;
    let claim = up.folder().join("nodes/n1/claims/default/data/file");
    ensure!(std::fs::read_to_string(claim)? == "kept\n");
    Ok(())
}

/// What volumes are made from changes, and so do they, without a restart.
fn updates(up: &Up) -> Result<()> {
    let patch = r#"{"data":{"page.txt":"second\n"}}"#;
    process::run(&mut up.command(&["patch", "configmap", "settings", "-p", patch]))?;
    process::run(&mut up.command(&[
        "patch",
        "secret",
        "keys",
        "-p",
        r#"{"stringData":{"key":"other"}}"#,
    ]))?;
    up.kubectl("label pod volumes app=api --overwrite")?;
    prints(
        up,
        "volumes",
        "reads",
        "cat /settings/sub/page.txt",
        "second",
    )?;
    prints(up, "volumes", "reads", "cat /keys/key", "other")?;
    prints(up, "volumes", "reads", "cat /labels/labels", "app=\"api\"")?;
    hold(
        up,
        &[("volumes", "/status/containerStatuses/0/restartCount", "0")],
    )
}

fn names(up: &Up) -> Result<()> {
    let named = |script: &str| inside(up, "named", "main", script);
    ensure!(named("hostname; hostname -f")? == "chosen\nchosen.group.default.svc.cluster.local\n");
    let resolv = named("cat /etc/resolv.conf")?;
    ensure!(
        resolv == "search example.org\nnameserver 10.9.9.9\noptions ndots:2 rotate\n",
        "{resolv:?}"
    );
    let hosts = named("cat /etc/hosts")?;
    let address = up.field("pod/named", "{.status.podIP}")?;
    for wanted in [
        "10.9.8.7\tfar.example\tfar",
        &format!("{address}\tchosen.group.default.svc.cluster.local\tchosen"),
    ] {
        ensure!(
            hosts.lines().any(|line| line == wanted),
            "no line {wanted:?} in\n{hosts}"
        );
    }
    Ok(())
}

fn namespaces(up: &Up) -> Result<()> {
    let table = inside(up, "shares", "one", "ps -eo pid,args")?;
    ensure!(table.contains("1 weft pause"), "{table}");
    ensure!(
        table.contains("sleep 3601") && table.contains("sleep 3602"),
        "{table}"
    );
    let own = inside(
        up,
        "by-port",
        "neighbour",
        "cat /proc/1/cmdline | tr '\\0' ' '",
    )?;
    ensure!(own.trim() == "sleep 3600", "{own}");
    Ok(())
}

fn ports(up: &Up) -> Result<()> {
    ensure!(up.field("pod/on-node", "{.status.podIP}")? == "192.168.66.11");
    let page = |node: u8, url: &str| {
        eventually(&format!("node {node} gets {url}"), LIMIT, || {
            up.node(node)
                .exec("timeout", &["3", "busybox", "wget", "-q", "-O", "-", url])
        })
    };
    for node in [0, 1] {
        ensure!(page(node, "http://192.168.66.11:9180/")? == "on-node\n");
        ensure!(page(node, "http://192.168.66.11:9181/")? == "by-port\n");
    }
    ensure!(page(1, "http://127.0.0.1:9181/")? == "by-port\n");
    // The neighbour in the Pod, over its own localhost.
    prints(
        up,
        "by-port",
        "neighbour",
        "timeout 3 busybox wget -q -O - http://127.0.0.1:8080/",
        "by-port",
    )
}

fn roots(up: &Up) -> Result<()> {
    let folder = log(up, "from-folder")?;
    ensure!(
        folder.ends_with("kept\n") && folder.contains("bin\n"),
        "{folder}"
    );
    ensure!(log(up, "from-tar")? == "from a tar\n");
    let layout = log(up, "from-layout")?;
    ensure!(layout.starts_with("from a layout\n"), "{layout}");
    ensure!(layout.ends_with("green\n/srv\n1234\n"), "{layout}");
    ensure!(!layout.contains("removed"), "{layout}");
    let id = "/status/containerStatuses/0/imageID";
    hold(
        up,
        &[
            ("from-tar", id, "~sha256:"),
            ("from-layout", id, "~sha256:"),
            ("from-folder", id, "~/images/plain"),
        ],
    )
}

/// The Pod's own token, by the Service's address: the API server knows who asks, and that it may not.
fn token(up: &Up) -> Result<()> {
    let script = "F=/var/run/secrets/kubernetes.io/serviceaccount; curl -sS --max-time 10 --cacert $F/ca.crt \
                  -H \"Authorization: Bearer $(cat $F/token)\" \
                  https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT/api/v1/namespaces/$(cat $F/namespace)/pods";
    eventually("the API server knows the Pod", LIMIT, || {
        let said = inside(up, "volumes", "reads", script)?;
        ensure!(
            said.contains("User \\\"system:serviceaccount:default:default\\\" cannot list"),
            "{said}"
        );
        Ok(())
    })
}
