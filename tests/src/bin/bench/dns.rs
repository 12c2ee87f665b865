//! `dns`: the cluster DNS on one core, with a cluster's Services in memory, asked by `dnsperf` from the other core.
//!
//! With `COREDNS=/path` the same load runs on that, beside ours: its `kubernetes` plugin at the same API server, with the
//! cache of its add-on, on the same one core.

mod load;
mod news;

use crate::outcome::{Outcome, Series};
use crate::promise::{Bound, Promise};
use ::tests::process::Process;
use ::tests::{ApiServer, eventually, subject};
use anyhow::{Context, Result, ensure};
use load::Load;
use std::fmt::Write as _;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Scale {
    /// Services, each with [`load::ENDPOINTS`] endpoints.
    services: u32,
    /// Of one run of dnsperf.
    seconds: u32,
    /// Runs; the best counts, for the machine is shared.
    runs: u32,
    /// New endpoints.
    news: u32,
}

const FULL: Scale = Scale {
    services: 5000,
    seconds: 6,
    runs: 3,
    news: 100,
};

const QUICK: Scale = Scale {
    services: 1000,
    seconds: 2,
    runs: 2,
    news: 20,
};

/// Both servers run on the first core, dnsperf on the second.
const SERVER_CORE: &str = "0";
const CLIENT_CORE: &str = "1";
const PATIENCE: Duration = Duration::from_secs(60);

/// What one server did.
struct Measured {
    answers_a_second: f64,
    half_load: Series,
    resident: f64,
    news: Series,
}

/// Measures everything.
pub fn run(quick: bool, rounds: Option<u32>) -> Result<Outcome> {
    let mut scale = if quick { QUICK } else { FULL };
    scale.runs = rounds.unwrap_or(scale.runs).max(1);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let server = ApiServer::start(&[])?;
    let load = Load::new(&server, scale.services)?;
    runtime.block_on(load.create())?;
    let folder = tempfile::Builder::new()
        .prefix("weft-bench-dns")
        .tempdir()?;
    let questions = folder.path().join("questions");
    std::fs::write(&questions, load.questions())?;

    let port = free_port()?;
    let mut command = pinned(SERVER_CORE, &subject::program("weft-dns")?);
    command
        .arg(format!("--kubeconfig={}", server.kubeconfig().display()))
        .arg(format!("--listen=127.0.0.1:{port}"))
        .args([
            "--metrics-bind-address=",
            "--client-queries=0",
            "--node-name=n1",
        ]);
    let ours = Server::start("weft-dns", command, port, &folder)?;
    let ours = measure("weft-dns", ours, &runtime, &load, &questions, &scale)?;

    let mut outcome = Outcome::default();
    let services = scale.services;
    let endpoints = services * load::ENDPOINTS;
    let mut rate = Promise {
        text: "internal answers a second, on one core".to_owned(),
        measured: Some(ours.answers_a_second),
        bound: Bound::AtLeast(30_000.0),
        unit: "/s",
        note: String::new(),
    };
    outcome.promise("p99 at half load", ours.half_load.at(0.99), 1.0, "ms");
    outcome.promise(
        &format!("resident with {services} Services and {endpoints} endpoints"),
        ours.resident,
        25.0,
        "MB",
    );
    outcome.promise(
        "a new endpoint answered after its event, p99",
        ours.news.at(0.99),
        50.0,
        "ms",
    );
    if let Some(path) = std::env::var_os("COREDNS") {
        let port = free_port()?;
        let command = coredns(path.as_ref(), port, &server, &folder)?;
        let theirs = Server::start("coredns", command, port, &folder)?;
        // Its cache would make of new endpoints a matter of its TTL.
        let scale = Scale { news: 0, ..scale };
        let theirs = measure("coredns", theirs, &runtime, &load, &questions, &scale)?;
        outcome.promises.push(Promise {
            text: "internal answers a second, against CoreDNS".to_owned(),
            measured: Some(ours.answers_a_second / theirs.answers_a_second),
            bound: Bound::AtLeast(2.0),
            unit: "times",
            note: format!("CoreDNS: {:.0}/s", theirs.answers_a_second),
        });
        outcome
            .remarks
            .push(("CoreDNS: resident".to_owned(), theirs.resident, "MB"));
        outcome.series.push(theirs.half_load);
    } else {
        rate.note = "CoreDNS was not there: COREDNS=/path would run it beside".to_owned();
    }
    outcome.promises.insert(0, rate);
    outcome.series.extend([ours.half_load, ours.news]);
    Ok(outcome)
}

/// A DNS server under test.
struct Server {
    process: Process,
    port: u16,
}

impl Server {
    fn start(name: &str, mut command: Command, port: u16, folder: &TempDir) -> Result<Self> {
        let log = folder.path().join(format!("{name}.log"));
        let process = Process::spawn(name, &mut command, &log)?;
        Ok(Self { process, port })
    }
}

fn measure(
    name: &str,
    mut server: Server,
    runtime: &tokio::runtime::Runtime,
    load: &Load,
    questions: &Path,
    scale: &Scale,
) -> Result<Measured> {
    let asker = news::Asker::new(server.port)?;
    eventually("the server knows the last Service", PATIENCE, || {
        server.process.ensure_alive()?;
        ensure!(asker.answers(&load.last_service())? > 0, "no answer yet");
        Ok(())
    })?;
    let mut answers_a_second = 0.0;
    for _ in 0..scale.runs {
        let text = dnsperf(
            server.port,
            questions,
            scale.seconds,
            &["-c", "8", "-q", "300"],
        )?;
        let lost = number(&text, "Queries lost:")?;
        let sent = number(&text, "Queries sent:")?;
        ensure!(
            lost <= sent / 1000.0,
            "{name} lost {lost} of {sent} queries:\n{text}"
        );
        answers_a_second = f64::max(answers_a_second, number(&text, "Queries per second:")?);
    }
    let half = (answers_a_second / 2.0).round().to_string();
    let mut best: Option<Series> = None;
    for _ in 0..scale.runs {
        let text = dnsperf(
            server.port,
            questions,
            scale.seconds,
            &["-c", "8", "-v", "-Q", &half],
        )?;
        let mut series = Series::new(&format!("{name}: answer at half load ({half}/s)"));
        let times = text.lines().filter_map(|line| line.strip_prefix("> "));
        for time in times.filter_map(|line| line.rsplit(' ').next()?.parse().ok()) {
            series.push(Duration::from_secs_f64(time));
        }
        if best
            .as_ref()
            .is_none_or(|best| series.at(0.99) < best.at(0.99))
        {
            best = Some(series);
        }
    }
    let half_load = thin(best.context("dnsperf was not run")?)?;
    let resident = server.process.resident_bytes()? as f64 / 1e6;
    let series = format!("{name}: a new endpoint is answered after its event");
    let news = runtime.block_on(news::measure(&series, load, &asker, scale.news))?;
    Ok(Measured {
        answers_a_second,
        half_load,
        resident,
        news,
    })
}

/// So many times as are worth keeping: every so-many-th of the sorted ones.
fn thin(mut series: Series) -> Result<Series> {
    ensure!(!series.milliseconds.is_empty(), "dnsperf told no times");
    series.milliseconds.sort_by(f64::total_cmp);
    let step = series.milliseconds.len().div_ceil(10_000);
    series.milliseconds = series.milliseconds.into_iter().step_by(step).collect();
    Ok(series)
}

fn pinned(core: &str, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", core]).arg(program);
    command
}

fn dnsperf(port: u16, questions: &Path, seconds: u32, more: &[&str]) -> Result<String> {
    let mut command = pinned(CLIENT_CORE, "dnsperf".as_ref());
    command
        .args([
            "-s",
            "127.0.0.1",
            "-p",
            &port.to_string(),
            "-l",
            &seconds.to_string(),
            "-d",
        ])
        .arg(questions)
        .args(more);
    ::tests::process::run(&mut command)
}

/// The number behind a title of dnsperf's summary.
fn number(text: &str, title: &str) -> Result<f64> {
    let rest = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(title));
    let word = rest.and_then(|rest| rest.split_whitespace().next());
    let word = word.with_context(|| format!("dnsperf says nothing of {title:?}:\n{text}"))?;
    word.parse().with_context(|| format!("{title} {word}"))
}

fn free_port() -> Result<u16> {
    let socket = UdpSocket::bind("127.0.0.1:0").context("find a free port")?;
    Ok(socket.local_addr()?.port())
}

/// CoreDNS as its add-on runs it, as far as names of the cluster go.
fn coredns(program: &Path, port: u16, server: &ApiServer, folder: &TempDir) -> Result<Command> {
    let mut text = String::new();
    writeln!(
        text,
        ".:{port} {{\n    bind 127.0.0.1\n    cache 30\n    kubernetes cluster.local in-addr.arpa ip6.arpa {{"
    )?;
    writeln!(
        text,
        "        kubeconfig {}\n        pods insecure\n    }}\n}}",
        server.kubeconfig().display()
    )?;
    let path: PathBuf = folder.path().join("Corefile");
    std::fs::write(&path, text)?;
    let mut command = pinned(SERVER_CORE, program);
    command.arg("-conf").arg(path).env("GOMAXPROCS", "1");
    Ok(command)
}
