//! A way to a server: which kubeconfig, and requests with what it says.

use std::path::{Path, PathBuf};

use hyper::{Method, Request, Response};
use kube::client::Body;
use kube::config::{Config, KubeConfigOptions, Kubeconfig, KubeconfigError};
use serde_json::{Value, json};

use super::Terminal;
use super::failure::Failure;

/// For objects as they are.
pub const JSON: &str = "application/json";

/// Where `weft apiserver` writes the administrator's kubeconfig by default.
const OURS: &str = "/var/lib/weft/admin.kubeconfig";

/// Which server, and which namespace of it.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// `--kubeconfig`
    pub kubeconfig: Option<PathBuf>,
    /// `--namespace`
    pub namespace: Option<String>,
}

/// A client of one server, and where its command writes.
pub struct Session<'a> {
    client: kube::Client,
    address: String,
    namespace: String,
    namespace_was_given: bool,
    /// Where the command writes.
    pub terminal: Terminal<'a>,
}

/// A request's body.
pub struct Content {
    /// Its media type.
    pub kind: &'static str,
    /// JSON, which is YAML too.
    pub value: Value,
}

/// The kubeconfig that counts: what the command line names, else the first file of `KUBECONFIG` (a list with colons)
/// that exists, else that of `weft apiserver` on this machine, else `~/.kube/config`.
///
/// # Errors
/// There is none.
pub fn kubeconfig(
    named: Option<&Path>,
    environment: impl Fn(&str) -> Option<std::ffi::OsString>,
) -> Result<PathBuf, Failure> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    if let Some(list) = environment("KUBECONFIG").filter(|list| !list.is_empty()) {
        let found = std::env::split_paths(&list).find(|path| path.is_file());
        return found.ok_or_else(|| {
            Failure::Local(format!("no file of KUBECONFIG={} exists", list.display()))
        });
    }
    let home = environment("HOME").map(|home| Path::new(&home).join(".kube/config"));
    let places = [Some(PathBuf::from(OURS)), home];
    let found = places.into_iter().flatten().find(|path| path.is_file());
    found.ok_or_else(|| {
        Failure::Local(format!(
            "no kubeconfig: there is neither {OURS} (`weft apiserver` writes it; it is root's) nor ~/.kube/config; name one with --kubeconfig or KUBECONFIG"
        ))
    })
}

impl<'a> Session<'a> {
    /// Reads the kubeconfig; the server is not asked yet.
    ///
    /// # Errors
    /// There is no kubeconfig, or it is wrong. Its text is never in the message.
    pub async fn open(
        target: &Target,
        terminal: Terminal<'a>,
    ) -> Result<Self, (Failure, Terminal<'a>)> {
        match configure(target).await {
            Ok((client, address)) => Ok(Self {
                namespace: match &target.namespace {
                    Some(namespace) => namespace.clone(),
                    None => client.default_namespace().to_owned(),
                },
                namespace_was_given: target.namespace.is_some(),
                client,
                address,
                terminal,
            }),
            Err(failure) => Err((failure, terminal)),
        }
    }

    /// The server's `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The namespace of objects that name none.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The namespace of an object that names this one, or none.
    ///
    /// # Errors
    /// The command line names another.
    pub fn namespace_of(&self, named: Option<&str>) -> Result<String, Failure> {
        match named {
            Some(named) if self.namespace_was_given && named != self.namespace => {
                Err(Failure::Local(format!(
                    "the namespace from the provided object {named:?} does not match the namespace {:?}. You must pass '--namespace={named}' to perform this operation.",
                    self.namespace
                )))
            }
            Some(named) => Ok(named.to_owned()),
            None => Ok(self.namespace.clone()),
        }
    }

    /// Asks for a document.
    ///
    /// # Errors
    /// As [`Self::send`]; or it is no JSON.
    pub async fn get(&mut self, path: &str, accept: &str) -> Result<Value, Failure> {
        let answer = self.send(Method::GET, path, accept, None).await?;
        self.read(answer).await
    }

    /// Reads an answer's document.
    ///
    /// # Errors
    /// It breaks off, or is no JSON.
    pub async fn read(&self, answer: Response<Body>) -> Result<Value, Failure> {
        let body = answer.into_body().collect_bytes().await;
        let body = body.map_err(|error| Failure::transport(&self.address, &error))?;
        serde_json::from_slice(&body).map_err(|error| {
            Failure::Unreachable(format!("{}: its answer is no JSON: {error}", self.address))
        })
    }

    /// Sends a request, and gives the answer if the server says yes. Its warnings are shown.
    ///
    /// # Errors
    /// The server is not reached, or says no.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        accept: &str,
        content: Option<Content>,
    ) -> Result<Response<Body>, Failure> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("accept", accept)
            .header("user-agent", concat!("weft/", env!("CARGO_PKG_VERSION")));
        let mut body = Body::empty();
        if let Some(content) = content {
            request = request.header("content-type", content.kind);
            body = Body::from(content.value.to_string().into_bytes());
        }
        let request = request
            .body(body)
            .map_err(|error| Failure::Local(format!("ask for {path:?}: {error}")))?;
        let answer = self.client.send(request).await;
        let answer = answer.map_err(|error| Failure::transport(&self.address, &error))?;
        for warning in answer.headers().get_all("warning") {
            if let Some(text) = warning.to_str().ok().and_then(warning_text) {
                self.terminal.warn(&text);
            }
        }
        let code = answer.status().as_u16();
        if (200..300).contains(&code) {
            return Ok(answer);
        }
        let body = answer.into_body().collect_bytes().await;
        let body = body.map_err(|error| Failure::transport(&self.address, &error))?;
        let status = serde_json::from_slice(&body).ok();
        let status = status.filter(|status: &Value| status.get("message").is_some());
        let status = status.unwrap_or_else(|| {
            let text = String::from_utf8_lossy(&body);
            json!({"message": format!("HTTP {code}: {}", text.trim())})
        });
        Err(Failure::Server(Box::new(status), code))
    }
}

async fn configure(target: &Target) -> Result<(kube::Client, String), Failure> {
    let path = kubeconfig(target.kubeconfig.as_deref(), |name| std::env::var_os(name))?;
    let wrong = |error: KubeconfigError| {
        let why = match error {
            // Its message shows the lines around, and keys are there.
            KubeconfigError::Parse(_) => "it is not a kubeconfig in YAML".to_owned(),
            other => other.to_string(),
        };
        Failure::Local(format!("read kubeconfig {}: {why}", path.display()))
    };
    let file = Kubeconfig::read_from(&path).map_err(wrong)?;
    let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .map_err(wrong)?;
    // An error is shown at once; whoever calls knows better whether to try again.
    config.default_retry = false;
    let authority = config.cluster_url.authority().map(ToString::to_string);
    let address = authority.unwrap_or_else(|| config.cluster_url.to_string());
    let client = kube::Client::try_from(config)
        .map_err(|error| Failure::Local(format!("use kubeconfig {}: {error}", path.display())))?;
    Ok((client, address))
}

/// The text of `299 - "text"`.
fn warning_text(header: &str) -> Option<String> {
    let quoted = header.strip_prefix("299 ")?.split_once(' ')?.1;
    let inner = quoted.trim().strip_prefix('"')?.strip_suffix('"')?;
    Some(inner.replace("\\\"", "\"").replace("\\\\", "\\"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    #[test]
    fn the_first_kubeconfig_that_exists_counts() {
        let folder = tempfile::tempdir().unwrap();
        let second = folder.path().join("second");
        std::fs::write(&second, "").unwrap();
        let list = format!(
            "{}:{}",
            folder.path().join("first").display(),
            second.display()
        );
        let environment = |name: &str| (name == "KUBECONFIG").then(|| OsString::from(&list));
        assert_eq!(kubeconfig(None, environment).unwrap(), second);
        let named = Path::new("/named");
        assert_eq!(kubeconfig(Some(named), environment).unwrap(), named);
        let gone =
            |name: &str| (name == "KUBECONFIG").then(|| OsString::from("/nowhere/a:/nowhere/b"));
        let said = kubeconfig(None, gone).unwrap_err().to_string();
        assert_eq!(
            said,
            "error: no file of KUBECONFIG=/nowhere/a:/nowhere/b exists"
        );
    }

    #[tokio::test]
    async fn a_broken_kubeconfig_is_named_and_its_secrets_are_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        let target = Target {
            kubeconfig: Some(path.clone()),
            namespace: None,
        };
        for text in [
            "users: [{name: a, user: {token: geheim",
            "users:\n- name: a\n  user: {token: {geheim: 1}}\n",
            "clusters: [{name: a, cluster: {server: 'https://h', certificate-authority-data: geheim!}}]\nusers: [{name: a, user: {client-key-data: geheim}}]\ncontexts: [{name: a, context: {cluster: a, user: a}}]\ncurrent-context: a\n",
        ] {
            std::fs::write(&path, text).unwrap();
            let said = configure(&target).await.err().unwrap().to_string();
            assert!(
                said.contains("config") && !said.contains("geheim"),
                "{said}"
            );
        }
        std::fs::remove_file(&path).unwrap();
        assert!(configure(&target).await.is_err());
    }

    #[test]
    fn a_warning_is_unquoted() {
        assert_eq!(
            warning_text(r#"299 - "a \"b\"""#).as_deref(),
            Some("a \"b\"")
        );
        assert_eq!(warning_text("199 - \"a\""), None);
        assert_eq!(warning_text("299 "), None);
    }
}
