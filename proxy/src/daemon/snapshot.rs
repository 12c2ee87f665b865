//! Work that is done once and then ends: `--dry-run`, `--once`, `show`, `trace`.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{modes, neighbourhood::Neighbourhood};
use crate::config::{Checked, ModeName};
use crate::metrics::Metrics;
use crate::model::{Changed, Event, Family, Kind, NodeInfo, Wanted};
use crate::state::State;

/// How long a source may take to list everything.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is wanted here and now.
pub struct Snapshot {
    /// The mode in force.
    pub mode: ModeName,
    /// How iptables mode would go about it.
    pub iptables: crate::mode::iptables::Options,
    /// By family, IPv4 first.
    pub wanted: Vec<Wanted>,
    /// All addresses of the node.
    pub addresses: std::collections::BTreeSet<std::net::IpAddr>,
}

/// Lists everything once.
pub async fn take(checked: &Checked) -> anyhow::Result<Snapshot> {
    let (mode, _) = modes::choose(checked)?;
    let families = modes::families();
    let neighbourhood = Neighbourhood::observe(checked)?;
    let site = |node: Option<&NodeInfo>, family| neighbourhood.site(checked, mode, node, family);
    let mut state = State::new(families.iter().map(|family| site(None, *family)));
    let (sender, mut events) = mpsc::channel(64);
    let task = tokio::spawn(super::source_of(checked).await?.run(sender));
    let listed = async {
        let mut node_listed = false;
        while !(state.ready() && node_listed) {
            for event in events.recv().await.context("the source has ended")? {
                node_listed |= event == Event::Listed(Kind::Node);
                state.apply(event);
            }
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, listed)
        .await
        .with_context(|| format!("nothing was listed within {} s", PATIENCE.as_secs()))??;
    task.abort();
    for family in &families {
        let node = state.node().cloned();
        state.set_site(site(node.as_ref(), *family));
    }
    let mut wanted = Vec::new();
    for family in families {
        let _ = state.take(family);
        wanted.extend(state.wanted(family).cloned());
    }
    for clash in state.clashes() {
        tracing::warn!("{clash}");
    }
    Ok(Snapshot {
        mode,
        iptables: modes::iptables_options(checked),
        wanted,
        addresses: neighbourhood.addresses(),
    })
}

/// `--dry-run`: what would be done, as text; empty when there is nothing to do.
pub async fn dry_run(checked: &Checked) -> anyhow::Result<String> {
    let snapshot = take(checked).await?;
    let metrics = std::sync::Arc::new(Metrics::new()?);
    let mut out = String::new();
    for wanted in &snapshot.wanted {
        let family = wanted.site.family;
        let plan = in_mode(snapshot.mode, checked, family, &metrics, |mode| {
            mode.plan(wanted)
        })??;
        if !plan.is_empty() {
            let _ = writeln!(
                out,
                "# {} ({})\n{plan}",
                family.label(),
                snapshot.mode.as_str()
            );
        }
    }
    Ok(out)
}

/// `--once`: programs everything and ends.
pub async fn once(checked: &Checked) -> anyhow::Result<()> {
    let snapshot = take(checked).await?;
    let metrics = std::sync::Arc::new(Metrics::new()?);
    let mut errors = Vec::new();
    for wanted in &snapshot.wanted {
        let family = wanted.site.family;
        let report = in_mode(snapshot.mode, checked, family, &metrics, |mode| {
            mode.sync(wanted, &Changed::All)
        })?;
        tracing::info!("{}: {} changes", family.label(), report.changes);
        match report.errors.is_empty() {
            true => modes::remove_others(snapshot.mode, family, &snapshot.iptables),
            false => errors.extend(report.errors),
        }
    }
    anyhow::ensure!(errors.is_empty(), "{}", errors.join("; "));
    Ok(())
}

fn in_mode<T>(
    mode: ModeName,
    checked: &Checked,
    family: Family,
    metrics: &std::sync::Arc<Metrics>,
    work: impl FnOnce(&mut dyn crate::mode::Mode) -> T,
) -> anyhow::Result<T> {
    let mut mode = modes::build(mode, checked, family, metrics)?;
    Ok(work(mode.as_mut()))
}
