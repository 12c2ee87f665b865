//! What keeps `weft apiserver` from starting, or from writing: one line that says what to do, and no harm done.

#[path = "api/client.rs"]
mod client;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use client::{SOON, ask, get};
use nix::sys::signal::Signal;
use redb::{Database, TableDefinition};
use serde_json::{Value, json};
use tests::process::Process;
use tests::{ApiServer, eventually, requirement, subject};

/// Starts one that must not come up; its exit code and what it said.
fn refused(data: &Path, flags: &[&str]) -> Result<(i32, String)> {
    let folder = tempfile::tempdir()?;
    let mut command = Command::new(subject::program("weft")?);
    command.arg("apiserver").arg("--data").arg(data);
    if !flags.iter().any(|flag| flag.starts_with("--listen")) {
        command.arg("--listen=127.0.0.1:0");
    }
    command.args(flags);
    let mut process = Process::spawn("weft apiserver", &mut command, &folder.path().join("log"))?;
    let status = process.wait(SOON)?;
    Ok((status.code().context("it was killed")?, process.log()?))
}

/// It must say one line with these words, and end with 1.
fn one_line(data: &Path, flags: &[&str], words: &[&str]) -> Result<()> {
    let (code, said) = refused(data, flags)?;
    ensure!(code == 1, "{flags:?}: exit code {code}: {said}");
    let lines: Vec<_> = said
        .lines()
        .filter(|line| line.starts_with("weft: "))
        .collect();
    ensure!(
        lines.len() == 1 && said.lines().count() == 1,
        "{flags:?}: it said: {said}"
    );
    for word in words {
        ensure!(said.contains(word), "{flags:?}: no {word:?} in: {said}");
    }
    Ok(())
}

#[test]
fn a_bad_flag_is_said_in_one_line() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    one_line(
        &data,
        &[&format!("--listen={address}")],
        &[&address, "in use"],
    )?;
    // Not an address of this machine.
    one_line(&data, &["--listen=192.0.2.1:6443"], &["192.0.2.1:6443"])?;
    for (cidr, word) in [
        ("10.0.0.0/30", "room"),
        ("10.0.0.0/24,10.1.0.0/24", "family"),
        ("10.0.0.0/24,fd00::/112,fd01::/112", "3 networks"),
    ] {
        one_line(
            &data,
            &[&format!("--service-cidr={cidr}")],
            &["--service-cidr", word],
        )?;
    }
    one_line(&data, &["--service-node-port-range=300-200"], &["300-200"])?;
    one_line(
        &data,
        &["--store=zookeeper://x"],
        &["zookeeper://x", "embedded", "etcd://"],
    )?;
    one_line(&data, &["--store=etcd://"], &["etcd://"])?;
    let missing = folder.path().join("missing.pem").display().to_string();
    let flags = [
        "--store=etcds://127.0.0.1:1",
        &format!("--etcd-cafile={missing}"),
    ];
    one_line(&data, &flags, &[&missing])?;
    // Nobody answers there.
    one_line(
        &data,
        &["--store=etcd://127.0.0.1:1"],
        &["127.0.0.1:1", "refused"],
    )?;
    for flag in [
        "--service-cidr=banana",
        "--service-node-port-range=x",
        "--listen=x",
        "--nonsense",
    ] {
        let (code, said) = refused(&data, &[flag])?;
        let (_, value) = flag.split_once('=').unwrap_or(("", flag));
        ensure!(
            code == 2 && said.starts_with("error: ") && said.contains(value),
            "{code}: {said}"
        );
    }
    Ok(())
}

#[test]
fn a_folder_that_does_not_serve_is_said_in_one_line() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("file");
    fs::write(&file, "")?;
    let path = file.display().to_string();
    one_line(&file, &[], &[&path])?;
    one_line(&file.join("below"), &[], &[&path])?;
    // Nobody can write there, root neither.
    one_line(Path::new("/proc/1/weft"), &[], &["/proc/1/weft"])?;

    let mut server = ApiServer::start(&[])?;
    let data = server.folder();
    let place = data.display().to_string();
    // Two on one folder.
    one_line(&data, &[], &[&place])?;
    ensure!(server.stop()?.success());
    let key = data.join("pki/ca.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644))?;
    one_line(&data, &[], &[&key.display().to_string(), "600"])?;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
    let store = data.join("weft.redb");
    let whole = fs::read(&store)?;
    let named = store.display().to_string();
    for (what, bytes) in [
        ("torn", whole[..whole.len() / 2].to_vec()),
        (
            "no store",
            b"this is a text, and no store at all".repeat(1000),
        ),
        ("cut to nothing much", whole[..100].to_vec()),
    ] {
        fs::write(&store, &bytes)?;
        one_line(&data, &[], &[&named]).context(what)?;
        ensure!(fs::read(&store)? == bytes, "{what}: the file was changed");
    }
    fs::write(&store, &whole)?;
    let database = Database::open(&store)?;
    let write = database.begin_write()?;
    write
        .open_table(TableDefinition::<&str, u64>::new("meta"))?
        .insert("format", 99)?;
    write.commit()?;
    drop(database);
    one_line(&data, &[], &[&named, "99"])?;
    // Put back, all is well.
    fs::write(&store, &whole)?;
    server.resume()
}

/// A server whose data folder is a small disk of its own, which only it sees.
struct SmallDisk {
    process: Process,
    data: PathBuf,
}

impl SmallDisk {
    fn start(folder: &Path) -> Result<Self> {
        let data = folder.join("data");
        fs::create_dir(&data)?;
        let script = "mount -t tmpfs -o size=24m weft-test \"$1\" && exec \"$2\" apiserver --data \"$1\" --listen 127.0.0.1:0";
        let mut command = Command::new("unshare");
        command
            .args([
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                script,
                "sh",
            ])
            .arg(&data)
            .arg(subject::program("weft")?);
        let mut process = Process::spawn("weft apiserver", &mut command, &folder.join("log"))?;
        eventually("it is ready", SOON, || {
            process.ensure_alive()?;
            ensure!(process.log()?.contains("ready at"), "it is not ready");
            Ok(())
        })?;
        Ok(Self { process, data })
    }

    /// A file of its disk, seen from here.
    fn file(&self, name: &str) -> PathBuf {
        let inside = self.data.strip_prefix("/").unwrap_or(&self.data);
        Path::new("/proc")
            .join(self.process.id().to_string())
            .join("root")
            .join(inside)
            .join(name)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_and_heals() -> Result<()> {
    if !requirement::is_root() || !requirement::has_programs(&["unshare", "mount"]) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let mut disk = SmallDisk::start(folder.path())?;
    let client = client::client(&disk.file("admin.kubeconfig")).await?;
    let path = "/api/v1/namespaces/default/configmaps";
    let ballast = disk.file("ballast");
    let mut file = fs::File::options()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&ballast)?;
    let filled = std::io::copy(&mut std::io::repeat(0), &mut file);
    ensure!(filled.is_err(), "the disk has no end");
    drop(file);
    let data = "x".repeat(200_000);
    let object = |n: usize| json!({"metadata": {"name": format!("c{n}")}, "data": {"n": data}});
    let mut acknowledged = Vec::new();
    let mut refusals = 0;
    for n in 0..300 {
        let answer = ask(&client, "POST", path, &object(n)).await?;
        if answer.code == 201 {
            acknowledged.push(n);
            continue;
        }
        ensure!(
            (answer.code, answer.reason()?.as_str()) == (507, "InsufficientStorage"),
            "{answer:?}"
        );
        ensure!(
            answer.json()?["message"]
                .as_str()
                .is_some_and(|text| text.contains("full")),
            "{answer:?}"
        );
        refusals += 1;
        if refusals == 5 {
            break;
        }
    }
    ensure!(refusals == 5, "the disk never was full");
    // Reads go on, and what was acknowledged is there.
    for n in &acknowledged {
        get(&client, &format!("{path}/c{n}")).await?;
    }
    ensure!(ask(&client, "GET", "/livez", &Value::Null).await?.code == 200);
    disk.process.ensure_alive()?;
    fs::remove_file(&ballast)?;
    let end = tokio::time::Instant::now() + SOON;
    while ask(&client, "POST", path, &object(1000)).await?.code != 201 {
        ensure!(
            tokio::time::Instant::now() < end,
            "it does not heal:\n{}",
            disk.process.log_tail()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for n in acknowledged.iter().chain([&1000]) {
        get(&client, &format!("{path}/c{n}")).await?;
    }
    let log = disk.process.log()?;
    ensure!(!log.contains("panicked"), "{log}");
    Ok(())
}

/// Whoever starts it may have blocked signals for itself.
#[test]
fn it_hears_sigterm_though_its_parent_does_not() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut command = Command::new("env");
    command
        .arg("--block-signal=TERM")
        .arg(subject::program("weft")?)
        .args(["apiserver", "--listen=127.0.0.1:0", "--data"])
        .arg(folder.path().join("data"));
    let mut server = Process::spawn("weft", &mut command, &folder.path().join("log"))?;
    eventually("it is ready", Duration::from_secs(20), || {
        ensure!(server.log()?.contains("ready at"));
        Ok(())
    })?;
    server.signal(Signal::SIGTERM)?;
    ensure!(server.wait(Duration::from_secs(20))?.success());
    Ok(())
}
