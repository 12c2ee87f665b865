//! The environment of a call: which variables each verb needs, and which values are refused.

use crate::cni::{Error, Result, code};
use std::collections::BTreeMap;
use std::fmt;

/// What the runtime asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Connect the container.
    Add,
    /// Undo an ADD; succeeds when there is nothing to undo.
    Del,
    /// Compare what an ADD made with what is there.
    Check,
    /// Say whether an ADD could be served now.
    Status,
    /// Remove what belongs to no listed attachment.
    Gc,
}

impl Verb {
    /// As CNI_COMMAND has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Status => "STATUS",
            Self::Gc => "GC",
        }
    }

    /// Reads CNI_COMMAND.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Add, Self::Del, Self::Check, Self::Status, Self::Gc]
            .into_iter()
            .find(|verb| verb.as_str() == text)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The names of the variables, in the order in which missing ones are reported.
const NAMES: [&str; 7] = [
    "CNI_COMMAND",
    "CNI_CONTAINERID",
    "CNI_NETNS",
    "CNI_IFNAME",
    "CNI_ARGS",
    "CNI_PATH",
    "CNI_NETNS_OVERRIDE",
];

/// The CNI variables of one call. A variable that is absent and one that is empty are the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Env(BTreeMap<&'static str, String>);

impl Env {
    /// Takes the CNI variables from pairs; others are left aside.
    pub fn new<K: AsRef<str>, V: Into<String>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        let mut env = Self::default();
        for (key, value) in pairs {
            if let Some(name) = NAMES.into_iter().find(|name| *name == key.as_ref()) {
                env.0.insert(name, value.into());
            }
        }
        env
    }

    /// Takes the CNI variables of this process; one that is no UTF-8 is an error.
    pub fn of_process() -> Result<Self> {
        let mut env = Self::default();
        for name in NAMES {
            match std::env::var(name) {
                Ok(value) => {
                    env.0.insert(name, value);
                }
                Err(std::env::VarError::NotPresent) => {}
                Err(std::env::VarError::NotUnicode(raw)) => {
                    return Err(invalid(format!("{name} is not valid UTF-8"))
                        .with_details(raw.to_string_lossy()));
                }
            }
        }
        Ok(env)
    }

    /// A variable's value, empty when it is absent.
    pub fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// The same environment for another verb.
    #[must_use]
    pub fn for_verb(&self, verb: Verb) -> Self {
        let mut env = self.clone();
        env.0.insert("CNI_COMMAND", verb.as_str().to_owned());
        env
    }

    /// Every variable with its value; empty ones too, so that a child process inherits none.
    pub fn pairs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        NAMES.into_iter().map(|name| (name, self.get(name)))
    }

    /// Checks that what CNI_COMMAND needs is there and has an allowed form, and names the verb:
    /// `None` for VERSION, an error for an unknown one.
    pub(crate) fn verb(&self) -> Result<Option<Verb>> {
        let command = self.get("CNI_COMMAND");
        let verb = Verb::parse(command);
        let needed: &[&str] = match verb {
            Some(Verb::Add | Verb::Check) => {
                &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"]
            }
            Some(Verb::Del) => &["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"],
            Some(Verb::Gc | Verb::Status) => &["CNI_PATH"],
            None if command.is_empty() => &["CNI_COMMAND"],
            None => &[],
        };
        for name in needed {
            match (*name, self.get(name)) {
                (_, "") => {}
                ("CNI_CONTAINERID", id) => validate_container_id(id)?,
                ("CNI_IFNAME", ifname) => validate_interface_name(ifname)?,
                _ => {}
            }
        }
        let missing: Vec<_> = needed
            .iter()
            .copied()
            .filter(|name| self.get(name).is_empty())
            .collect();
        if !missing.is_empty() {
            return Err(invalid(format!(
                "required env variables [{}] missing",
                missing.join(",")
            )));
        }
        match verb {
            None if command != "VERSION" => Err(invalid(format!("unknown CNI_COMMAND: {command}"))),
            verb => Ok(verb),
        }
    }
}

fn invalid(msg: impl Into<String>) -> Error {
    Error::new(code::INVALID_ENVIRONMENT, msg)
}

/// Whether a text has the form that the spec asks of container IDs and network names: a letter or
/// digit, then letters, digits, `_`, `.` and `-`. So it is also safe as a file name.
fn is_plain_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// Refuses a container ID that the spec does not allow (a slash and a leading dot included).
pub(crate) fn validate_container_id(id: &str) -> Result<()> {
    if id.is_empty() {
        return Err(invalid("missing containerID"));
    }
    if !is_plain_name(id) {
        return Err(invalid("invalid characters in containerID").with_details(id));
    }
    Ok(())
}

/// Refuses a network name that the spec does not allow; it becomes a folder's name.
pub(crate) fn validate_network_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::config("missing network name"));
    }
    if !is_plain_name(name) {
        return Err(Error::config("invalid characters found in network name").with_details(name));
    }
    Ok(())
}

/// Refuses an interface name that the kernel would refuse.
pub(crate) fn validate_interface_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(invalid("interface name is empty"));
    }
    if name.len() > 15 {
        return Err(invalid("interface name is too long")
            .with_details("interface name should be less than 16 characters"));
    }
    if matches!(name, "." | "..") {
        return Err(invalid("interface name is . or .."));
    }
    if name.contains(|c: char| matches!(c, '/' | ':') || c.is_whitespace()) {
        return Err(invalid(
            "interface name contains / or : or whitespace characters",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn env(pairs: &[(&str, &str)]) -> Env {
        Env::new(pairs.iter().map(|(k, v)| (*k, *v)))
    }

    fn refusal(pairs: &[(&str, &str)]) -> Error {
        env(pairs).verb().unwrap_err()
    }

    const FULL: [(&str, &str); 4] = [
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/run/netns/x"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin"),
    ];

    fn with(
        verb: &'static str,
        change: (&'static str, &'static str),
    ) -> Vec<(&'static str, &'static str)> {
        let mut pairs = FULL.to_vec();
        pairs.push(("CNI_COMMAND", verb));
        pairs.push(change);
        pairs
    }

    #[test]
    fn missing_variables_are_named_together_in_order() {
        assert_eq!(
            refusal(&[("CNI_COMMAND", "ADD")]).msg,
            "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH] missing"
        );
        assert_eq!(
            refusal(&with("DEL", ("CNI_IFNAME", ""))).msg,
            "required env variables [CNI_IFNAME] missing"
        );
        assert_eq!(
            refusal(&[("CNI_COMMAND", "GC")]).msg,
            "required env variables [CNI_PATH] missing"
        );
        assert_eq!(
            refusal(&[]).msg,
            "required env variables [CNI_COMMAND] missing"
        );
    }

    #[test]
    fn del_needs_no_namespace_and_status_no_container() {
        assert_eq!(
            env(&with("DEL", ("CNI_NETNS", ""))).verb(),
            Ok(Some(Verb::Del))
        );
        assert_eq!(
            env(&[("CNI_COMMAND", "STATUS"), ("CNI_PATH", "/x")]).verb(),
            Ok(Some(Verb::Status))
        );
        assert_eq!(env(&[("CNI_COMMAND", "VERSION")]).verb(), Ok(None));
    }

    #[test]
    fn odd_values_are_refused_with_code_4() {
        for change in [
            ("CNI_CONTAINERID", "a/b"),
            ("CNI_CONTAINERID", ".."),
            ("CNI_CONTAINERID", "-x"),
            ("CNI_CONTAINERID", "käse"),
            ("CNI_IFNAME", "sixteen-bytes-xx"),
            ("CNI_IFNAME", ".."),
            ("CNI_IFNAME", "a/b"),
            ("CNI_IFNAME", "a:b"),
            ("CNI_IFNAME", "a b"),
            ("CNI_COMMAND", "add"),
            ("CNI_COMMAND", "GET"),
        ] {
            assert_eq!(refusal(&with("ADD", change)).code, 4, "{change:?}");
        }
    }

    #[test]
    fn network_names_follow_the_spec() {
        assert!(validate_network_name("cbr0-2_x.y").is_ok());
        assert_eq!(validate_network_name("").unwrap_err().code, 7);
        assert_eq!(validate_network_name("../etc").unwrap_err().code, 7);
    }

    proptest! {
        #[test]
        fn an_accepted_container_id_is_one_path_component(id in "\\PC{0,30}") {
            if validate_container_id(&id).is_ok() {
                let joined = std::path::Path::new("/d").join(&id);
                prop_assert_eq!(joined.parent(), Some(std::path::Path::new("/d")));
                prop_assert_eq!(joined.components().count(), 3);
            }
        }
    }
}
