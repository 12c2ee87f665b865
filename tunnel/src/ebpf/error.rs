//! Why the kernel, or the build, has no eBPF data path for us.

/// An error of the eBPF data path; prints as one line, fit for the daemon's "chose … because …".
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The build left the programs out.
    #[error("the eBPF programs were not built: {0}")]
    NotBuilt(&'static str),
    /// What was asked for is not what the programs do.
    #[error("the eBPF data path does not carry {0}")]
    Unsupported(String),
    /// The programs' datagrams would go out past this policy.
    #[error(
        "eBPF would send datagrams past IPsec: there is an outbound policy (ip xfrm policy: {0})"
    )]
    Ipsec(kernel::xfrm::Policy),
    /// The kernel refused.
    #[error("{what}: {cause}")]
    Refused {
        /// Operation and object.
        what: String,
        /// The kernel's reason; of the verifier's log the last line that says something.
        cause: String,
    },
    /// Netlink refused.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
}

impl Error {
    pub(super) fn refused(what: impl Into<String>, cause: &dyn std::error::Error) -> Self {
        Self::Refused {
            what: what.into(),
            cause: one_line(cause),
        }
    }
}

/// The error and what caused it; a verifier's log is cut down to its verdict.
fn one_line(error: &dyn std::error::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let first = lines.next().unwrap_or_default();
        let verdict = lines.rfind(|line| {
            !line.starts_with("processed ") && !line.starts_with("verification time")
        });
        let part = match verdict {
            Some(verdict) => format!("{first} … {verdict}"),
            None => first.to_owned(),
        };
        if !parts.iter().any(|before| before.contains(&part)) {
            parts.push(part);
        }
        next = error.source();
    }
    parts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("load failed\n0: r1 = 1\n1: invalid access to packet\nprocessed 2 insns\n")]
    struct Load(#[source] std::io::Error);

    #[test]
    fn one_line_with_the_verdict_and_the_cause() {
        let error = Error::refused(
            "load program weft_egress",
            &Load(std::io::Error::other("permission denied")),
        );
        assert_eq!(
            error.to_string(),
            "load program weft_egress: load failed … 1: invalid access to packet: permission denied"
        );
    }
}
