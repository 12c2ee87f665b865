//! What a client must find, waited for: the proxy follows its manifests with a small delay.

use super::site::Site;
use crate::namespace::Namespace;
use crate::traffic::{Answer, Outcome, Transport, knock};
use crate::wait::eventually;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// How long the proxy may take to follow.
const LIMIT: Duration = Duration::from_secs(5);
/// How long a client listens before it calls that silence.
const PATIENCE: Duration = Duration::from_millis(400);
/// How long it waits to be refused. Where client and node are one machine, an ICMP refusal comes
/// while `connect` still holds the socket, and TCP drops it (`LockDroppedIcmps`): only the answer to
/// the second SYN, a second later, is heard. A refusal by RST is heard at once.
const REFUSAL: Duration = Duration::from_millis(1500);
impl Site {
    /// Waits until one of `servers` answers.
    pub fn answers(
        &self,
        from: &Namespace,
        at: SocketAddr,
        transport: Transport,
        servers: &[SocketAddr],
    ) -> Result<Answer> {
        let what = format!("one of {servers:?} answers");
        self.wait_until(
            (&what, PATIENCE),
            from,
            at,
            transport,
            |outcome| match outcome {
                Outcome::Answered(answer) if servers.contains(&answer.by) => Ok(answer),
                other => bail!("{other}"),
            },
        )
    }

    /// Waits until one of `servers` answers, and requires that it sees the client as `source`.
    pub fn answers_seeing(
        &self,
        from: &Namespace,
        at: SocketAddr,
        transport: Transport,
        server: SocketAddr,
        source: std::net::IpAddr,
    ) -> Result<()> {
        let answer = self.answers(from, at, transport, &[server])?;
        ensure!(
            answer.seen.ip() == source,
            "{at} ({transport}) from {}: {server} saw {}, not {source}\n{}",
            from.name(),
            answer.seen.ip(),
            self.logs()
        );
        Ok(())
    }

    /// Waits until `server` answers, and in a row of knocks nobody else: by chance of two it would
    /// come to pass once in thirty thousand.
    pub fn answers_alone(
        &self,
        from: &Namespace,
        at: SocketAddr,
        transport: Transport,
        server: SocketAddr,
    ) -> Result<()> {
        self.answers(from, at, transport, &[server])?;
        let what = format!("{server} alone answers");
        eventually(&what, LIMIT, || {
            let counts = self.spread(from, at, transport, 15)?;
            ensure!(counts.keys().all(|by| *by == server), "{counts:?}");
            Ok(())
        })
        .with_context(|| format!("{}: {at}\n{}", self.mode, self.logs()))
    }

    /// Waits until the client is told at once that nobody listens.
    pub fn refused(&self, from: &Namespace, at: SocketAddr, transport: Transport) -> Result<()> {
        let wanted = ("refused", REFUSAL);
        self.wait_until(wanted, from, at, transport, |outcome| match outcome {
            Outcome::Refused => Ok(()),
            other => bail!("{other}"),
        })
    }

    /// Waits until nothing comes back. In userspace mode a refusal will do: the address is one of
    /// the node's, and where no socket listens the kernel says so.
    pub fn silent(&self, from: &Namespace, at: SocketAddr, transport: Transport) -> Result<()> {
        let wanted = ("silence", PATIENCE);
        self.wait_until(wanted, from, at, transport, |outcome| match outcome {
            Outcome::Silence => Ok(()),
            Outcome::Refused if !self.mode.keeps_source() => Ok(()),
            other => bail!("{other}"),
        })
    }

    /// Waits until no server answers, however that shows.
    pub fn unanswered(&self, from: &Namespace, at: SocketAddr, transport: Transport) -> Result<()> {
        let wanted = ("no answer", PATIENCE);
        self.wait_until(wanted, from, at, transport, |outcome| match outcome {
            Outcome::Answered(_) => bail!("{outcome}"),
            _ => Ok(()),
        })
    }

    fn wait_until<T>(
        &self,
        (what, patience): (&str, Duration),
        from: &Namespace,
        at: SocketAddr,
        transport: Transport,
        mut check: impl FnMut(Outcome) -> Result<T>,
    ) -> Result<T> {
        let found = eventually(what, LIMIT, || check(knock(from, at, transport, patience)?));
        found.with_context(|| {
            format!(
                "{}: {at} ({transport}) from {}\n{}",
                self.mode,
                from.name(),
                self.logs()
            )
        })
    }

    /// Knocks `times` times, each of which must be answered; how often by whom.
    pub fn spread(
        &self,
        from: &Namespace,
        at: SocketAddr,
        transport: Transport,
        times: u32,
    ) -> Result<BTreeMap<SocketAddr, u32>> {
        let mut counts = BTreeMap::new();
        for number in 0..times {
            match knock(from, at, transport, Duration::from_secs(2))? {
                Outcome::Answered(answer) => *counts.entry(answer.by).or_default() += 1,
                other => bail!(
                    "knock {number} at {at} ({transport}): {other}\n{}",
                    self.logs()
                ),
            }
        }
        Ok(counts)
    }

    /// The ends of all proxies' logs, for the message of a failed test.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for node in &self.nodes {
            let tail = (node.daemon.as_ref()).map_or_else(
                || "it does not run".to_owned(),
                crate::process::Process::log_tail,
            );
            text += &format!("--- {}'s weft-proxy:\n{tail}\n", node.name);
        }
        text
    }
}
