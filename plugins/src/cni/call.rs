//! One call of a plugin: what the runtime said, checked.

use crate::cni::config::Attachment;
use crate::cni::env::validate_network_name;
use crate::cni::{CniResult, Env, Error, Result, Verb, Version, code, json};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;

/// A call whose environment and common configuration keys have been checked.
#[derive(Debug, Clone)]
pub struct Call {
    /// What is asked for.
    pub verb: Verb,
    /// CNI_CONTAINERID; empty for STATUS and GC.
    pub container_id: String,
    /// CNI_NETNS, a path; may be empty for DEL, STATUS and GC.
    pub netns: String,
    /// CNI_IFNAME; empty for STATUS and GC.
    pub ifname: String,
    /// CNI_ARGS as given.
    pub args: String,
    /// CNI_PATH as given: directories separated by colons.
    pub path: String,
    /// Version of the configuration, and so of the result.
    pub version: Version,
    /// The network's name; safe as a file name.
    pub network: String,
    config: Value,
    env: Env,
}

impl Call {
    /// Checks environment and configuration.
    pub fn new(env: &Env, verb: Verb, config: Value) -> Result<Self> {
        #[derive(Deserialize, Default)]
        #[serde(default, rename_all = "camelCase")]
        struct Head {
            name: String,
            cni_version: String,
        }
        let head: Head = json::from_value(&config).map_err(undecodable)?;
        validate_network_name(&head.name)?;
        let Some(version) = Version::parse(&head.cni_version) else {
            let supported = Version::ALL.map(|v| format!("{:?}", v.as_str())).join(" ");
            return Err(
                Error::new(code::INCOMPATIBLE_VERSION, "incompatible CNI versions").with_details(
                    format!(
                        "config is {:?}, plugin supports [{supported}]",
                        head.cni_version
                    ),
                ),
            );
        };
        let oldest = match verb {
            Verb::Add | Verb::Del => Version::V010,
            Verb::Check => Version::V040,
            Verb::Status | Verb::Gc => Version::V110,
        };
        if version < oldest {
            return Err(Error::new(
                code::INCOMPATIBLE_VERSION,
                format!("config version does not allow {verb}"),
            )
            .with_details(format!(
                "config is {:?}, {verb} needs {:?}",
                version.as_str(),
                oldest.as_str()
            )));
        }
        let call = Self {
            verb,
            container_id: env.get("CNI_CONTAINERID").to_owned(),
            netns: env.get("CNI_NETNS").to_owned(),
            ifname: env.get("CNI_IFNAME").to_owned(),
            args: env.get("CNI_ARGS").to_owned(),
            path: env.get("CNI_PATH").to_owned(),
            version,
            network: head.name,
            config,
            env: env.for_verb(verb),
        };
        if matches!(verb, Verb::Add | Verb::Del) {
            call.refuse_own_netns()?;
        }
        Ok(call)
    }

    /// The configuration as written.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// The environment, with CNI_COMMAND as [`Call::verb`].
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// Reads the configuration's keys that `T` names; a wrong type is an error (6) naming the key.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T> {
        json::from_value(&self.config).map_err(undecodable)
    }

    /// The result of the plugin before this one in the chain.
    pub fn prev_result(&self) -> Result<Option<CniResult>> {
        json::member(&self.config, "prevResult")
            .map(|value| {
                CniResult::parse(value, self.version).map_err(|e| {
                    Error::new(
                        code::DECODE,
                        format!("decode network config: prevResult: {e}"),
                    )
                })
            })
            .transpose()
    }

    /// The previous result where the plugin cannot do without one.
    pub fn required_prev_result(&self) -> Result<CniResult> {
        self.prev_result()?
            .ok_or_else(|| Error::config("required prevResult missing"))
    }

    /// GC: the attachments that are to stay. Without the key nothing may be removed, so that is an
    /// error; a null is an empty list, as libcni writes it.
    pub fn valid_attachments(&self) -> Result<BTreeSet<Attachment>> {
        // The spec's text and libcni differed in the name; libcni sends both.
        for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
            if let Some(value) = self.config.get(key) {
                let list: Option<Vec<Attachment>> = json::from_value(&serde_json::json!([value]))
                    .map(|[list]: [Option<Vec<Attachment>>; 1]| list)
                    .map_err(|e| {
                        Error::new(code::DECODE, format!("decode network config: {key}{e}"))
                    })?;
                return Ok(list.unwrap_or_default().into_iter().collect());
            }
        }
        Err(Error::config(
            "GC without cni.dev/valid-attachments: nothing removed",
        ))
    }

    /// Refuses to treat the plugin's own namespace as a container's, unless the runtime says that
    /// it means it. A path that is not there is for the plugin to judge.
    fn refuse_own_netns(&self) -> Result<()> {
        let meant = self.env.get("CNI_NETNS_OVERRIDE");
        if meant == "1" || meant.eq_ignore_ascii_case("true") || self.netns.is_empty() {
            return Ok(());
        }
        let Ok(theirs) = std::fs::metadata(&self.netns) else {
            return Ok(());
        };
        let ours = std::fs::metadata("/proc/thread-self/ns/net")
            .map_err(|e| Error::new(code::INVALID_NETNS, format!("find own netns: {e}")))?;
        if (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()) {
            return Err(Error::new(
                code::INVALID_NETNS,
                "plugin's netns and netns from CNI_NETNS should not be the same",
            ));
        }
        Ok(())
    }
}

fn undecodable(e: json::Error) -> Error {
    Error::new(code::DECODE, format!("decode network config: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn call(verb: Verb, config: Value) -> Result<Call> {
        let env = Env::new([("CNI_CONTAINERID", "c"), ("CNI_NETNS", "/no/such")]);
        Call::new(&env, verb, config)
    }

    #[test]
    fn verbs_need_their_versions() {
        for (verb, version, good) in [
            (Verb::Add, "", true),
            (Verb::Check, "0.3.1", false),
            (Verb::Check, "0.4.0", true),
            (Verb::Gc, "1.0.0", false),
            (Verb::Gc, "1.1.0", true),
            (Verb::Status, "1.0.0", false),
            (Verb::Add, "1.2.0", false),
        ] {
            let got = call(verb, json!({"name": "n", "cniVersion": version}));
            assert_eq!(got.is_ok(), good, "{verb} {version}");
            assert!(good || got.unwrap_err().code == 1);
        }
    }

    #[test]
    fn an_unknown_version_lists_the_known_ones() {
        let error = call(Verb::Add, json!({"name": "n", "cniVersion": "9.9.9"})).unwrap_err();
        assert_eq!(
            error.details,
            r#"config is "9.9.9", plugin supports ["0.1.0" "0.2.0" "0.3.0" "0.3.1" "0.4.0" "1.0.0" "1.1.0"]"#
        );
    }

    #[test]
    fn bad_names_and_types_are_refused() {
        assert_eq!(call(Verb::Add, json!({})).unwrap_err().code, 7);
        assert_eq!(call(Verb::Add, json!({"name": "a/b"})).unwrap_err().code, 7);
        let error = call(Verb::Add, json!({"name": 3})).unwrap_err();
        assert_eq!(error.code, 6);
        assert!(error.msg.contains("name: invalid type"), "{error}");
        assert_eq!(call(Verb::Add, json!([])).unwrap_err().code, 6);
    }

    #[test]
    fn gc_without_a_list_removes_nothing_and_null_is_an_empty_list() {
        let gc = |more: Value| {
            let mut config = json!({"name": "n", "cniVersion": "1.1.0"});
            config
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            call(Verb::Gc, config).unwrap().valid_attachments()
        };
        assert_eq!(gc(json!({})).unwrap_err().code, 7);
        assert_eq!(
            gc(json!({"cni.dev/valid-attachments": null}))
                .unwrap()
                .len(),
            0
        );
        let one = gc(json!({"cni.dev/attachments": [{"containerID": "a", "ifname": "eth0"}]}));
        assert_eq!(one.unwrap().first().unwrap().container_id, "a");
        let bad = gc(json!({"cni.dev/valid-attachments": [{"containerID": 1}]})).unwrap_err();
        assert!(bad.msg.contains("containerID"), "{bad}");
    }

    #[test]
    fn the_plugins_own_namespace_is_no_container() {
        let own = |more: &[(&'static str, &str)]| {
            let mut pairs = vec![("CNI_NETNS", "/proc/self/ns/net")];
            pairs.extend(more.iter().copied());
            Call::new(&Env::new(pairs), Verb::Del, json!({"name": "n"}))
        };
        assert_eq!(own(&[]).unwrap_err().code, 8);
        assert!(own(&[("CNI_NETNS_OVERRIDE", "TRUE")]).is_ok());
        assert!(own(&[("CNI_NETNS_OVERRIDE", "0")]).is_err());
    }

    #[test]
    fn prev_result_is_read_in_its_own_version_or_the_configs() {
        let config = json!({"name": "n", "cniVersion": "0.2.0",
            "prevResult": {"ip4": {"ip": "10.0.0.2/24"}}});
        let result = call(Verb::Add, config)
            .unwrap()
            .prev_result()
            .unwrap()
            .unwrap();
        assert_eq!(result.ips[0].address.to_string(), "10.0.0.2/24");
        let none = call(Verb::Add, json!({"name": "n"})).unwrap();
        assert_eq!(none.prev_result(), Ok(None));
        assert_eq!(none.required_prev_result().unwrap_err().code, 7);
    }
}
