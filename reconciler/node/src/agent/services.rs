//! Services as a container sees them in its environment.
//!
//! Only what began before the container is there; names are in upper case with `_` for `-`.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::watch;

use super::watching::{self, Outages};

/// What the environment tells of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its cluster IP.
    pub ip: String,
    /// Name, number, protocol.
    pub ports: Vec<(String, i32, String)>,
}

/// All Services that have a cluster IP, by namespace and name.
pub type Services = BTreeMap<(String, String), Told>;

/// Those in the API.
#[derive(Default)]
pub struct Known {
    all: RwLock<Services>,
    listed: watch::Sender<bool>,
}

impl Known {
    fn all(&self) -> RwLockWriteGuard<'_, Services> {
        self.all.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps up with the API.
    pub async fn follow(&self, client: Client, outages: Outages) {
        let api: Api<Service> = Api::all(client);
        let mut fresh = Services::new();
        let config = watcher::Config::default();
        watching::forever("services", api, config, outages, |event| match event {
            Event::Init => fresh.clear(),
            Event::InitApply(service) => fresh.extend(told(&service)),
            Event::InitDone => {
                *self.all() = std::mem::take(&mut fresh);
                self.listed.send_replace(true);
            }
            Event::Apply(service) => {
                let mut all = self.all();
                all.remove(&name_of(&service));
                all.extend(told(&service));
            }
            Event::Delete(service) => {
                self.all().remove(&name_of(&service));
            }
        })
        .await;
    }

    /// The variables for a Pod; waits for the first list.
    ///
    /// # Errors
    /// There has been none.
    pub async fn variables(
        &self,
        namespace: &str,
        links: bool,
    ) -> Result<BTreeMap<String, String>, String> {
        let mut listed = self.listed.subscribe();
        let wait = listed.wait_for(|listed| *listed);
        if tokio::time::timeout(Duration::from_secs(10), wait)
            .await
            .is_err()
        {
            return Err(
                "services have not yet been read at least once, cannot construct envvars"
                    .to_owned(),
            );
        }
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        Ok(variables(&all, namespace, links))
    }
}

fn name_of(service: &Service) -> (String, String) {
    (service.namespace().unwrap_or_default(), service.name_any())
}

/// What is to be told of a Service; headless ones and those without ports are not.
pub fn told(service: &Service) -> Option<((String, String), Told)> {
    let spec = service.spec.as_ref()?;
    let ip = spec
        .cluster_ip
        .clone()
        .filter(|ip| !ip.is_empty() && ip != "None")?;
    let ports: Vec<_> = spec
        .ports
        .iter()
        .flatten()
        .map(|port| {
            (
                port.name.clone().unwrap_or_default(),
                port.port,
                port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            )
        })
        .collect();
    let key = (
        service.metadata.namespace.clone()?,
        service.metadata.name.clone()?,
    );
    (!ports.is_empty()).then_some((key, Told { ip, ports }))
}

/// The variables for a Pod of a namespace: always those of the API server, with `links` those of its neighbours.
pub fn variables(services: &Services, namespace: &str, links: bool) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for ((of, name), told) in services {
        let master = of == "default" && name == "kubernetes";
        if master && !services.contains_key(&(namespace.to_owned(), name.clone()))
            || links && of == namespace
            || master && of == namespace
        {
            tell(&mut variables, name, told);
        }
    }
    variables
}

fn upper(name: &str) -> String {
    name.replace(['-', '.'], "_").to_uppercase()
}

fn tell(variables: &mut BTreeMap<String, String>, name: &str, told: &Told) {
    let prefix = upper(name);
    let mut set = |key: String, value: String| {
        variables.insert(key, value);
    };
    set(format!("{prefix}_SERVICE_HOST"), told.ip.clone());
    let address = if told.ip.contains(':') {
        format!("[{}]", told.ip)
    } else {
        told.ip.clone()
    };
    for (position, (name, port, protocol)) in told.ports.iter().enumerate() {
        let lower = protocol.to_lowercase();
        let url = format!("{lower}://{address}:{port}");
        if position == 0 {
            set(format!("{prefix}_SERVICE_PORT"), port.to_string());
            set(format!("{prefix}_PORT"), url.clone());
        }
        if !name.is_empty() {
            set(
                format!("{prefix}_SERVICE_PORT_{}", upper(name)),
                port.to_string(),
            );
        }
        let link = format!("{prefix}_PORT_{port}_{}", protocol.to_uppercase());
        set(format!("{link}_PROTO"), lower);
        set(format!("{link}_PORT"), port.to_string());
        set(format!("{link}_ADDR"), told.ip.clone());
        set(link, url);
    }
}
