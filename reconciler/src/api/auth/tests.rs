//! Tokens, certificates, and reviews; what each role may do is in `roles/tests.rs`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use jiff::SignedDuration;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use proptest::prelude::*;
use rcgen::KeyPair;

use super::*;
use crate::api::object::text;
use crate::api::pki::private;

fn now() -> Timestamp {
    "2026-11-21T07:07:23Z".parse().unwrap()
}

fn key() -> String {
    KeyPair::generate().unwrap().serialize_pem()
}

fn account() -> Value {
    json!({"metadata": {"name": "default", "namespace": "demo", "uid": "33d7e067"}})
}

fn pod(account: &str) -> Value {
    json!({"metadata": {"name": "web", "namespace": "demo", "uid": "p1"}, "spec": {"serviceAccountName": account}})
}

fn asked(spec: Value) -> Value {
    json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec})
}

fn made(issuer: &Issuer, spec: Value, pod: Option<&Value>) -> String {
    let answer = issuer
        .request(&asked(spec), &account(), pod, now())
        .unwrap();
    text(&answer, &["status", "token"]).to_owned()
}

fn verify(issuer: &Issuer, token: &str, seconds: i64) -> Option<Identity> {
    let now = now() + SignedDuration::from_secs(seconds);
    issuer.verify(token, &[service_account::ISSUER], now)
}

/// Recorded from kube-apiserver 1.36.2.
#[test]
fn a_token_request_is_answered_as_the_reference_answers_it() {
    let issuer = Issuer::new(&key()).unwrap();
    let mut answer = issuer
        .request(&asked(json!({})), &account(), None, now())
        .unwrap();
    let token = answer["status"]["token"].take();
    assert_eq!(
        answer,
        json!({
            "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": "default", "namespace": "demo", "uid": "33d7e067",
                "creationTimestamp": "2026-11-21T07:07:23Z"},
            "spec": {"audiences": ["https://kubernetes.default.svc"], "expirationSeconds": 3600,
                "boundObjectRef": null},
            "status": {"token": null, "expirationTimestamp": "2026-11-21T08:07:23Z"},
        })
    );
    let identity = verify(&issuer, token.as_str().unwrap(), 0).unwrap();
    assert_eq!(identity.user.name, "system:serviceaccount:demo:default");
    assert_eq!(identity.user.uid, "33d7e067");
    assert_eq!(
        identity.user.groups,
        [
            "system:serviceaccounts",
            "system:serviceaccounts:demo",
            "system:authenticated"
        ]
    );
    let credential = &identity.user.extra[CREDENTIAL][0];
    assert!(
        credential.starts_with("JTI=") && credential.len() == 40,
        "{credential}"
    );
    let bound = identity.bound.unwrap();
    assert_eq!(bound.namespace, "demo");
    assert_eq!(bound.account.name, "default");
    assert_eq!(bound.pod, None);
}

#[test]
fn a_token_is_good_in_its_time_for_its_audience_and_by_its_key() {
    let issuer = Issuer::new(&key()).unwrap();
    let token = made(&issuer, json!({"expirationSeconds": 600}), None);
    for (seconds, good) in [
        (-3600, false),
        (-5, true),
        (0, true),
        (599, true),
        (611, false),
    ] {
        assert_eq!(
            verify(&issuer, &token, seconds).is_some(),
            good,
            "{seconds}"
        );
    }
    assert_eq!(verify(&Issuer::new(&key()).unwrap(), &token, 0), None);
    let vault = made(&issuer, json!({"audiences": ["vault", "etcd"]}), None);
    assert_eq!(verify(&issuer, &vault, 0), None);
    let seen = issuer.verify(&vault, &["etcd", "x"], now()).unwrap();
    assert_eq!(seen.audiences, ["etcd"]);
    assert_eq!(issuer.verify(&token, &[], now()), None);
}

#[test]
fn forged_tokens_are_nobodys() {
    let pem = key();
    let issuer = Issuer::new(&pem).unwrap();
    let token = made(&issuer, json!({}), None);
    let parts: Vec<_> = token.split('.').collect();
    let (head, claims, signature) = (parts[0], parts[1], parts[2]);
    let other = made(&issuer, json!({"expirationSeconds": 86400}), None);
    let other_claims = other.split('.').nth(1).unwrap();
    use base64::Engine as _;
    let base = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let none = base.encode(r#"{"alg":"none","typ":"JWT"}"#);
    // Signed with the public key as if it were a shared secret.
    let public = KeyPair::from_pem(&pem).unwrap().public_key_pem();
    let body: Value = serde_json::from_slice(&base.decode(claims).unwrap()).unwrap();
    let secret = EncodingKey::from_secret(public.as_bytes());
    let confused = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &body, &secret).unwrap();
    for forged in [
        format!("{head}.{other_claims}.{signature}"),
        format!("{none}.{claims}."),
        format!("{none}.{claims}.{signature}"),
        format!("{head}.{claims}."),
        format!("{head}.{claims}"),
        confused,
        String::new(),
        "..".into(),
    ] {
        assert_eq!(verify(&issuer, &forged, 0), None, "{forged}");
    }
    // Ours, but not a service account's.
    let sign = EncodingKey::from_ec_pem(pem.as_bytes()).unwrap();
    for (key, value) in [
        ("iss", json!("https://elsewhere")),
        ("sub", json!("kubernetes-admin")),
        ("sub", json!("system:serviceaccount:kube-system:default")),
        ("aud", json!("https://kubernetes.default.svc.evil")),
        ("exp", Value::Null),
        ("kubernetes.io", json!({})),
    ] {
        let mut body = body.clone();
        body[key] = value;
        let token = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &body, &sign).unwrap();
        assert_eq!(verify(&issuer, &token, 0), None, "{key}");
    }
    let same = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &body, &sign).unwrap();
    assert!(verify(&issuer, &same, 0).is_some());
}

#[test]
fn a_token_is_bound_to_a_pod_that_runs_as_the_account() {
    let issuer = Issuer::new(&key()).unwrap();
    let reference = |uid: &str| json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": uid}});
    let token = made(&issuer, reference("p1"), Some(&pod("default")));
    let identity = verify(&issuer, &token, 0).unwrap();
    let bound = identity.bound.unwrap().pod.unwrap();
    assert_eq!((bound.name.as_str(), bound.uid.as_str()), ("web", "p1"));
    assert_eq!(
        identity.user.extra["authentication.kubernetes.io/pod-name"],
        ["web"]
    );
    let refused = |spec: Value, pod: Option<&Value>| {
        let status = issuer.request(&asked(spec), &account(), pod, now());
        status.unwrap_err().code
    };
    assert_eq!(refused(reference(""), None), 404);
    assert_eq!(refused(reference("p2"), Some(&pod("default"))), 409);
    assert_eq!(refused(reference(""), Some(&pod("other"))), 400);
    let secret = json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Secret", "name": "s"}});
    assert_eq!(refused(secret, None), 400);
    assert_eq!(refused(json!({"boundObjectRef": 7}), None), 400);
    for spec in [
        json!({"expirationSeconds": 599}),
        json!({"expirationSeconds": (1_i64 << 32) + 1}),
        json!({"expirationSeconds": "x"}),
        json!({"audiences": "x"}),
        json!({"audiences": [1]}),
    ] {
        assert_eq!(refused(spec, None), 422);
    }
}

#[test]
fn tokens_of_the_file_are_found_and_read_again() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().join("tokens.csv");
    let authenticator = Authenticator::new(data.path(), &key()).unwrap();
    let find = |token: &str| authenticator.token(token, now()).map(|found| found.user);
    assert_eq!(find("t1"), None);
    private::write(
        &path,
        "# tokens\n\nt1,admin,1,\"system:masters, ops\"\nt2,dev,\n\"t,3\",\"d\"\"v\",u,system:authenticated\n",
    )
    .unwrap();
    let admin = find("t1").unwrap();
    assert_eq!(
        admin.to_value(),
        json!({"username": "admin", "uid": "1", "groups": ["system:masters", "ops", "system:authenticated"]})
    );
    assert_eq!(
        find("t2").unwrap().to_value(),
        json!({"username": "dev", "groups": ["system:authenticated"]})
    );
    let quoted = find("t,3").unwrap();
    assert_eq!((quoted.name.as_str(), quoted.groups.len()), ("d\"v", 1));
    for nobody in ["", "t", "t1 ", "T1", "admin", "# tokens"] {
        assert_eq!(find(nobody), None, "{nobody}");
    }
    private::write(&path, "t2,dev,2\n").unwrap();
    assert_eq!(find("t1"), None);
    assert_eq!(find("t2").unwrap().uid, "2");
    // Not usable: nothing of it is.
    private::write(&path, "t2,dev,2\nnonsense\n").unwrap();
    assert_eq!(find("t2"), None);
    private::write(&path, "t2,dev,2\n").unwrap();
    assert!(find("t2").is_some());
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    assert_eq!(find("t2"), None);
    fs::remove_file(&path).unwrap();
    assert_eq!(find("t2"), None);
}

#[test]
fn a_wrong_file_is_refused_without_showing_its_tokens() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().join("tokens.csv");
    for (line, why) in [
        ("hush,dev", "fewer than three"),
        ("hush,,1", "user is empty"),
        (",dev,1", "token is empty"),
        ("hush,dev,1\nhush,ops,2", "another line's"),
        ("hush,dev,1,\"a", "not closed"),
        ("hush,dev,\"1\"x,a", "follows a quoted field"),
        ("hush,d\"ev,1", "within a field"),
    ] {
        private::write(&path, line).unwrap();
        let Err(error) = Authenticator::new(data.path(), &key()) else {
            panic!("{line} was accepted");
        };
        let text = format!("{error:#}");
        assert!(text.contains(why) && text.contains("line "), "{text}");
        assert!(!text.contains("hush"), "{text}");
    }
}

#[test]
fn the_authorization_header() {
    assert_eq!(bearer("Bearer abc"), Some("abc"));
    assert_eq!(bearer("bearer  abc "), Some("abc"));
    for none in ["", "Bearer", "Bearer ", "Basic abc", "Bearerabc"] {
        assert_eq!(bearer(none), None, "{none}");
    }
}

/// Shapes recorded from kube-apiserver 1.36.2.
#[test]
fn questions_about_oneself() {
    let mut admin = User::authenticated("admin".into(), vec!["system:masters".into()]);
    admin.uid = "1".into();
    assert_eq!(
        reviews::self_subject(&admin, now()),
        json!({
            "kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"creationTimestamp": "2026-11-21T07:07:23Z"},
            "status": {"userInfo": {"username": "admin", "uid": "1",
                "groups": ["system:masters", "system:authenticated"]}},
        })
    );
    let spec =
        json!({"resourceAttributes": {"namespace": "demo", "verb": "get", "resource": "pods"}});
    let answer = |user: &User| reviews::self_access(user, &json!({"spec": spec})).unwrap();
    assert_eq!(
        answer(&admin),
        json!({"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1",
            "metadata": {}, "spec": spec, "status": {"allowed": true}})
    );
    let nobody = User::authenticated("dev".into(), vec![]);
    assert_eq!(answer(&nobody)["status"], json!({"allowed": false}));
    assert_eq!(
        reviews::self_rules(&admin),
        json!({"kind": "SelfSubjectRulesReview", "apiVersion": "authorization.k8s.io/v1",
            "metadata": {}, "spec": {}, "status": {
                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
                "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
                "incomplete": false}})
    );
    let rules = reviews::self_rules(&nobody)["status"]["resourceRules"].take();
    assert_eq!(
        rules,
        json!([
            {"verbs": ["create"], "apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"]},
            {"verbs": ["create"], "apiGroups": ["authorization.k8s.io"],
                "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]},
        ])
    );
}

#[test]
fn questions_about_others() {
    let ask = |spec: Value| reviews::access(&json!({"spec": spec}));
    let path = json!({"verb": "get", "path": "/metrics"});
    let allowed = |spec| ask(spec).unwrap()["status"]["allowed"].take();
    assert_eq!(
        allowed(json!({"user": "x", "groups": ["system:masters"], "nonResourceAttributes": path})),
        json!(true)
    );
    assert_eq!(
        allowed(json!({"user": "x", "nonResourceAttributes": path})),
        json!(false)
    );
    for wrong in [
        json!({"user": "x"}),
        json!({"nonResourceAttributes": path}),
        json!({"user": "x", "nonResourceAttributes": path, "resourceAttributes": {}}),
        json!(null),
    ] {
        assert_eq!(ask(wrong).unwrap_err().code, 422);
    }
    let request = json!({"spec": {"token": "t", "audiences": ["a", 1]}});
    assert_eq!(reviews::token_of(&request).unwrap(), ("t", vec!["a"]));
    assert_eq!(reviews::token_of(&json!({})).unwrap_err().code, 400);
    assert_eq!(
        reviews::token(&request, None)["status"],
        json!({"authenticated": false, "user": {}, "error": "invalid bearer token"})
    );
    let issuer = Issuer::new(&key()).unwrap();
    let identity = verify(&issuer, &made(&issuer, json!({}), None), 0).unwrap();
    let status = reviews::token(&request, Some(&identity))["status"].take();
    assert_eq!(status["authenticated"], json!(true));
    assert_eq!(status["user"]["username"], identity.user.name);
    assert_eq!(status["audiences"], json!([service_account::ISSUER]));
}

fn any_json() -> impl Strategy<Value = Value> {
    let words = ["", "v1", "Pod", "web", "get", "x"];
    let keys = [
        "spec",
        "metadata",
        "name",
        "token",
        "audiences",
        "expirationSeconds",
        "boundObjectRef",
        "kind",
        "apiVersion",
        "resourceAttributes",
        "nonResourceAttributes",
        "user",
        "groups",
        "verb",
        "path",
        "resource",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::from),
        proptest::sample::select(words.to_vec()).prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, move |inner| {
        let key = proptest::sample::select(keys.to_vec()).prop_map(str::to_owned);
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(key, inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever comes is answered or refused; nobody is let in by chance.
    #[test]
    fn hostile_input_is_refused(
        body in any_json(), account in any_json(), text in ".*", bytes in any::<Vec<u8>>(),
        claims in "[a-zA-Z0-9_.-]{0,80}",
    ) {
        let issuer = Issuer::new(&key()).unwrap();
        if let Err(status) = issuer.request(&body, &account, Some(&body), now()) {
            prop_assert!(status.code < 500);
        }
        prop_assert_eq!(verify(&issuer, &text, 0), None);
        prop_assert_eq!(verify(&issuer, &claims, 0), None);
        prop_assert_eq!(certificate(&bytes), None);
        bearer(&text);
        let _ = reviews::access(&body);
        let _ = reviews::token_of(&body);
        let _ = reviews::self_access(&User::anonymous(), &body);
        reviews::token(&body, None);
    }
}
