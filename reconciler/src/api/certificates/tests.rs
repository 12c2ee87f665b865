use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use super::*;

fn csr(subject: &[(DnType, &str)], names: &[&str]) -> CertificateSigningRequestParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = DistinguishedName::new();
    for (kind, value) in subject {
        params.distinguished_name.push(kind.clone(), *value);
    }
    let key = KeyPair::generate().unwrap();
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    CertificateSigningRequestParams::from_pem(&pem).unwrap()
}

fn node(name: &str, names: &[&str]) -> CertificateSigningRequestParams {
    let name = format!("system:node:{name}");
    csr(
        &[
            (DnType::OrganizationName, "system:nodes"),
            (DnType::CommonName, &name),
        ],
        names,
    )
}

fn user(name: &str, group: &str) -> User {
    User {
        name: name.to_owned(),
        groups: vec![group.to_owned(), "system:authenticated".to_owned()],
        ..User::default()
    }
}

#[test]
fn nodes_get_what_is_theirs_and_nothing_else() {
    let bootstrapper = user("system:bootstrap:weft", BOOTSTRAPPERS);
    let itself = user("system:node:n1", NODES);
    let other = user("system:node:n2", NODES);
    let from: Option<IpAddr> = Some("192.168.66.11".parse().unwrap());
    let ok = |user: &User, signer: &str, csr: CertificateSigningRequestParams| {
        judge(user, signer, &csr, from).is_ok_and(|name| name == "n1")
    };
    assert!(ok(&bootstrapper, CLIENT, node("n1", &[])));
    assert!(ok(&itself, CLIENT, node("n1", &[])));
    assert!(ok(&itself, SERVING, node("n1", &["n1", "192.168.66.11"])));

    assert!(!ok(&other, CLIENT, node("n1", &[])));
    assert!(!ok(&other, SERVING, node("n1", &["n1"])));
    assert!(!ok(&bootstrapper, SERVING, node("n1", &["n1"])));
    assert!(!ok(&user("eve", "others"), CLIENT, node("n1", &[])));
    assert!(!ok(&bootstrapper, CLIENT, node("n1", &["kubernetes"])));
    assert!(!ok(&itself, SERVING, node("n1", &[])));
    for name in ["kubernetes", "n2", "192.168.66.1", "127.0.0.1"] {
        assert!(!ok(&itself, SERVING, node("n1", &[name])), "{name}");
    }
    assert!(!ok(
        &bootstrapper,
        "kubernetes.io/kube-apiserver-client",
        node("n1", &[])
    ));
    for name in ["", "N1", "-n", "a..b", "n1,O=system:masters"] {
        let asked = node(name, &[]);
        assert!(
            judge(&bootstrapper, CLIENT, &asked, from).is_err(),
            "{name}"
        );
    }
    // A node that is called as the server is.
    let odd = user("system:node:kubernetes", NODES);
    assert!(judge(&odd, SERVING, &node("kubernetes", &["kubernetes"]), from).is_err());
    let masters = [
        (DnType::CommonName, "system:node:n1"),
        (DnType::OrganizationName, "system:masters"),
    ];
    assert!(!ok(&bootstrapper, CLIENT, csr(&masters, &[])));
    assert!(!ok(
        &bootstrapper,
        CLIENT,
        csr(&[(DnType::CommonName, "system:node:n1")], &[])
    ));
    let more = [
        (DnType::CommonName, "system:node:n1"),
        (DnType::OrganizationName, "system:nodes"),
        (DnType::CountryName, "DE"),
    ];
    assert!(!ok(&bootstrapper, CLIENT, csr(&more, &[])));
}
