//! Addresses and node ports of Services.
//!
//! Each one that is given out is a key of its own in the store, written by "create if absent". So no two Services get
//! the same, whichever API server serves them and whenever it was started; nothing is loaded at the start. What a crash
//! leaves behind (a claim without its Service) is found and removed by [`Services::repair`].
//!
//! Keys: `/registry/ranges/serviceips/10.96.0.5`, `/registry/ranges/servicenodeports/30080`.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use ipnet::IpNet;
use serde_json::{Value, json};

use super::defaults;
use super::kinds::{self, Kind};
use super::object;
use super::status::{Cause, Status};
use crate::store::{self, Range, Store};

mod want;

use want::{Kept, Port, Wish};

const IPS: &str = "/registry/ranges/serviceips/";
const PORTS: &str = "/registry/ranges/servicenodeports/";
/// A claim without a Service is removed when it is older: until then its Service may still be on its way.
const ORPHAN_SECONDS: i64 = 60;
/// Random draws before the whole range is looked at.
const DRAWS: usize = 16;

/// What can be given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranges {
    /// One or two networks of different families; the first is the primary one.
    pub networks: Vec<IpNet>,
    /// First and last.
    pub node_ports: (u16, u16),
}

/// Gives out addresses and node ports.
pub struct Services {
    store: Arc<dyn Store>,
    ranges: Ranges,
}

/// What has been claimed for a write that is not done yet.
#[derive(Debug, Default)]
#[must_use = "claims are kept or released"]
pub struct Claims {
    /// Of the Service that they are for.
    uid: String,
    /// Nothing is written.
    dry: bool,
    new: Vec<String>,
    /// What the Service had before and has no more.
    old: Vec<String>,
}

/// Why something was not given out.
enum Refusal {
    Causes(Vec<Cause>),
    Full(String),
    Store(store::Error),
}

impl From<store::Error> for Refusal {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}

impl Services {
    /// Over a store.
    pub fn new(store: Arc<dyn Store>, ranges: Ranges) -> Self {
        Self { store, ranges }
    }

    /// What can be given out.
    pub fn ranges(&self) -> &Ranges {
        &self.ranges
    }

    /// Decides the families of a Service, as the cluster has them; what it cannot have.
    pub fn families(&self, kind: &Kind, service: &mut Value, old: Option<&Value>) -> Vec<Cause> {
        if !is_service(kind) {
            return Vec::new();
        }
        let networks = self.ranges.networks.iter();
        let cluster: Vec<_> = networks
            .map(|network| want::family(network.addr()))
            .collect();
        defaults::service::families(service, old, &cluster)
    }

    /// Completes a Service with addresses, families and node ports, and claims them. Anything but a Service is left
    /// alone.
    ///
    /// # Errors
    /// 422 for what cannot be given, 500 when a range is full, and the store's errors.
    pub async fn claim(
        &self,
        kind: &Kind,
        service: &mut Value,
        old: Option<&Value>,
        dry_run: bool,
    ) -> Result<Claims, Status> {
        if !is_service(kind) {
            return Ok(Claims::default());
        }
        let mut claims = Claims {
            uid: object::uid(service).to_owned(),
            dry: dry_run,
            ..Claims::default()
        };
        match self.fill(service, old, &mut claims).await {
            Ok(()) => {
                let now: HashSet<_> = keys(service).into_iter().collect();
                claims.old = old.map(keys).unwrap_or_default();
                claims.old.retain(|key| !now.contains(key));
                Ok(claims)
            }
            Err(refusal) => {
                claims.old.clear();
                self.undo(claims).await;
                Err(match refusal {
                    Refusal::Causes(causes) => {
                        Status::invalid("", "Service", object::name(service), &causes)
                    }
                    Refusal::Full(text) => Status::internal(text),
                    Refusal::Store(error) => error.into(),
                })
            }
        }
    }

    /// The write is done: what the Service no longer has can be given to others.
    pub async fn keep(&self, claims: Claims) {
        self.release(&claims.old, &claims.uid).await;
    }

    /// The write was not done.
    pub async fn undo(&self, claims: Claims) {
        if claims.dry {
            return;
        }
        self.release(&claims.new, &claims.uid).await;
    }

    /// A Service has been deleted.
    pub async fn freed(&self, kind: &Kind, service: &Value) {
        if is_service(kind) {
            self.release(&keys(service), object::uid(service)).await;
        }
    }

    /// Only what is still this Service's: it may have been released before, and given to another.
    async fn release(&self, keys: &[String], uid: &str) {
        for key in keys {
            let released = match self.store.get(key).await {
                Ok(Some(entry)) if belongs(&entry, uid) => {
                    self.store.delete(key, entry.revision).await.map(|_| ())
                }
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = released {
                tracing::warn!("release {key}: {error}; the next look at all claims will");
            }
        }
    }

    async fn fill(
        &self,
        service: &mut Value,
        old: Option<&Value>,
        claims: &mut Claims,
    ) -> Result<(), Refusal> {
        let wish = want::read(service, &Kept::of(old), &self.ranges).map_err(Refusal::Causes)?;
        let Wish {
            families,
            mut addresses,
            mut ports,
            health,
        } = wish;
        let owner = Owner::of(service);
        let had: HashSet<String> = old.map(keys).unwrap_or_default().into_iter().collect();
        for (family, address) in families.iter().zip(addresses.iter_mut()) {
            if let want::Address::Any = address {
                let network = self.network(family)?;
                *address = want::Address::This(self.draw_address(network, &owner, claims).await?);
            } else if let want::Address::This(ip) = *address {
                let key = format!("{IPS}{ip}");
                if !had.contains(&key) && !self.take(&key, &owner, claims).await? {
                    let shown: Vec<_> = addresses
                        .iter()
                        .filter_map(want::Address::ip)
                        .map(|ip| ip.to_string())
                        .collect();
                    let text =
                        format!("failed to allocate IP {ip}: provided IP is already allocated");
                    return Err(Refusal::Causes(vec![Cause::invalid(
                        "spec.clusterIPs",
                        &json!(shown),
                        &text,
                    )]));
                }
            }
        }
        let mut taken: HashMap<u16, &'static str> = HashMap::new();
        for (index, port) in ports.iter_mut().enumerate() {
            if let Port::This(number) = *port {
                let key = format!("{PORTS}{number}");
                if taken.insert(number, "").is_none()
                    && !had.contains(&key)
                    && !self.take(&key, &owner, claims).await?
                {
                    let field = format!("spec.ports[{index}].nodePort");
                    let cause =
                        Cause::invalid(field, &json!(number), "provided port is already allocated");
                    return Err(Refusal::Causes(vec![cause]));
                }
            }
        }
        for port in &mut ports {
            if matches!(port, Port::Any) {
                *port = Port::This(self.draw_port(&owner, claims).await?);
            }
        }
        let health = match health {
            Port::None => None,
            Port::Any => Some(self.draw_port(&owner, claims).await?),
            Port::This(number) => {
                let key = format!("{PORTS}{number}");
                if !had.contains(&key) && !self.take(&key, &owner, claims).await? {
                    let cause = Cause::invalid(
                        "spec.healthCheckNodePort",
                        &json!(number),
                        "provided port is already allocated",
                    );
                    return Err(Refusal::Causes(vec![cause]));
                }
                Some(number)
            }
        };
        want::write(service, &addresses, &ports, health);
        Ok(())
    }

    fn network(&self, family: &str) -> Result<IpNet, Refusal> {
        let of = |network: &&IpNet| want::family(network.addr()) == family;
        let network = self.ranges.networks.iter().find(of).copied();
        network.ok_or_else(|| Refusal::Full(format!("no service network of family {family}")))
    }

    /// Writes a claim; false if another Service has it.
    async fn take(&self, key: &str, owner: &Owner, claims: &mut Claims) -> Result<bool, Refusal> {
        if claims.dry {
            let free = !claims.new.iter().any(|taken| taken == key)
                && self.store.get(key).await?.is_none();
            claims.new.extend(free.then(|| key.to_owned()));
            return Ok(free);
        }
        match self.store.create(key, owner.claim()).await {
            Ok(_) => {
                claims.new.push(key.to_owned());
                Ok(true)
            }
            Err(store::Error::Exists(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn draw_address(
        &self,
        network: IpNet,
        owner: &Owner,
        claims: &mut Claims,
    ) -> Result<IpAddr, Refusal> {
        let (first, count) = want::hosts(network);
        // The lower part is left to those who ask for a certain address, as long as there is room.
        let reserved = (count / 16).clamp(16, 256).min(count / 2);
        for _ in 0..DRAWS {
            let offset = reserved + random(count - reserved);
            let ip = want::nth(first, offset);
            if self.take(&format!("{IPS}{ip}"), owner, claims).await? {
                return Ok(ip);
            }
        }
        // Nearly full: look which are free. A network of more than 2^16 addresses is not listed but drawn from.
        let taken = self.taken(IPS).await?;
        let order = (reserved..count).chain(0..reserved).take(1 << 16);
        for ip in order.map(|offset| want::nth(first, offset)) {
            if !taken.contains(&ip.to_string())
                && self.take(&format!("{IPS}{ip}"), owner, claims).await?
            {
                return Ok(ip);
            }
        }
        Err(Refusal::Full(format!(
            "failed to allocate a serviceIP: range is full ({network}); delete Services, or start with a larger --service-cidr"
        )))
    }

    async fn draw_port(&self, owner: &Owner, claims: &mut Claims) -> Result<u16, Refusal> {
        let (first, last) = self.ranges.node_ports;
        let count = u128::from(last.saturating_sub(first)) + 1;
        let port = |offset: u128| first.saturating_add(offset as u16);
        for _ in 0..DRAWS {
            let number = port(random(count));
            if self
                .take(&format!("{PORTS}{number}"), owner, claims)
                .await?
            {
                return Ok(number);
            }
        }
        let taken = self.taken(PORTS).await?;
        for number in (0..count).map(port) {
            if !taken.contains(&number.to_string())
                && self
                    .take(&format!("{PORTS}{number}"), owner, claims)
                    .await?
            {
                return Ok(number);
            }
        }
        Err(Refusal::Full(format!(
            "failed to allocate a nodePort: range is full ({first}-{last}); delete Services, or start with a larger --service-node-port-range"
        )))
    }

    async fn taken(&self, prefix: &str) -> Result<HashSet<String>, Refusal> {
        let range = Range {
            prefix: prefix.to_owned(),
            ..Range::default()
        };
        let page = self.store.list(range).await?;
        let name = |entry: store::Entry| entry.key.strip_prefix(prefix).map(str::to_owned);
        Ok(page.entries.into_iter().filter_map(name).collect())
    }

    /// Makes claims and Services agree: a Service without its claims gets them, an old claim without a Service goes.
    ///
    /// # Errors
    /// The store's.
    pub async fn repair(&self) -> Result<(), store::Error> {
        let all = |prefix: &str| Range {
            prefix: prefix.to_owned(),
            ..Range::default()
        };
        // Claims first: a Service that comes into being in between has newer ones than were read.
        let mut claims = self.store.list(all(IPS)).await?.entries;
        claims.extend(self.store.list(all(PORTS)).await?.entries);
        let Some(kind) = kinds::find("", "v1", "services") else {
            return Ok(());
        };
        let mut held = HashMap::new();
        for entry in self.store.list(all(&kind.prefix(None))).await?.entries {
            if let Ok(service) = object::decode(&entry.value, entry.revision) {
                let owner = Owner::of(&service);
                held.extend(keys(&service).into_iter().map(|key| (key, owner.clone())));
            }
        }
        let now = jiff::Timestamp::now().as_second();
        for entry in claims {
            let since = serde_json::from_slice::<Value>(&entry.value).ok();
            let since = since.and_then(|claim| claim["since"].as_i64()).unwrap_or(0);
            if held.remove(&entry.key).is_none() && since + ORPHAN_SECONDS < now {
                tracing::info!("{} is held by no Service: released", entry.key);
                match self.store.delete(&entry.key, entry.revision).await {
                    Ok(_) | Err(store::Error::Changed { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        for (key, owner) in held {
            match self.store.create(&key, owner.claim()).await {
                Ok(_) => tracing::info!(
                    "{key} was not claimed by its Service {}: it is now",
                    owner.service
                ),
                Err(store::Error::Exists(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The first address of a range, which the Service `kubernetes` has.
pub fn first_address(network: IpNet) -> IpAddr {
    want::hosts(network).0
}

/// In whose name something is claimed.
#[derive(Clone, Debug)]
struct Owner {
    service: String,
    uid: String,
}

impl Owner {
    fn of(service: &Value) -> Self {
        Self {
            service: format!(
                "{}/{}",
                object::namespace(service).unwrap_or_default(),
                object::name(service)
            ),
            uid: object::uid(service).to_owned(),
        }
    }

    fn claim(&self) -> Bytes {
        let since = jiff::Timestamp::now().as_second();
        json!({"service": self.service, "uid": self.uid, "since": since})
            .to_string()
            .into()
    }
}

/// Below `end`, which is at least 1.
fn random(end: u128) -> u128 {
    fastrand::u128(0..end.max(1))
}

fn is_service(kind: &Kind) -> bool {
    kind.group.is_empty() && kind.kind == "Service"
}

fn belongs(claim: &store::Entry, uid: &str) -> bool {
    serde_json::from_slice::<Value>(&claim.value).is_ok_and(|claim| claim["uid"] == uid)
}

/// The claims that a stored Service has.
fn keys(service: &Value) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for ip in object::list(service, &["spec", "clusterIPs"]) {
        if let Some(ip) = ip.as_str().and_then(|text| text.parse::<IpAddr>().ok()) {
            all.push(format!("{IPS}{ip}"));
        }
    }
    let ports = object::list(service, &["spec", "ports"]);
    let mut numbers: Vec<_> = ports
        .iter()
        .filter_map(|port| port["nodePort"].as_u64())
        .collect();
    numbers.extend(
        object::number(service, &["spec", "healthCheckNodePort"])
            .and_then(|number| u64::try_from(number).ok()),
    );
    numbers.sort_unstable();
    numbers.dedup();
    all.extend(
        numbers
            .into_iter()
            .filter(|number| *number > 0)
            .map(|number| format!("{PORTS}{number}")),
    );
    all
}
