//! `api`: the API server over its embedded store, under the load of a small cluster.
//!
//! Clients and server share the machine's cores. With `KUBE_APISERVER=/path` the same load runs on that, over a real
//! etcd, beside ours.

pub mod client;
mod load;
mod reference;

use crate::outcome::{Outcome, Series};
use crate::promise::{Bound, Promise};
use ::tests::ApiServer;
use anyhow::{Context, Result};
use client::Client;
use load::Load;
use reference::Reference;
use std::io::Write;
use std::time::{Duration, Instant};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Scale {
    /// Services, and as many slices and Pods.
    objects: u32,
    /// Objects that are created at full speed.
    creates: u32,
    /// Watches on one kind.
    watches: u32,
    /// Repetitions.
    rounds: u32,
}

const FULL: Scale = Scale {
    objects: 5000,
    creates: 10_000,
    watches: 1000,
    rounds: 20,
};

const QUICK: Scale = Scale {
    objects: 1000,
    creates: 2000,
    watches: 200,
    rounds: 5,
};

/// Creates that are under way at a time.
const WRITERS: u32 = 64;

/// What one server did.
struct Measured {
    creates_a_second: f64,
    get: Series,
    list: Series,
    watch: Series,
    resident: f64,
}

/// Measures everything.
pub fn run(quick: bool, rounds: Option<u32>) -> Result<Outcome> {
    let mut scale = if quick { QUICK } else { FULL };
    scale.rounds = rounds.unwrap_or(scale.rounds);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let mut outcome = Outcome::default();
    let floor = sync_floor()?;
    let mut server = ApiServer::start(&[])?;
    let pki = server.folder().join("pki");
    let client = Client::with_certificate(&server.url(), &pki)?;
    let resident = |server: &mut ApiServer| server.process()?.resident_bytes();
    let load = Load::new(client, scale.objects, WRITERS);
    let ours = runtime.block_on(measure(&load, "ours", &scale, || resident(&mut server)))?;
    let mut start = Series::new("ours: from start to ready, with that data");
    for _ in 0..scale.rounds.clamp(3, 10) {
        server.stop()?;
        let begun = Instant::now();
        server.resume()?;
        start.push(begun.elapsed());
    }
    let mut crash = Series::new("ours: from start to ready, with that data, after kill -9");
    for _ in 0..3 {
        server.kill()?;
        let begun = Instant::now();
        server.resume()?;
        crash.push(begun.elapsed());
    }
    let promise =
        |outcome: &mut Outcome, text: &str, measured: f64, bound: Bound, unit: &'static str| {
            outcome.promises.push(Promise {
                text: text.to_owned(),
                measured: Some(measured),
                bound,
                unit,
                note: String::new(),
            });
        };
    let objects = scale.objects;
    promise(
        &mut outcome,
        "durable creates a second",
        ours.creates_a_second,
        Bound::AtLeast(2000.0),
        "/s",
    );
    outcome.promise("get, p50", ours.get.median(), 1.0, "ms");
    outcome.promise(
        &format!("list of {objects} Services, p50"),
        ours.list.median(),
        150.0,
        "ms",
    );
    outcome.promise(
        &format!(
            "an event reaches {} watches, the slowest of all",
            scale.watches
        ),
        ours.watch.at(1.0),
        50.0,
        "ms",
    );
    outcome.promise(
        &format!("resident with {objects} Services, slices and Pods each"),
        ours.resident,
        80.0,
        "MB",
    );
    outcome.promise(
        "from start to ready with that data",
        start.median(),
        300.0,
        "ms",
    );
    outcome.remarks.push((
        "fdatasync of 4 KiB, the disk's own time".into(),
        floor,
        "ms",
    ));
    let mut series = vec![ours.get, ours.list, ours.watch, start, crash];
    if let Some(path) = std::env::var_os("KUBE_APISERVER") {
        let reference = Reference::start(path.as_ref())?;
        let load = Load::new(reference.client()?, scale.objects, WRITERS);
        let theirs = runtime.block_on(measure(&load, "kube-apiserver", &scale, || {
            reference.resident_bytes()
        }))?;
        let remark = |text: &str, value: f64, unit: &'static str| {
            (format!("kube-apiserver: {text}"), value, unit)
        };
        outcome.remarks.push(remark(
            "durable creates a second",
            theirs.creates_a_second,
            "/s",
        ));
        outcome
            .remarks
            .push(remark("resident", theirs.resident, "MB"));
        series.extend([theirs.get, theirs.list, theirs.watch]);
    }
    outcome.series = series;
    Ok(outcome)
}

async fn measure(
    load: &Load,
    who: &str,
    scale: &Scale,
    mut resident: impl FnMut() -> Result<u64>,
) -> Result<Measured> {
    load.prepare().await?;
    let took = load.create_many(scale.creates).await?;
    let creates_a_second = f64::from(scale.creates) / took.as_secs_f64();
    load.remove_many().await?;
    load.world().await?;
    let reader = load.connect().await?;
    let mut get = Series::new(&format!("{who}: get of a Pod"));
    for number in 0..scale.rounds * 50 {
        let begun = Instant::now();
        load.get(&reader, number).await?;
        get.push(begun.elapsed());
    }
    let mut list = Series::new(&format!("{who}: list of all Services"));
    for _ in 0..scale.rounds {
        let begun = Instant::now();
        load.list(&reader).await?;
        list.push(begun.elapsed());
    }
    let watch = load
        .watches(
            &format!("{who}: a change until the last watch has it"),
            scale.watches,
            scale.rounds,
        )
        .await?;
    // What it needs while nothing is asked.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let resident = resident()? as f64 / 1e6;
    Ok(Measured {
        creates_a_second,
        get,
        list,
        watch,
        resident,
    })
}

/// How long the disk takes for the smallest durable write.
fn sync_floor() -> Result<f64> {
    let mut file = tempfile::tempfile().context("make a file to sync")?;
    let mut series = Series::new("");
    for _ in 0..50 {
        file.write_all(&[0; 4096])?;
        let begun = Instant::now();
        file.sync_data()?;
        series.push(begun.elapsed());
    }
    Ok(series.median())
}
