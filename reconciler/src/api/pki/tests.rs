//! Files, renewal, refusals, and real handshakes.

use std::os::unix::fs::PermissionsExt;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const SERVER: &str = "https://127.0.0.1:6443";

fn open(data: &Path) -> Pki {
    Pki::open(data, &["10.96.0.1".to_owned()]).unwrap()
}

fn refusal(data: &Path) -> String {
    let Err(error) = Pki::open(data, &[]) else {
        panic!("it was accepted");
    };
    format!("{error:#}")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Names and contents of all files.
fn files(data: &Path) -> Vec<(PathBuf, String)> {
    let mut files: Vec<_> = fs::read_dir(data.join("pki"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read_to_string(&path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn the_first_start_makes_all_and_the_second_keeps_it() {
    let data = tempfile::tempdir().unwrap();
    let pki = open(data.path());
    let made = files(data.path());
    let names: Vec<_> = made
        .iter()
        .map(|(path, _)| path.file_name().unwrap().to_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "admin.crt",
            "admin.key",
            "apiserver-kubelet-client.crt",
            "apiserver-kubelet-client.key",
            "apiserver.crt",
            "apiserver.key",
            "ca.crt",
            "ca.key",
            "sa.key"
        ]
    );
    assert_eq!(mode(&data.path().join("pki")), 0o700);
    for (path, _) in &made {
        assert_eq!(mode(path), 0o600, "{}", path.display());
    }
    let again = open(data.path());
    assert_eq!(files(data.path()), made);
    assert_eq!(again.authority(), pki.authority());
    assert_eq!(again.token_key(), pki.token_key());
}

#[test]
fn a_new_address_renews_the_serving_certificate_alone() {
    let data = tempfile::tempdir().unwrap();
    open(data.path());
    let before = files(data.path());
    Pki::open(data.path(), &["10.96.0.1".into(), "fd00:0::0:9".into()]).unwrap();
    let after = files(data.path());
    let changed: Vec<_> = before
        .iter()
        .zip(&after)
        .filter(|(before, after)| before != after)
        .map(|(before, _)| before.0.file_name().unwrap().to_str().unwrap())
        .collect();
    assert_eq!(changed, ["apiserver.crt", "apiserver.key"]);
    // Fewer names than it has are no reason.
    Pki::open(data.path(), &["0.0.0.0".into()]).unwrap();
    assert_eq!(files(data.path()), after);
}

#[test]
fn what_ends_soon_or_has_another_authority_or_key_is_made_anew() {
    let data = tempfile::tempdir().unwrap();
    let pki = open(data.path());
    let (path, key_path) = (
        data.path().join("pki/admin.crt"),
        data.path().join("pki/admin.key"),
    );
    let soon = pki
        .issue("kubernetes-admin", &["system:masters"], DAY * 29)
        .unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = open(elsewhere.path()).admin().clone();
    let stray = Pair {
        certificate: pki.admin().certificate.clone(),
        key: foreign.key.clone(),
    };
    for pair in [soon, foreign, stray] {
        private::write(&path, &pair.certificate).unwrap();
        private::write(&key_path, &pair.key).unwrap();
        let renewed = open(data.path());
        assert_ne!(renewed.admin().certificate, pair.certificate);
        assert_ne!(renewed.admin().key, pair.key);
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            renewed.admin().certificate
        );
    }
    // Cut off between the two files.
    fs::remove_file(&path).unwrap();
    open(data.path());
    assert!(path.exists());
}

#[test]
fn keys_that_others_read_and_torn_files_are_refused() {
    let data = tempfile::tempdir().unwrap();
    open(data.path());
    for (name, open_to, advice) in [
        ("ca.key", 0o640, "chmod 600"),
        ("apiserver.key", 0o604, "chmod 600"),
        ("sa.key", 0o660, "chmod 600"),
        ("ca.crt", 0o664, "chmod 644"),
        ("admin.crt", 0o646, "chmod 644"),
    ] {
        let path = data.path().join("pki").join(name);
        let whole = fs::read_to_string(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(open_to)).unwrap();
        let text = refusal(data.path());
        assert!(text.contains(name) && text.contains(advice), "{text}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for torn in ["", &whole[..whole.len() / 2]] {
            private::write(&path, torn).unwrap();
            let text = refusal(data.path());
            assert!(text.contains(name), "{text}");
        }
        private::write(&path, &whole).unwrap();
    }
    let key = data.path().join("pki/ca.key");
    let whole = fs::read_to_string(&key).unwrap();
    fs::remove_file(&key).unwrap();
    assert!(refusal(data.path()).contains("has lost its key"));
    assert!(!key.exists(), "no second authority is begun");
    private::write(&key, &KeyPair::generate().unwrap().serialize_pem()).unwrap();
    assert!(refusal(data.path()).contains("not that of the key"));
    private::write(&key, &whole).unwrap();
    fs::set_permissions(data.path().join("pki"), fs::Permissions::from_mode(0o770)).unwrap();
    assert!(refusal(data.path()).contains("written by others"));
}

#[test]
fn an_authority_that_was_cut_off_is_finished_and_one_that_ended_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let pki = open(data.path());
    let path = data.path().join("pki/ca.crt");
    fs::remove_file(&path).unwrap();
    let finished = open(data.path());
    assert_ne!(finished.authority(), pki.authority());
    // The key is the same, so what it signed still serves.
    assert_eq!(finished.admin().certificate, pki.admin().certificate);
    let key = KeyPair::from_pem(&fs::read_to_string(path.with_extension("key")).unwrap()).unwrap();
    let ended = certificate::authority(&key, Duration::ZERO).unwrap().pem();
    private::write(&path, &ended).unwrap();
    assert!(refusal(data.path()).contains("expired"));
    private::write(&path, &pki.admin().certificate).unwrap();
    assert!(refusal(data.path()).contains("no authority's"));
}

#[test]
fn the_kubeconfig_follows_the_address() {
    let data = tempfile::tempdir().unwrap();
    let pki = open(data.path());
    let path = pki.write_kubeconfig(SERVER).unwrap();
    assert_eq!(mode(&path), 0o600);
    let read = |path: &Path| -> serde_json::Value {
        serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    };
    let config = read(&path);
    assert_eq!(config["clusters"][0]["cluster"]["server"], SERVER);
    assert_eq!(config["current-context"], "weft");
    assert_eq!(config["contexts"][0]["context"]["user"], "kubernetes-admin");
    let inline = |value: &serde_json::Value| {
        String::from_utf8(STANDARD.decode(value.as_str().unwrap()).unwrap()).unwrap()
    };
    let cluster = &config["clusters"][0]["cluster"];
    assert_eq!(
        inline(&cluster["certificate-authority-data"]),
        pki.authority()
    );
    let user = &config["users"][0]["user"];
    assert_eq!(
        inline(&user["client-certificate-data"]),
        pki.admin().certificate
    );
    assert_eq!(inline(&user["client-key-data"]), pki.admin().key);
    let written = fs::metadata(&path).unwrap().modified().unwrap();
    pki.write_kubeconfig(SERVER).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), written);
    pki.write_kubeconfig("https://[::1]:7443").unwrap();
    assert_eq!(
        read(&path)["clusters"][0]["cluster"]["server"],
        "https://[::1]:7443"
    );
}

/// Connects to a server; what it read of the client's certificate and of the protocol.
async fn handshake(
    pki: &Pki,
    name: &str,
    client: Option<&Pair>,
    alpn: &[&str],
) -> Result<(Option<Vec<u8>>, Option<Vec<u8>>), String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(pki.server_config().unwrap()));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(pki.authority_der.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match client {
        Some(pair) => {
            let (chain, key) = pair.der().unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor
            .accept(stream)
            .await
            .map_err(|error| error.to_string())?;
        let session = stream.get_ref().1;
        let seen = session
            .peer_certificates()
            .map(|chain| chain[0].as_ref().to_vec());
        let protocol = session.alpn_protocol().map(<[u8]>::to_vec);
        stream.write_all(b"hi").await.map_err(|e| e.to_string())?;
        stream.shutdown().await.map_err(|e| e.to_string())?;
        Ok((seen, protocol))
    };
    let client = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .map_err(|error| error.to_string())?;
        let mut greeting = [0; 2];
        stream
            .read_exact(&mut greeting)
            .await
            .map_err(|error| error.to_string())?;
        Ok::<_, String>(())
    };
    let (server, client) = tokio::join!(server, client);
    client.and(server)
}

#[tokio::test]
async fn clients_trust_the_server_under_each_of_its_names() {
    let data = tempfile::tempdir().unwrap();
    let pki = open(data.path());
    for name in [
        "localhost",
        "127.0.0.1",
        "::1",
        "kubernetes.default.svc",
        "10.96.0.1",
    ] {
        assert_eq!(
            handshake(&pki, name, None, &["h2", "http/1.1"])
                .await
                .unwrap(),
            (None, Some(b"h2".to_vec()))
        );
    }
    assert_eq!(
        handshake(&pki, "localhost", None, &[]).await.unwrap(),
        (None, None)
    );
    let error = handshake(&pki, "10.96.0.2", None, &[]).await.unwrap_err();
    assert!(error.contains("not valid for name"), "{error}");
}

#[tokio::test]
async fn a_client_is_who_its_certificate_says_if_the_authority_signed_it() {
    let data = tempfile::tempdir().unwrap();
    let pki = open(data.path());
    let node = pki.issue("system:node:n1", &["system:nodes"], DAY).unwrap();
    let (seen, _) = handshake(&pki, "localhost", Some(&node), &[])
        .await
        .unwrap();
    let user = crate::api::auth::certificate(&seen.unwrap()).unwrap();
    assert_eq!(user.name, "system:node:n1");
    assert_eq!(user.groups, ["system:nodes", "system:authenticated"]);
    let other = tempfile::tempdir().unwrap();
    let foreign = open(other.path()).admin().clone();
    let ended = pki.issue("late", &[], Duration::ZERO).unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    // A serving certificate is no client's.
    for pair in [foreign, ended, pki.serving.clone()] {
        handshake(&pki, "localhost", Some(&pair), &[])
            .await
            .unwrap_err();
    }
}
