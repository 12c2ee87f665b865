//! From a Service, its Pods and its slices to the fewest writes of slices.

use super::endpoint::{self, Family};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use std::collections::{BTreeMap, BTreeSet};

/// The most endpoints that a slice has.
pub const CAPACITY: usize = 100;
/// Whose slices these are.
pub const SERVICE: &str = "kubernetes.io/service-name";
/// Who writes a slice.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Ours, the same as in Kubernetes, so that one may follow the other.
pub const MANAGER: &str = "endpointslice-controller.k8s.io";
/// On the slices of a Service without address.
pub const HEADLESS: &str = "service.kubernetes.io/headless";
/// When what the slice tells has happened.
pub const TRIGGERED: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// A write.
#[derive(Clone, Debug, PartialEq)]
#[allow(
    clippy::large_enum_variant,
    reason = "few, and most carry a slice anyway"
)]
pub enum Change {
    /// A new slice; the server chooses the end of its name.
    Create(EndpointSlice),
    /// The slice as it is to be, with the revision that it was read at.
    Update(EndpointSlice),
    /// The slice of this name goes.
    Delete(String),
}

/// Whether the slice is ours and this Service's.
pub fn is_of(slice: &EndpointSlice, service: &Service) -> bool {
    let labels = slice.metadata.labels.as_ref();
    let label = |key| labels.and_then(|labels| labels.get(key));
    label(MANAGED_BY).is_some_and(|manager| manager == MANAGER)
        && label(SERVICE) == service.metadata.name.as_ref()
        && slice.metadata.namespace == service.metadata.namespace
}

/// The writes that lead from `slices`, all of this Service and ours, to what its Pods ask for. `pods` may hold others
/// than the Service selects.
pub fn plan(service: &Service, pods: &[&Pod], slices: &[&EndpointSlice]) -> Vec<Change> {
    if !endpoint::is_ours(service) || service.metadata.deletion_timestamp.is_some() {
        return Vec::new();
    }
    let mut pods: Vec<&Pod> = pods.iter().copied().collect();
    pods.retain(|pod| endpoint::selects(service, pod));
    pods.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let mut slices: Vec<&EndpointSlice> = slices
        .iter()
        .copied()
        .filter(|slice| slice.metadata.deletion_timestamp.is_none())
        .collect();
    slices.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let triggered = endpoint::changed_at(service, &pods);

    let families = endpoint::families(service);
    let mut changes = Vec::new();
    for &family in &families {
        let (mine, others): (Vec<_>, Vec<_>) = slices
            .into_iter()
            .partition(|slice| slice.address_type == family.name());
        slices = others;
        changes.extend(of_family(service, &pods, mine, family));
    }
    changes.extend(slices.into_iter().map(delete));
    for change in &mut changes {
        if let (Change::Create(slice) | Change::Update(slice), Some(at)) = (change, triggered) {
            let annotations = slice.metadata.annotations.get_or_insert_default();
            annotations.insert(TRIGGERED.to_owned(), at.to_string());
        }
    }
    changes
}

/// One set of ports, and the endpoints that have them, by the Pod's identity.
type Groups = BTreeMap<String, Group>;

#[derive(Default)]
struct Group {
    ports: Option<Vec<EndpointPort>>,
    wanted: BTreeMap<String, Endpoint>,
    slices: Vec<Draft>,
}

/// A slice on its way from what it is to what it is to be.
struct Draft {
    /// None: it is new.
    was: Option<EndpointSlice>,
    endpoints: Vec<Endpoint>,
    changed: bool,
}

impl Draft {
    fn room(&self) -> usize {
        CAPACITY.saturating_sub(self.endpoints.len())
    }
}

fn of_family(
    service: &Service,
    pods: &[&Pod],
    slices: Vec<&EndpointSlice>,
    family: Family,
) -> Vec<Change> {
    let mut groups = Groups::new();
    for pod in pods {
        if let Some(endpoint) = endpoint::endpoint(service, pod, family) {
            let ports = endpoint::ports(service, pod);
            let group = groups.entry(key(&ports)).or_default();
            group.ports = Some(ports);
            group.wanted.insert(identity(&endpoint), endpoint);
        }
    }
    if groups.is_empty() {
        // A Service without endpoints has one empty slice, so that who watches knows that there are none.
        groups.insert(String::new(), Group::default());
    }
    let mut spare = Vec::new();
    for slice in slices {
        match groups.get_mut(&key(slice.ports.as_deref().unwrap_or_default())) {
            Some(group) => group.take(slice),
            None => spare.push(slice),
        }
    }
    let mut changes = Vec::new();
    for group in groups.into_values() {
        group.finish(service, family, &mut spare, &mut changes);
    }
    changes.extend(spare.into_iter().map(delete));
    changes
}

impl Group {
    /// Keeps in a slice what is still wanted there, as it is now.
    fn take(&mut self, slice: &EndpointSlice) {
        let mut draft = Draft {
            was: Some(slice.clone()),
            endpoints: Vec::new(),
            changed: false,
        };
        for old in slice.endpoints.iter().flatten() {
            match self.wanted.remove(&identity(old)) {
                Some(new) if draft.room() > 0 => {
                    draft.changed |= new != *old;
                    draft.endpoints.push(new);
                }
                Some(new) => {
                    draft.changed = true;
                    self.wanted.insert(identity(old), new);
                }
                None => draft.changed = true,
            }
        }
        self.slices.push(draft);
    }

    /// Places what no slice has yet, and tells what differs.
    fn finish(
        mut self,
        service: &Service,
        family: Family,
        spare: &mut Vec<&EndpointSlice>,
        changes: &mut Vec<Change>,
    ) {
        let mut rest: Vec<Endpoint> = std::mem::take(&mut self.wanted).into_values().collect();
        rest.sort_by(|a, b| name(a).cmp(&name(b)));
        // What is written anyway is filled first; one more slice is touched only if it takes all that is left.
        for draft in self.slices.iter_mut().filter(|draft| draft.changed) {
            let fits = draft.room().min(rest.len());
            draft.endpoints.extend(rest.drain(..fits));
        }
        if !rest.is_empty() {
            let fitting = self.slices.iter_mut().filter(|draft| !draft.changed);
            let fitting = fitting.filter(|draft| draft.room() >= rest.len() % CAPACITY);
            let tightest = fitting.min_by_key(|draft| draft.room());
            if let Some(draft) = tightest
                && rest.len() % CAPACITY > 0
            {
                draft.endpoints.extend(rest.drain(..rest.len() % CAPACITY));
                draft.changed = true;
            }
        }
        if rest.is_empty() && self.slices.is_empty() {
            // Nothing to show, and nothing that shows it.
            self.slices.push(Draft::from_spare(spare));
        }
        while !rest.is_empty() {
            let mut draft = Draft::from_spare(spare);
            draft
                .endpoints
                .extend(rest.drain(..rest.len().min(CAPACITY)));
            self.slices.push(draft);
        }
        // The first of none but empty slices stays; every other empty one goes.
        let mut keep_one = self.slices.iter().all(|draft| draft.endpoints.is_empty());
        for draft in self.slices {
            if draft.endpoints.is_empty() && !std::mem::take(&mut keep_one) {
                changes.extend(draft.was.iter().map(delete));
                continue;
            }
            let now = slice(
                service,
                family,
                draft.was.as_ref(),
                &self.ports,
                draft.endpoints,
            );
            match draft.was {
                None => changes.push(Change::Create(now)),
                Some(was) if differs(&was, &now) => changes.push(Change::Update(now)),
                Some(_) => {}
            }
        }
    }
}

impl Draft {
    /// A slice that has lost its use, or a new one.
    fn from_spare(spare: &mut Vec<&EndpointSlice>) -> Self {
        let was = (!spare.is_empty()).then(|| spare.remove(0).clone());
        Self {
            was,
            endpoints: Vec::new(),
            changed: true,
        }
    }
}

fn slice(
    service: &Service,
    family: Family,
    was: Option<&EndpointSlice>,
    ports: &Option<Vec<EndpointPort>>,
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    let mut metadata = was.map_or_else(
        || ObjectMeta {
            generate_name: service
                .metadata
                .name
                .as_ref()
                .map(|name| format!("{name}-")),
            namespace: service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
        |was| was.metadata.clone(),
    );
    metadata.managed_fields = None;
    metadata.labels = Some(labels(service));
    metadata.owner_references = Some(vec![owner(service)]);
    EndpointSlice {
        address_type: family.name().to_owned(),
        endpoints: Some(endpoints),
        metadata,
        ports: ports.clone(),
    }
}

/// The Service's own labels and those that say what a slice is.
fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if endpoint::is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    let name = service.metadata.name.clone().unwrap_or_default();
    labels.insert(SERVICE.to_owned(), name);
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

fn owner(service: &Service) -> OwnerReference {
    OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Service".to_owned(),
        name: service.metadata.name.clone().unwrap_or_default(),
        uid: service.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

fn differs(was: &EndpointSlice, now: &EndpointSlice) -> bool {
    let list = |slice: &EndpointSlice| slice.endpoints.clone().unwrap_or_default();
    let ports = |slice: &EndpointSlice| slice.ports.clone().unwrap_or_default();
    list(was) != list(now)
        || ports(was) != ports(now)
        || was.metadata.labels != now.metadata.labels
        || was.metadata.owner_references != now.metadata.owner_references
}

fn delete(slice: &EndpointSlice) -> Change {
    Change::Delete(slice.metadata.name.clone().unwrap_or_default())
}

/// Which Pod at which address this is. Endpoints of others' making have no Pod; their address says who they are.
fn identity(endpoint: &Endpoint) -> String {
    let uid = endpoint.target_ref.as_ref().and_then(|pod| pod.uid.clone());
    format!(
        "{} {}",
        uid.unwrap_or_default(),
        endpoint.addresses.join(",")
    )
}

fn name(endpoint: &Endpoint) -> Option<&String> {
    endpoint.target_ref.as_ref()?.name.as_ref()
}

/// A set of ports as text; their order does not matter.
fn key(ports: &[EndpointPort]) -> String {
    let lines: BTreeSet<String> = ports
        .iter()
        .map(|port| {
            format!(
                "{}/{}/{}/{}",
                port.name.as_deref().unwrap_or_default(),
                port.protocol.as_deref().unwrap_or("TCP"),
                port.port.unwrap_or_default(),
                port.app_protocol.as_deref().unwrap_or_default(),
            )
        })
        .collect();
    lines.into_iter().collect::<Vec<_>>().join(" ")
}
