//! The fronts that a Service asks for in one family, before clashes.

use std::collections::BTreeMap;

use crate::model::{Family, Front, FrontKind, PortName, Service, ServicePort};

/// A front that a service port asks for.
pub(super) struct Asked<'a> {
    pub(super) port: &'a ServicePort,
    pub(super) front: Front,
}

/// All of a Service. An address that is given twice (as external IP and by the load balancer, say)
/// is one front: the cluster IP before the load balancer's address, whose source ranges must hold,
/// before the external IP. A Service without a cluster IP of the family has none.
pub(super) fn asked(service: &Service, family: Family) -> Vec<Asked<'_>> {
    if !has_family(service, family) {
        return Vec::new();
    }
    let groups = [
        (FrontKind::ExternalIp, &service.external_ips),
        (FrontKind::LoadBalancer, &service.load_balancer_ips),
        (FrontKind::ClusterIp, &service.cluster_ips),
    ];
    // Later groups replace earlier ones.
    let mut kinds = BTreeMap::new();
    for (kind, ips) in groups {
        for &ip in ips.iter().filter(|&&ip| Family::of(ip) == family) {
            kinds.insert(ip, kind);
        }
    }
    let mut asked = Vec::new();
    for port in &service.ports {
        let fronts = kinds.iter().map(|(&ip, &kind)| Front {
            kind,
            ip: Some(ip),
            port: port.port,
        });
        asked.extend(fronts.map(|front| Asked { port, front }));
        asked.extend(port.node_port.map(|number| Asked {
            port,
            front: Front {
                kind: FrontKind::NodePort,
                ip: None,
                port: number,
            },
        }));
    }
    asked
}

/// Whether a Service is served in a family at all.
pub(super) fn has_family(service: &Service, family: Family) -> bool {
    service
        .cluster_ips
        .iter()
        .any(|&ip| Family::of(ip) == family)
}

/// The full name of a port of a Service.
pub(super) fn port_name(service: &Service, port: &ServicePort) -> PortName {
    PortName {
        service: service.name.clone(),
        port: port.name.clone(),
        protocol: port.protocol,
    }
}
