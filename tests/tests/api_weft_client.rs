//! `weft get`, `apply` and `delete` against a live server: what they print beside what `kubectl` prints, and what the
//! server has afterwards.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use tests::process::{Process, output_with_input};
use tests::{ApiServer, eventually, requirement, subject};

/// Of every kind that has columns of interest, in two namespaces; one Pod is bound to a node that is not there.
const OBJECTS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: demo}
---
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {node-role.kubernetes.io/worker: ""}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: nginx}, {name: second, image: "busybox:1.36"}]}
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: settings}, data: {a: "<b> & c", number: "0644", "yes": "no\nlines\n"}}
- {apiVersion: v1, kind: Secret, metadata: {name: key, namespace: demo}, stringData: {a: b}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: a-service-with-quite-a-long-name, namespace: demo}
spec: {clusterIP: None, ports: [{name: a, port: 80}, {name: b, port: 81}]}
---
apiVersion: v1
kind: Pod
metadata: {name: first, labels: {app: web}}
spec: {nodeName: n1, terminationGracePeriodSeconds: 300, containers: [{name: c, image: busybox}]}
---
apiVersion: v1
kind: Pod
metadata: {name: second, namespace: demo}
spec: {containers: [{name: c, image: busybox}]}
"#;

fn weft(server: &ApiServer, args: &[&str]) -> Result<Command> {
    let mut command = Command::new(subject::program("weft")?);
    command
        .args(args)
        .env("KUBECONFIG", server.kubeconfig())
        .env("HOME", server.folder())
        .stdin(Stdio::null());
    Ok(command)
}

fn output(server: &ApiServer, args: &[&str]) -> Result<Output> {
    let output = weft(server, args)?.output();
    output.with_context(|| format!("start weft {}", args.join(" ")))
}

/// What `weft` prints, which must succeed.
fn said(server: &ApiServer, args: &[&str]) -> Result<String> {
    let output = output(server, args)?;
    let (out, err) = texts(&output);
    ensure!(
        output.status.success(),
        "weft {}: {err}{out}",
        args.join(" ")
    );
    Ok(out)
}

/// What `weft` says on stderr, which must fail.
fn complaint(server: &ApiServer, args: &[&str]) -> Result<String> {
    let output = output(server, args)?;
    let (out, err) = texts(&output);
    ensure!(
        output.status.code() == Some(1),
        "weft {}: {}: {err}{out}",
        args.join(" "),
        output.status
    );
    Ok(err)
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

fn server(manifest: &str) -> Result<ApiServer> {
    let server = ApiServer::start(&[])?;
    let path = server.manifest("objects.yaml", manifest)?;
    said(&server, &["apply", "-f", &path])?;
    Ok(server)
}

/// Ages, and the blanks after them, are as wide but say nothing: seconds pass between two commands.
fn without_ages(text: &str) -> String {
    let is_age = |word: &str| {
        word.ends_with(['s', 'm', 'h'])
            && word.starts_with(|letter: char| letter.is_ascii_digit())
            && word
                .chars()
                .all(|letter| letter.is_ascii_digit() || "smh".contains(letter))
    };
    let mask = |line: &str| {
        let mut masked = String::new();
        let mut rest = line;
        while !rest.is_empty() {
            let word = rest.find(' ').unwrap_or(rest.len());
            let blanks = rest[word..].find(|letter| letter != ' ');
            let end = blanks.map_or(rest.len(), |blanks| word + blanks);
            if is_age(&rest[..word]) {
                let width = if word == end { 1 } else { end };
                masked.push_str(&"@".repeat(width));
            } else {
                masked.push_str(&rest[..end]);
            }
            rest = &rest[end..];
        }
        masked
    };
    let lines: Vec<_> = text.split('\n').map(mask).collect();
    lines.join("\n")
}

#[test]
fn get_prints_what_kubectl_prints() -> Result<()> {
    // 1.20 prints a selfLink in lists.
    if !requirement::has_kubectl(30) {
        return Ok(());
    }
    let server = server(OBJECTS)?;
    for line in [
        "get pods",
        "get pods -o wide",
        "get po -A",
        "get Pod -A -o wide",
        "get svc",
        "get services -A -o wide",
        "get deployments.apps",
        "get deploy -o wide",
        "get deployments.v1.apps web",
        "get nodes",
        "get no -o wide -A",
        "get ns",
        "get cm,secrets -A",
        "get endpointslices,endpoints -A",
        "get pods,svc,deploy",
        "get pod/first svc/web",
        "get pod/first pod/first",
        "get all",
        "get all -A -o wide",
        "get pods first",
        "get pods first nosuch",
        "get pods nosuch",
        "get pods,nodes -l app=web",
        "get pods -A --field-selector spec.nodeName=n1",
        "get pods -A -l !app",
        "get pods -n nosuch",
        "get statefulsets",
        "get statefulsets -A",
        "get persistentvolumes",
        "get daemonsets,jobs",
        "get leases,serviceaccounts,ingresses,netpol -A",
        "get foos",
        "get pods,foos",
        "get pods,svc -o name -A",
        "get deploy -o name",
        "get pod first -o json",
        "get cm settings -o json",
        "get svc,cm -A -o json",
        "get statefulsets -o json",
        "get pods nosuch -o json",
    ] {
        let args: Vec<_> = line.split(' ').collect();
        let ours = output(&server, &args)?;
        let theirs = server.kubectl_output(&args)?;
        let (ours, theirs) = (
            (ours.status.code(), texts(&ours)),
            (theirs.status.code(), texts(&theirs)),
        );
        let masked = |said: &(Option<i32>, (String, String))| {
            let (code, (out, err)) = said;
            (*code, without_ages(out), err.clone())
        };
        ensure!(
            masked(&ours) == masked(&theirs),
            "{line}\nours:\n{ours:#?}\nkubectl:\n{theirs:#?}\n{}\n{}",
            ours.1.0,
            theirs.1.0
        );
    }
    Ok(())
}

#[test]
fn yaml_is_what_kubectl_reads() -> Result<()> {
    if !requirement::has_programs(&["kubectl"]) {
        return Ok(());
    }
    let server = server(OBJECTS)?;
    for what in [["cm", "settings"], ["deploy", "web"], ["svc", "web"]] {
        let yaml = said(&server, &["get", what[0], what[1], "-o", "yaml"])?;
        let mut kubectl =
            server.kubectl_command(&["create", "--dry-run=client", "-o", "json", "-f", "-"]);
        let read = output_with_input(&mut kubectl, &yaml)?;
        let (out, err) = texts(&read);
        ensure!(read.status.success(), "{err}\n{yaml}");
        let json = said(&server, &["get", what[0], what[1], "-o", "json"])?;
        let (read, json): (Value, Value) =
            (serde_json::from_str(&out)?, serde_json::from_str(&json)?);
        ensure!(read == json, "{yaml}\n{read:#}\n{json:#}");
    }
    Ok(())
}

#[test]
fn get_follows_a_watch_with_its_columns() -> Result<()> {
    let server = server(OBJECTS)?;
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("log");
    let mut watch = Process::spawn(
        "weft get -w",
        &mut weft(&server, &["get", "cm", "-w"])?,
        &log,
    )?;
    let lines = |watch: &Process| -> Result<Vec<String>> {
        Ok(watch.log()?.lines().map(without_ages).collect())
    };
    let limit = Duration::from_secs(20);
    eventually("the watch prints what is there", limit, || {
        let lines = lines(&watch)?;
        ensure!(
            lines.len() == 3 && lines[0] == "NAME               DATA   AGE",
            "{lines:?}"
        );
        Ok(())
    })?;
    let made = server.manifest(
        "made.yaml",
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: made}, data: {a: b}}",
    )?;
    said(&server, &["apply", "-f", &made])?;
    said(&server, &["delete", "cm", "made"])?;
    eventually("the watch prints what changed", limit, || {
        let lines = lines(&watch)?;
        // Made, and deleted.
        ensure!(
            lines[3..] == ["made               1      @"; 2],
            "{lines:?}"
        );
        Ok(())
    })?;
    watch.ensure_alive()?;
    Ok(())
}

#[test]
fn a_server_that_stops_ends_the_watch() -> Result<()> {
    let mut server = ApiServer::start(&[])?;
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("log");
    let mut command = weft(&server, &["get", "svc", "kubernetes", "-w", "-o", "name"])?;
    let mut watch = Process::spawn("weft get -w", &mut command, &log)?;
    eventually(
        "the watch prints what is there",
        Duration::from_secs(20),
        || {
            ensure!(watch.log()? == "service/kubernetes\n", "{}", watch.log()?);
            Ok(())
        },
    )?;
    server.stop()?;
    let status = watch.wait(Duration::from_secs(20))?;
    ensure!(status.success(), "{status}: {}", watch.log()?);
    let refused = complaint(&server, &["get", "pods"])?;
    let address = server.url().replace("https://", "");
    ensure!(
        refused
            == format!(
                "The connection to the server {address} was refused: start `weft apiserver`, or name another kubeconfig with --kubeconfig\n"
            ),
        "{refused}"
    );
    Ok(())
}

#[test]
fn apply_says_what_became_of_each_object() -> Result<()> {
    let server = ApiServer::start(&[])?;
    let folder = server.folder().join("manifests");
    std::fs::create_dir(&folder)?;
    std::fs::write(
        folder.join("1.yaml"),
        "{apiVersion: v1, kind: Namespace, metadata: {name: demo, labels: {a: b}}}\n---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: demo}, data: {a: '1'}}\n",
    )?;
    std::fs::write(
        folder.join("2.json"),
        r#"{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}}"#,
    )?;
    std::fs::write(folder.join("README"), "not a manifest")?;
    let folder = folder.to_str().context("a path")?;
    let of = |what: &str| {
        format!("namespace/demo {what}\nconfigmap/a {what}\ndeployment.apps/web {what}\n")
    };
    let dry = said(&server, &["apply", "--dry-run=server", "-f", folder]);
    ensure!(dry.is_err(), "the namespace is not there yet: {dry:?}");
    ensure!(
        said(
            &server,
            &["get", "deploy,cm", "-A", "-l", "!x", "-o", "name"]
        )? == "configmap/kube-root-ca.crt\n".repeat(4)
    );
    let created = said(&server, &["apply", "-f", folder])?;
    ensure!(created == of("created"), "{created}");
    let unchanged = said(&server, &["apply", "--server-side", "-f", folder])?;
    ensure!(unchanged == of("unchanged"), "{unchanged}");
    let dry = said(&server, &["apply", "--dry-run=server", "-f", folder])?;
    ensure!(dry == of("unchanged (server dry run)"), "{dry}");

    let changed =
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: demo}, data: {a: '2'}}";
    let apply = |args: &[&str], input: &str| -> Result<(Option<i32>, String, String)> {
        let args: Vec<_> = ["apply", "-f", "-"].iter().chain(args).copied().collect();
        let output = output_with_input(&mut weft(&server, &args)?, input)?;
        let (out, err) = texts(&output);
        Ok((output.status.code(), out, err))
    };
    let value = || said(&server, &["get", "cm", "a", "-n", "demo", "-o", "json"]);
    let dry = apply(&["--dry-run=server"], changed)?;
    ensure!(
        dry.1 == "configmap/a configured (server dry run)\n",
        "{dry:?}"
    );
    ensure!(value()?.contains("\"a\": \"1\""), "{}", value()?);
    let done = apply(&[], changed)?;
    ensure!(
        done == (
            Some(0),
            "configmap/a configured\n".to_owned(),
            String::new()
        ),
        "{done:?}"
    );
    ensure!(value()?.contains("\"a\": \"2\""), "{}", value()?);

    // Another has written the field meanwhile.
    server.kubectl(&[
        "patch",
        "cm",
        "a",
        "-n",
        "demo",
        "-p",
        r#"{"data": {"a": "3"}}"#,
    ])?;
    let conflict = apply(&[], changed)?;
    ensure!(
        conflict.0 == Some(1) && conflict.1.is_empty(),
        "{conflict:?}"
    );
    ensure!(
        conflict
            .2
            .starts_with("error: Apply failed with 1 conflict: conflict with \"kubectl-patch\"")
            && conflict.2.contains("--force-conflicts"),
        "{conflict:?}"
    );
    let forced = apply(&["--force-conflicts"], changed)?;
    ensure!(forced.1 == "configmap/a configured\n", "{forced:?}");
    Ok(())
}

#[test]
fn apply_goes_on_past_what_fails() -> Result<()> {
    let server = ApiServer::start(&[])?;
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\na: [\n---\napiVersion: v2\nkind: Foo\nmetadata: {name: f}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: []}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: nosuch}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: t}\ndatum: {}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: z}\n";
    let path = server.manifest("m.yaml", text)?;
    let output = output(&server, &["apply", "-f", &path])?;
    let (out, err) = texts(&output);
    ensure!(output.status.code() == Some(1), "{out}{err}");
    ensure!(out == "configmap/a created\nconfigmap/z created\n", "{out}");
    let lines: Vec<_> = err.lines().collect();
    ensure!(lines.len() == 5, "{err}");
    for (line, part) in lines.iter().zip([
        "m.yaml: yaml: ",
        "no matches for kind \"Foo\" in version \"v2\"",
        "The Pod \"p\" is invalid: spec.containers: Required value",
        "Error from server (NotFound): namespaces \"nosuch\" not found",
        ".datum: field not declared in schema",
    ]) {
        ensure!(line.contains(part), "{line}\nlacks {part}");
    }
    let other = complaint(&server, &["apply", "-f", "/nowhere/x.yaml"])?;
    ensure!(
        other == "error: read /nowhere/x.yaml: No such file or directory (os error 2)\n",
        "{other}"
    );
    let path = server.manifest(
        "n.yaml",
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: default}}",
    )?;
    let other = complaint(&server, &["apply", "-n", "demo", "-f", &path])?;
    ensure!(
        other.starts_with(
            "error: the namespace from the provided object \"default\" does not match"
        ),
        "{other}"
    );
    Ok(())
}

#[test]
fn delete_waits_until_the_object_is_gone() -> Result<()> {
    let server = server(OBJECTS)?;
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("log");
    // It is bound, and no node ends it.
    let mut delete = Process::spawn(
        "weft delete",
        &mut weft(&server, &["delete", "pod", "first"])?,
        &log,
    )?;
    let limit = Duration::from_secs(20);
    eventually("the Pod is being deleted", limit, || {
        ensure!(
            delete.log()? == "pod \"first\" deleted\n",
            "{}",
            delete.log()?
        );
        Ok(())
    })?;
    ensure!(said(&server, &["get", "pods", "first"])?.contains("Terminating"));
    std::thread::sleep(Duration::from_millis(300));
    delete.ensure_alive()?;
    let again = said(
        &server,
        &["delete", "pod/first", "--wait=false", "--grace-period", "0"],
    )?;
    ensure!(again == "pod \"first\" deleted\n", "{again}");
    ensure!(delete.wait(limit)?.success(), "{}", delete.log()?);
    let gone = complaint(&server, &["get", "pods", "first"])?;
    ensure!(
        gone == "Error from server (NotFound): pods \"first\" not found\n",
        "{gone}"
    );
    Ok(())
}

#[test]
fn delete_takes_manifests_and_forgives_what_is_not_there() -> Result<()> {
    let server = server(OBJECTS)?;
    let path = server.manifest(
        "d.yaml",
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}}\n---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: nosuch}}\n---\n{apiVersion: v1, kind: Service, metadata: {name: web}}\n",
    )?;
    let output = output(&server, &["delete", "-f", &path])?;
    let (out, err) = texts(&output);
    ensure!(output.status.code() == Some(1), "{out}{err}");
    ensure!(
        out == "deployment.apps \"web\" deleted\nservice \"web\" deleted\n",
        "{out}"
    );
    ensure!(
        err == "Error from server (NotFound): configmaps \"nosuch\" not found\n",
        "{err}"
    );
    let forgiven = said(&server, &["delete", "--ignore-not-found", "-f", &path])?;
    ensure!(forgiven.is_empty(), "{forgiven}");
    // A name that is empty would name all.
    let empty = complaint(&server, &["delete", "cm", ""])?;
    ensure!(
        empty == "error: resource name may not be empty\n",
        "{empty}"
    );
    let empty = complaint(&server, &["delete", "cm/"])?;
    ensure!(empty == "error: \"cm/\" is not KIND/NAME\n", "{empty}");
    ensure!(complaint(&server, &["delete", "cm"])?.contains("no name was specified"));
    ensure!(said(&server, &["get", "cm", "settings", "-o", "name"])? == "configmap/settings\n");
    Ok(())
}

/// The README's commands of the API server, line by line, on a server of our own.
#[test]
fn the_readme_does_what_it_says() -> Result<()> {
    // `explain` asks for OpenAPI v3 since 1.27.
    if !requirement::has_kubectl(27) || !requirement::has_programs(&["bash"]) {
        return Ok(());
    }
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md"))?;
    let (_, section) = readme
        .split_once("\n### The API server\n")
        .context("README.md has no section on the API server")?;
    let section = section.split("\n##").next().unwrap_or(section);
    let blocks = section.split("```sh\n").skip(1);
    let commands: Vec<_> = blocks
        .filter_map(|block| block.split("```").next())
        .flat_map(str::lines)
        .collect();
    let Some((start, rest)) = commands.split_first() else {
        anyhow::bail!("the README's section on the API server has no commands");
    };
    let (start, _) = start.split_once('#').unwrap_or((*start, ""));
    ensure!(start.trim() == "weft apiserver", "{start}");
    let server = ApiServer::start(&[])?;
    let programs = subject::program("weft")?;
    let programs = programs
        .parent()
        .context("a program in a folder")?
        .display()
        .to_string();
    // Its folder is the test's own.
    let script = rest.join("\n").replace(
        "/var/lib/weft/admin.kubeconfig",
        &server.kubeconfig().display().to_string(),
    );
    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail", "-c", &script])
        .env("PATH", format!("{programs}:{}", std::env::var("PATH")?))
        .env_remove("KUBECONFIG")
        .env("HOME", server.folder())
        .stdin(Stdio::null());
    let output = bash.output().context("start bash")?;
    let (out, err) = texts(&output);
    ensure!(output.status.success(), "{script}\n{out}{err}");
    for part in [
        "deployment.apps/web created",
        "web    0/3",
        "configmap/settings created",
        "colour: blue",
        "configmap \"settings\" deleted",
    ] {
        ensure!(out.contains(part), "no {part:?} in\n{out}{err}");
    }
    Ok(())
}
