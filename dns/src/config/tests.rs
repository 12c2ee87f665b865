use super::*;
use proptest::prelude::*;

fn read(words: &[&str]) -> anyhow::Result<Config> {
    let words = ["weft-dns"].iter().chain(words).map(OsString::from);
    match parse(words, "Node-1")? {
        Parsed::Run(config) => Ok(*config),
        other => anyhow::bail!("{other:?}"),
    }
}

fn refused(words: &[&str]) -> String {
    read(words).unwrap_err().to_string()
}

#[test]
fn without_flags_it_listens_on_loopback_only() {
    let config = read(&[]).unwrap();
    assert_eq!(config.listen, ["127.0.0.1:53".parse().unwrap()]);
    assert_eq!(config.pages, Some("127.0.0.1:9153".parse().unwrap()));
    assert_eq!(config.node_name, "node-1");
    assert_eq!(config.domain.to_string(), "cluster.local.");
}

#[test]
fn a_local_address_is_listened_on() {
    let config = read(&[
        "--local-address",
        "169.254.20.10",
        "--listen",
        "10.0.0.1:53",
    ])
    .unwrap();
    let listen = ["10.0.0.1:53", "169.254.20.10:53"].map(|text| text.parse().unwrap());
    assert_eq!(config.listen, listen);
}

#[test]
fn the_file_has_what_the_flags_lack() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = "upstream: [10.0.0.1, '10.0.0.2:5353']\nttl: 30\npods: verified\nstub: [corp.example=10.1.1.1]\nserve-stale: 5m\n";
    std::fs::write(file.path(), text).unwrap();
    let path = file.path().to_str().unwrap();
    let config = read(&["--config", path, "--ttl", "7"]).unwrap();
    let upstreams = ["10.0.0.1:53", "10.0.0.2:5353"].map(|text| text.parse().unwrap());
    assert_eq!(config.upstreams, upstreams);
    assert_eq!(config.ttl, 7);
    assert_eq!(config.pods, PodMode::Verified);
    assert_eq!(config.serve_stale, Duration::from_secs(300));
    assert_eq!(config.stubs[0].0.to_string(), "corp.example.");

    std::fs::write(file.path(), "ttl: 9\nabsorb-search: true\n").unwrap();
    let again = config.again().unwrap();
    assert_eq!(again.ttl, 7, "the flag wins");
    assert!(again.upstreams.is_empty());
    assert_eq!(config.needs_restart(&again), ["pods", "absorb-search"]);
}

#[test]
fn what_is_wrong_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "upstreams: [10.0.0.1]\n").unwrap();
    let path = file.path().to_str().unwrap();
    for (words, told) in [
        (vec!["--config", path], "upstreams"),
        (vec!["--config", "/nowhere"], "/nowhere"),
        (vec!["--upstream", "dns.example"], "dns.example"),
        (vec!["--stub", "corp.example"], "DOMAIN="),
        (vec!["--stub", ".=10.0.0.1"], "no domain"),
        (vec!["--source", "dir:"], "dir:PATH"),
        (vec!["--pods", "yes"], "verified"),
        (vec!["--serve-stale", "90"], "90s"),
        (vec!["--threads", "0"], "thread"),
        (vec!["--metrics-bind-address", "9153"], "ADDRESS:PORT"),
        (vec!["--local-address", "0.0.0.0"], "169.254.20.10"),
        (vec!["--cluster-domain", "a..b"], "--cluster-domain"),
    ] {
        let error = refused(&words);
        assert!(error.contains(told), "{words:?}: {error}");
    }
}

proptest! {
    #[test]
    fn a_file_of_any_text_is_read_or_refused(text in "\\PC{0,200}") {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &text).unwrap();
        let path = file.path().to_str().unwrap();
        if let Err(error) = read(&["--config", path]) {
            prop_assert!(error.to_string().contains(path), "{error}");
        }
    }

    #[test]
    fn durations_are_read_or_refused(text in "[0-9]{0,20}[a-z]{0,2}") {
        if let Ok(read) = duration(&text) {
            prop_assert!(text.starts_with(|c: char| c.is_ascii_digit()), "{read:?}");
        }
    }
}
