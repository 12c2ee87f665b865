//! What a plugin is, and what the spec asks of every plugin alike.

use crate::cni::{Call, CniResult, Env, Error, Result, Verb, Version, code, json};
use serde_json::Value;
use std::io::{Read, Write};

/// A CNI plugin: a function for each verb. The checks that all plugins share are done before.
pub trait Plugin: Sync {
    /// The name it is called by.
    fn name(&self) -> &'static str;

    /// Connects the container; a failure must leave nothing behind.
    fn add(&self, call: &Call) -> Result<CniResult>;

    /// Undoes an ADD; what is gone already is no error.
    fn del(&self, call: &Call) -> Result<()>;

    /// Compares what an ADD made with what is there.
    fn check(&self, call: &Call) -> Result<()>;

    /// Says whether an ADD could be served now.
    fn status(&self, _call: &Call) -> Result<()> {
        Ok(())
    }

    /// Removes what belongs to no listed attachment.
    fn gc(&self, _call: &Call) -> Result<()> {
        Ok(())
    }
}

/// Runs one verb and gives what a process would print: the result of an ADD, else nothing.
pub(crate) fn run(plugin: &dyn Plugin, env: &Env, verb: Verb, config: Value) -> Result<String> {
    let call = Call::new(env, verb, config)?;
    match verb {
        Verb::Add => {
            let result = plugin.add(&call)?;
            return result.render(call.version).map_err(|e| {
                let error =
                    Error::generic(format!("print result in version {}: {e}", call.version));
                unmake(plugin, &call, error)
            });
        }
        Verb::Del => plugin.del(&call)?,
        Verb::Check => plugin.check(&call)?,
        Verb::Status => plugin.status(&call)?,
        Verb::Gc => plugin.gc(&call)?,
    }
    Ok(String::new())
}

/// Takes back an ADD whose result cannot be told: 0.2.0 has no words for an interface without
/// address.
fn unmake(plugin: &dyn Plugin, call: &Call, error: Error) -> Error {
    let deleted =
        Call::new(call.env(), Verb::Del, call.config().clone()).and_then(|call| plugin.del(&call));
    match deleted {
        Ok(()) => error,
        Err(e) => error.and_also(&format!("undo failed: DEL of {}: {e}", plugin.name())),
    }
}

/// Serves one call as a process does: configuration from `stdin`, result or error to `stdout`.
/// Gives whether it succeeded, which is the exit code.
pub fn serve(
    plugin: &dyn Plugin,
    env: &Result<Env>,
    stdin: &mut dyn Read,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> std::io::Result<bool> {
    if let Ok(env) = env
        && env.get("CNI_COMMAND").is_empty()
    {
        about(plugin, stderr)?;
        return Ok(true);
    }
    // An error is printed in the configuration's version as far as that could be read.
    let mut version = Version::CURRENT;
    match answer(plugin, env.as_ref(), stdin, &mut version) {
        Ok(text) => {
            stdout.write_all(text.as_bytes())?;
            stdout.flush()?;
            Ok(true)
        }
        Err(error) => {
            stdout.write_all(error.render(Some(version)).as_bytes())?;
            stdout.flush()?;
            Ok(false)
        }
    }
}

/// What a person who runs a plugin by hand is told.
fn about(plugin: &dyn Plugin, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(
        out,
        "CNI {} plugin weft {}\nCNI protocol versions supported: {}",
        plugin.name(),
        env!("CARGO_PKG_VERSION"),
        Version::ALL.map(Version::as_str).join(", ")
    )
}

fn answer(
    plugin: &dyn Plugin,
    env: std::result::Result<&Env, &Error>,
    stdin: &mut dyn Read,
    version: &mut Version,
) -> Result<String> {
    let env = env.map_err(Clone::clone)?;
    let Some(verb) = env.verb()? else {
        return Ok(versions());
    };
    let mut text = Vec::new();
    stdin
        .read_to_end(&mut text)
        .map_err(|e| Error::io("read network config from stdin", e))?;
    let config = json::value(&text)
        .map_err(|e| Error::new(code::DECODE, format!("decode network config: {e}")))?;
    if let Some(known) = config
        .get("cniVersion")
        .and_then(Value::as_str)
        .and_then(Version::parse)
    {
        *version = known;
    }
    run(plugin, env, verb, config)
}

/// The answer to VERSION: one line.
fn versions() -> String {
    #[derive(serde::Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Versions {
        cni_version: &'static str,
        supported_versions: [&'static str; Version::ALL.len()],
    }
    json::to_compact(&Versions {
        cni_version: Version::CURRENT.as_str(),
        supported_versions: Version::ALL.map(Version::as_str),
    }) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Probe;

    impl Plugin for Probe {
        fn name(&self) -> &'static str {
            "probe"
        }
        fn add(&self, call: &Call) -> Result<CniResult> {
            call.prev_result().map(Option::unwrap_or_default)
        }
        fn del(&self, _call: &Call) -> Result<()> {
            Err(Error::new(11, "busy"))
        }
        fn check(&self, _call: &Call) -> Result<()> {
            Ok(())
        }
    }

    fn serve_text(command: &str, stdin: &str) -> (bool, String, String) {
        let env = Env::new([
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_NETNS", "/no/such"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/none"),
        ]);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let good = serve(&Probe, &Ok(env), &mut stdin.as_bytes(), &mut out, &mut err).unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (good, text(out), text(err))
    }

    #[test]
    fn version_needs_no_configuration() {
        assert_eq!(
            serve_text("VERSION", ""),
            (
                true,
                "{\"cniVersion\":\"1.1.0\",\"supportedVersions\":[\"0.1.0\",\"0.2.0\",\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}\n".into(),
                String::new()
            )
        );
    }

    #[test]
    fn by_hand_it_says_what_it_is() {
        let (good, out, err) = serve_text("", "");
        assert!(good && out.is_empty());
        assert!(err.starts_with("CNI probe plugin weft "), "{err}");
        assert!(err.ends_with("supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n"));
    }

    #[test]
    fn a_result_is_printed_in_the_configs_version() {
        let (good, out, _) = serve_text(
            "ADD",
            r#"{"name":"n","cniVersion":"0.4.0","prevResult":{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.2/8"}]}}"#,
        );
        assert!(good);
        assert!(out.contains("\"version\": \"4\""), "{out}");
    }

    #[test]
    fn errors_are_printed_in_the_configs_version() {
        let (good, out, _) = serve_text("DEL", r#"{"name":"n","cniVersion":"0.4.0"}"#);
        assert!(!good);
        assert_eq!(
            out,
            "{\n    \"cniVersion\": \"0.4.0\",\n    \"code\": 11,\n    \"msg\": \"busy\"\n}"
        );
        let (_, out, _) = serve_text("DEL", "{");
        assert!(out.contains("\"code\": 6"), "{out}");
    }

    #[test]
    fn an_add_whose_result_cannot_be_told_is_taken_back() {
        let (_, out, _) = serve_text("ADD", r#"{"name":"n","cniVersion":"0.2.0"}"#);
        let error = Error::parse(out.as_bytes()).unwrap();
        assert_eq!(
            error.msg,
            "print result in version 0.2.0: cannot convert: no valid IP addresses"
        );
        // This plugin's DEL always fails, which shows that it was called.
        assert_eq!(error.details, "undo failed: DEL of probe: busy");
    }
}
