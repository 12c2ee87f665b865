use super::*;

const V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const KUBECTL: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

/// Recorded from kube-apiserver 1.36.2, by path; `/api` and `/apis` aggregated.
fn recorded() -> Value {
    serde_json::from_str(include_str!("../../../tests/data/discovery.json")).unwrap()
}

fn get(path: &str, accept: Option<&str>) -> (Answer, Value) {
    let answer = respond(path, accept, None).unwrap();
    assert_eq!(answer.status, 200);
    let body = serde_json::from_slice(&answer.body).unwrap();
    (answer, body)
}

/// The reference serves node, pod and service proxies too.
fn without_proxies(mut resource: Value) -> Value {
    if let Some(below) = resource["subresources"].as_array_mut() {
        below.retain(|sub| sub["subresource"] != "proxy");
        if below.is_empty() {
            resource.as_object_mut().unwrap().remove("subresources");
        }
    } else {
        resource.as_object_mut().unwrap().remove("subresources");
    }
    resource
}

#[test]
fn aggregated_rows_are_those_of_the_reference() {
    let recorded = recorded();
    let mut rows = 0;
    for path in ["/api", "/apis"] {
        let (answer, body) = get(path, Some(KUBECTL));
        assert_eq!(answer.content_type, V2);
        assert_eq!(answer.cache_control, Some("public"));
        assert_eq!(body["apiVersion"], recorded[path]["apiVersion"]);
        assert_eq!(body["kind"], recorded[path]["kind"]);
        for group in body["items"].as_array().unwrap() {
            let theirs = recorded[path]["items"]
                .as_array()
                .unwrap()
                .iter()
                .find(|item| item["metadata"] == group["metadata"])
                .unwrap();
            let theirs = &theirs["versions"][0];
            let ours = &group["versions"][0];
            assert_eq!(ours["version"], theirs["version"]);
            assert_eq!(ours["freshness"], theirs["freshness"]);
            for row in ours["resources"].as_array().unwrap() {
                let same = theirs["resources"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .find(|it| it["resource"] == row["resource"])
                    .unwrap();
                assert_eq!(*row, without_proxies(same.clone()));
                rows += 1;
            }
        }
    }
    assert_eq!(rows, KINDS.len() + QUESTIONS.len());
}

#[test]
fn lists_of_resources_are_those_of_the_reference() {
    let recorded = recorded();
    let mut rows = 0;
    for (group, _) in groups() {
        let path = match group {
            "" => "/api/v1".to_owned(),
            group => format!("/apis/{group}/v1"),
        };
        let (_, mut body) = get(&path, Some("application/json, */*"));
        let mut theirs = recorded[&path].clone();
        let ours = body["resources"].take();
        let theirs_rows = theirs["resources"].take();
        assert_eq!(body, theirs);
        for row in ours.as_array().unwrap() {
            assert!(theirs_rows.as_array().unwrap().contains(row), "{row}");
            rows += 1;
        }
    }
    let below: usize = KINDS.iter().map(|kind| kind.subresources.len()).sum();
    assert_eq!(rows, KINDS.len() + QUESTIONS.len() + below);
    assert_eq!(get("/apis/apps", None).1, recorded["/apis/apps"]);
}

#[test]
fn the_form_follows_the_header() {
    for accept in [
        None,
        Some(""),
        Some("application/json"),
        Some("application/json, */*"),
    ] {
        let (answer, body) = get("/apis", accept);
        assert_eq!(answer.content_type, "application/json");
        assert_eq!(body["kind"], "APIGroupList");
        assert_eq!(body["groups"][0]["name"], "apps");
        assert_eq!(get("/api", accept).1["versions"], json!(["v1"]));
    }
    let other = "application/json; as=APIGroupDiscoveryList; v=v2beta1; g=apidiscovery.k8s.io";
    let (answer, body) = get("/apis", Some(other));
    assert_eq!(
        answer.content_type,
        "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
    );
    assert_eq!(body["apiVersion"], "apidiscovery.k8s.io/v2beta1");
    let future =
        "application/json;as=APIGroupDiscoveryList;v=v3;g=apidiscovery.k8s.io,application/json";
    assert_eq!(get("/apis", Some(future)).1["kind"], "APIGroupList");
    let reordered = "application/json;as=APIGroupDiscoveryList;v=v2;g=apidiscovery.k8s.io";
    assert_eq!(get("/api/", Some(reordered)).0.content_type, V2);
}

#[test]
fn what_a_client_has_is_not_sent_again() {
    let (answer, _) = get("/apis", Some(KUBECTL));
    let again = respond("/apis", Some(KUBECTL), Some(&answer.etag)).unwrap();
    assert_eq!((again.status, again.body.len()), (304, 0));
    assert_eq!(again.etag, answer.etag);
    let other = respond("/api", Some(KUBECTL), Some(&answer.etag)).unwrap();
    assert_eq!(other.status, 200);
}

#[test]
fn other_paths_are_not_ours() {
    for path in [
        "/",
        "/apis/none",
        "/apis/apps/v2",
        "/api/v1/pods",
        "/apis/apps/v1/deployments",
        "/versions",
    ] {
        assert_eq!(respond(path, None, None), None, "{path}");
    }
    let (_, body) = get("/version", None);
    assert!(body["gitVersion"].as_str().unwrap().starts_with("v1.36."));
}
