//! Which stream of which Pod a path asks for.

/// What a path means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `/healthz`
    Health,
    /// A Pod's.
    Pod(PodTarget),
}

/// Something of a Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodTarget {
    /// What of it.
    pub verb: Verb,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// If it is to be that one and no other of the same name.
    pub uid: Option<String>,
    /// Empty for port-forward.
    pub container: String,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// What a container has written.
    Logs,
    /// A command in a container.
    Exec,
    /// A container's own streams.
    Attach,
    /// Connections to ports in the Pod.
    PortForward,
}

/// Reads a path. Segments are names of Kubernetes, in which nothing is ever escaped.
pub fn parse(path: &str) -> Option<Target> {
    let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    let (&folder, rest) = segments.split_first()?;
    if rest.iter().any(|segment| segment.is_empty()) {
        return None;
    }
    let verb = match folder {
        "healthz" if rest.is_empty() => return Some(Target::Health),
        "containerLogs" => Verb::Logs,
        "exec" => Verb::Exec,
        "attach" => Verb::Attach,
        "portForward" => Verb::PortForward,
        _ => return None,
    };
    let (namespace, pod, uid, container) = match (verb, rest) {
        (Verb::PortForward, &[namespace, pod]) => (namespace, pod, None, ""),
        (Verb::PortForward, &[namespace, pod, uid]) => (namespace, pod, Some(uid), ""),
        (Verb::PortForward, _) => return None,
        (_, &[namespace, pod, container]) => (namespace, pod, None, container),
        (Verb::Exec | Verb::Attach, &[namespace, pod, uid, container]) => {
            (namespace, pod, Some(uid), container)
        }
        _ => return None,
    };
    Some(Target::Pod(PodTarget {
        verb,
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        uid: uid.map(str::to_owned),
        container: container.to_owned(),
    }))
}
