//! `exec-in`: runs one more process in a running container, for as long as somebody listens.
//!
//! Standard input is a socket of [`frame`](super::super::frame)s; the first, HELLO, tells what to run. When the socket
//! ends, so does the process.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context as _, bail};
use nix::sched::{CloneFlags, setns};
use nix::unistd::{Pid, chdir, dup2_stdin};

use super::super::frame::{self, Decoder, Hello};
use super::super::record::{self, Start, Started};
use super::super::sys;
use super::child;
use super::relay::{Client, Ends, Relay};
use super::shim;

pub(super) fn run(folder: &Path) -> anyhow::Result<()> {
    let mut control = UnixStream::from(
        io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .context("take the socket")?,
    );
    let null: OwnedFd = File::open("/dev/null").context("open /dev/null")?.into();
    dup2_stdin(&null).context("close standard input")?;
    drop(null);
    chdir(folder).with_context(|| format!("enter {}", folder.display()))?;
    let signals = shim::watch_children()?;
    let mut decoder = Decoder::default();
    let hello = read_hello(&mut control, &mut decoder)?;
    let mut frames = Vec::new();
    let (process, ends) = match begin(&hello) {
        Ok(begun) => begun,
        Err(error) => {
            frame::encode(frame::ERROR, format!("{error:#}").as_bytes(), &mut frames);
            return control.write_all(&frames).context("report a failure");
        }
    };
    frame::encode(frame::STARTED, &[], &mut frames);
    control.write_all(&frames).context("report the start")?;
    let client = Client::of_exec(control, decoder, &hello)?;
    let mut relay = Relay::of_exec(process, signals, ends, client)?;
    let ended = relay.run()?;
    relay.finish(ended.code);
    Ok(())
}

fn read_hello(control: &mut UnixStream, decoder: &mut Decoder) -> anyhow::Result<Hello> {
    let mut buffer = [0; 4096];
    loop {
        if let Some((kind, payload)) = decoder.next().map_err(anyhow::Error::msg)? {
            if kind != frame::HELLO {
                bail!("the first frame is of kind {kind}");
            }
            return serde_json::from_slice(&payload).context("parse the first frame");
        }
        match control.read(&mut buffer).context("read the first frame")? {
            0 => bail!("the socket ended before the first frame"),
            length => decoder.push(&buffer[..length]),
        }
    }
}

fn begin(hello: &Hello) -> anyhow::Result<(Pid, Ends)> {
    let start: Start = record::read(Path::new("start.json"))?.context("there is no start.json")?;
    let started: Started =
        record::read(Path::new("started.json"))?.context("the container does not run")?;
    let container = started
        .process
        .open()
        .context("the container does not run")?;
    let alone = sys::SingleThreaded::check().context("fork")?;
    let (status, child_status) = UnixStream::pair().context("make a socket")?;
    let (stdio, mut ends) = child::streams(hello.tty, hello.stdin)?;
    let mut cgroups = Vec::new();
    for cgroup in &start.cgroups {
        let path = cgroup.join("cgroup.procs");
        let file = OpenOptions::new().write(true).open(&path);
        cgroups.push(file.with_context(|| format!("open {}", path.display()))?);
    }
    // The mounts last: with them the paths of the node are gone.
    for name in ["cgroup", "net", "ipc", "uts", "pid", "mnt"] {
        let namespace = container
            .namespace(name)
            .with_context(|| format!("open the container's {name} namespace"))?;
        setns(namespace, CloneFlags::empty())
            .with_context(|| format!("enter the container's {name} namespace"))?;
    }
    let Some(process) = alone.fork().context("fork")? else {
        child::end(&child_status, || {
            for mut file in cgroups {
                file.write_all(b"0")
                    .context("enter the container's cgroup")?;
            }
            child::execute(&start, &hello.command, stdio, &child_status)
        });
    };
    drop((child_status, stdio));
    child::await_program(process, &status, &mut ends)?;
    Ok((process, ends))
}
