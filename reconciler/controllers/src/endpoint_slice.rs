//! EndpointSlices of Services with a selector: who takes part in a Service, as the proxies read it.
//!
//! For each family of a Service's addresses there are slices of at most 100 endpoints, apart for each set of resolved
//! ports (a named `targetPort` may differ from Pod to Pod). An endpoint is `ready` when its Pod is and is not on its
//! way out, or when `publishNotReadyAddresses` asks for all; `serving` and `terminating` tell the rest. `zone` and
//! hints are never written. Slices without our label `endpointslice.kubernetes.io/managed-by` are not touched, nor are
//! Services without selector or of type ExternalName.
//!
//! A change is written at once and alone: endpoints stay in the slice that has them, new ones fill what is being
//! written anyway, and no slice is rewritten to save room.

pub mod endpoint;
pub mod plan;
