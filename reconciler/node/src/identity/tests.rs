use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair};

use super::*;

fn self_signed(names: &[&str], days: i64) -> Pair {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    let epoch = rcgen::date_time_ymd(2026, 1, 1);
    params.not_before = epoch;
    params.not_after = epoch + Duration::from_secs(days.unsigned_abs() * 86_400);
    let key = KeyPair::generate().unwrap();
    Pair {
        certificate: params.self_signed(&key).unwrap().pem(),
        key: key.serialize_pem(),
    }
}

#[test]
fn a_token_is_a_secret_and_a_hash() {
    let hash = "0123456789abcdef".repeat(4);
    let token = Token::parse(&format!("a.b.{hash}")).unwrap();
    assert_eq!(token.secret, "a.b");
    assert_eq!(format!("{token:?}"), "Token");
    for bad in [
        "",
        "x",
        &hash,
        &format!(".{hash}"),
        &format!("a b.{hash}"),
        &format!("a.+{}", &hash[1..]),
        "a.00",
    ] {
        let error = Token::parse(bad).unwrap_err().to_string();
        assert!(error.contains("SECRET.SHA256"), "{error}");
    }
    assert!(!token.is_of(&self_signed(&[], 1).certificate));
}

#[test]
fn a_certificate_is_renewed_when_a_third_of_its_life_is_left() {
    let pair = self_signed(&["10.0.0.1", "n1"], 30);
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    assert_eq!(renewal(&pair).unwrap(), at("2026-01-21T00:00:00Z"));
    assert!(lasts(&pair, at("2026-01-20T00:00:00Z")));
    assert!(!lasts(&pair, at("2026-01-22T00:00:00Z")));
    let mut config = Config {
        server: String::new(),
        token: None,
        node: "n1".to_owned(),
        addresses: vec!["10.0.0.1".parse().unwrap()],
        folder: PathBuf::new(),
    };
    assert!(names(&pair, &config));
    config.addresses.push("10.0.0.2".parse().unwrap());
    assert!(!names(&pair, &config));
    assert!(trust::belong(&pair.certificate, &pair.key));
    let other = self_signed(&[], 1);
    assert!(!trust::belong(&pair.certificate, &other.key));
}

proptest! {
    #[test]
    fn no_token_makes_it_panic(text in "\\PC{0,100}") {
        let _ = Token::parse(&text);
        let _ = Token::parse(&format!("a.{text}"));
    }
}
