use std::time::Duration;

use http::{Method, Uri};
use serde_json::{Value, json};
use tokio::time::advance;
use watershed_config::{Config, Live};

use super::*;
use crate::authn::UserInfo;
use crate::authn::scripted::Scripted;
use crate::request::{Query, RequestInfo};

const SETTINGS: Authorization = Authorization {
    revalidate_watches: Duration::from_secs(300),
    allow_ttl: Duration::from_secs(10),
    deny_ttl: Duration::from_secs(5),
};

/// The live settings of the smallest configuration, with this time between two looks at a watch.
pub(super) fn live(revalidate_watches: Duration) -> Arc<Live> {
    let text = r#"
apiVersion: watershed.dev/v1alpha1
kind: ProxyConfiguration
listen: {address: "127.0.0.1:6443", certFile: tls.crt, keyFile: tls.key, clientCAFile: ca.crt}
upstream:
  servers: ["https://127.0.0.1:7443"]
  credentials: {inCluster: true}
  identity: {mode: Impersonate}
"#;
    let mut live = Config::parse(text, "watershed.yaml".as_ref()).unwrap().live;
    live.authorization.revalidate_watches = revalidate_watches;
    Arc::new(live)
}

pub(super) fn user(name: &str, groups: &[&str]) -> UserInfo {
    UserInfo {
        name: name.to_owned(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        ..UserInfo::default()
    }
}

pub(super) fn attributes(user: UserInfo, target: &str) -> Attributes {
    let uri: Uri = target.parse().unwrap();
    let query = Query::parse(uri.query().unwrap_or_default());
    Attributes::new(
        user.into(),
        &RequestInfo::parse(&Method::GET, &uri, &query).unwrap(),
    )
}

fn alice(target: &str) -> Attributes {
    attributes(user("alice", &["dev"]), target)
}

fn authorizer(script: &Scripted) -> Authorizer<Scripted> {
    let reviewer = Arc::new(Reviewer::new(script.clone()));
    Authorizer::new(Local::undeclared(), reviewer, Family::default())
}

fn allowed() -> Result<Value, ReviewError> {
    Ok(json!({"status": {"allowed": true, "reason": "RBAC: allowed by …"}}))
}

fn refused(reason: &str) -> Result<Value, ReviewError> {
    Ok(json!({"status": {"allowed": false, "reason": reason}}))
}

/// The spec of the review made for a request.
async fn reviewed(attributes: &Attributes) -> Value {
    let script = Scripted::new([allowed()]);
    authorizer(&script)
        .authorize(attributes, &SETTINGS)
        .await
        .unwrap();
    let [(path, body)] = script.asked().try_into().unwrap();
    assert_eq!(path, "/apis/authorization.k8s.io/v1/subjectaccessreviews");
    assert_eq!(body["apiVersion"], "authorization.k8s.io/v1");
    assert_eq!(body["kind"], "SubjectAccessReview");
    body["spec"].clone()
}

#[tokio::test]
async fn a_review_carries_the_whole_user_and_request() {
    let mut node = user("system:node:n1", &["system:nodes", "system:authenticated"]);
    node.uid = "u".to_owned();
    node.extra.insert("k".to_owned(), vec!["v".to_owned()]);
    let target = "/apis/apps/v1/namespaces/a/deployments/d/scale";
    assert_eq!(
        reviewed(&attributes(node, target)).await,
        json!({
            "user": "system:node:n1",
            "groups": ["system:nodes", "system:authenticated"],
            "uid": "u",
            "extra": {"k": ["v"]},
            "resourceAttributes": {
                "verb": "get", "group": "apps", "version": "v1", "resource": "deployments",
                "subresource": "scale", "namespace": "a", "name": "d",
            },
        })
    );
    assert_eq!(
        reviewed(&alice("/metrics")).await,
        json!({
            "user": "alice",
            "groups": ["dev"],
            "nonResourceAttributes": {"path": "/metrics", "verb": "get"},
        })
    );
}

#[tokio::test]
async fn a_review_carries_the_selectors_in_the_form_of_authorizers() {
    let target = "/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dn1,status.phase!%3DFailed\
                  &labelSelector=app+in+(b,a),!gone,tier,x!%3Dy,n%3E5";
    let review = reviewed(&alice(target)).await;
    let attributes = &review["resourceAttributes"];
    assert_eq!(attributes["verb"], "watch");
    assert_eq!(
        attributes["fieldSelector"],
        json!({"requirements": [
            {"key": "spec.nodeName", "operator": "In", "values": ["n1"]},
            {"key": "status.phase", "operator": "NotIn", "values": ["Failed"]},
        ]})
    );
    assert_eq!(
        attributes["labelSelector"],
        json!({"requirements": [
            {"key": "app", "operator": "In", "values": ["a", "b"]},
            {"key": "gone", "operator": "DoesNotExist"},
            {"key": "tier", "operator": "Exists"},
            {"key": "x", "operator": "NotIn", "values": ["y"]},
        ]})
    );
}

#[tokio::test]
async fn selectors_that_authorizers_must_not_see_are_left_out() {
    let table = [
        // By path, dropped by Go's parser, broken, empty, of a GET.
        "/api/v1/watch/pods?fieldSelector=spec.nodeName%3Dn1",
        "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1;labelSelector=a",
        "/api/v1/pods?fieldSelector=nonsense&labelSelector=a%20b",
        "/api/v1/pods?fieldSelector=&labelSelector=",
        "/api/v1/namespaces/a/pods/x?fieldSelector=spec.nodeName%3Dn1",
        "/api/v1/pods?labelSelector=n%3E5",
    ];
    for target in table {
        let review = reviewed(&alice(target)).await;
        let attributes = review["resourceAttributes"].as_object().unwrap();
        assert!(!attributes.contains_key("fieldSelector"), "{target}");
        assert!(!attributes.contains_key("labelSelector"), "{target}");
    }
}

#[tokio::test]
async fn the_name_in_a_field_selector_is_authorized() {
    let target = "/api/v1/namespaces/a/secrets?watch=1&fieldSelector=metadata.name%3Dq";
    assert_eq!(
        reviewed(&alice(target)).await["resourceAttributes"]["name"],
        "q"
    );
}

#[tokio::test]
async fn masters_need_no_review() {
    let script = Scripted::default();
    let master = attributes(user("x", &["dev", "system:masters"]), "/api/v1/secrets");
    let permit = authorizer(&script)
        .authorize(&master, &SETTINGS)
        .await
        .unwrap();
    assert_eq!(permit.source(), Source::Masters);
    assert_eq!(&permit.attributes, &master);
    assert!(script.asked().is_empty());
}

#[tokio::test(start_paused = true)]
async fn decisions_are_remembered_for_their_own_ttl() {
    let script = Scripted::new([allowed(), refused(""), allowed()]);
    let authorizer = authorizer(&script);
    let pods = alice("/api/v1/pods");
    let permit = authorizer.authorize(&pods, &SETTINGS).await.unwrap();
    assert_eq!(permit.source(), Source::Review);
    advance(Duration::from_millis(9_900)).await;
    let permit = authorizer.authorize(&pods, &SETTINGS).await.unwrap();
    assert_eq!(permit.source(), Source::Cache);
    advance(Duration::from_millis(100)).await;
    authorizer.authorize(&pods, &SETTINGS).await.unwrap_err();
    advance(Duration::from_millis(4_900)).await;
    authorizer.authorize(&pods, &SETTINGS).await.unwrap_err();
    assert_eq!(script.asked().len(), 2);
    advance(Duration::from_millis(100)).await;
    authorizer.authorize(&pods, &SETTINGS).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_node_is_not_refused_for_longer_than_its_authorizer_needs_to_learn_of_a_pod() {
    let script = Scripted::new([refused("no relationship found"), allowed()]);
    let authorizer = authorizer(&script);
    let secret = "/api/v1/namespaces/a/secrets/s";
    let node = attributes(user("system:node:n1", &["system:nodes"]), secret);
    authorizer.authorize(&node, &SETTINGS).await.unwrap_err();
    advance(Duration::from_millis(900)).await;
    authorizer.authorize(&node, &SETTINGS).await.unwrap_err();
    assert_eq!(script.asked().len(), 1);
    advance(Duration::from_millis(100)).await;
    authorizer.authorize(&node, &SETTINGS).await.unwrap();
}

#[tokio::test]
async fn no_decision_is_used_for_anything_else() {
    let all = [
        alice("/api/v1/pods"),
        alice("/api/v1/pods?watch=1"),
        alice("/api/v1/namespaces/a/pods"),
        alice("/api/v1/namespaces/a/pods/x"),
        alice("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1"),
        alice("/api/v1/pods?labelSelector=spec.nodeName%3Dn1"),
        alice("/apis/apps/v1/pods"),
        attributes(user("bob", &["dev"]), "/api/v1/pods"),
        attributes(user("alice", &["dev", "ops"]), "/api/v1/pods"),
        attributes(
            UserInfo {
                uid: "1".into(),
                ..user("alice", &["dev"])
            },
            "/api/v1/pods",
        ),
        attributes(
            UserInfo {
                extra: [("k".into(), vec![])].into(),
                ..user("alice", &["dev"])
            },
            "/api/v1/pods",
        ),
    ];
    let script = Scripted::new([(); 11].map(|()| allowed()));
    let authorizer = authorizer(&script);
    for attributes in &all {
        let permit = authorizer.authorize(attributes, &SETTINGS).await.unwrap();
        assert_eq!(permit.source(), Source::Review, "{attributes:?}");
        assert_eq!(&permit.attributes, attributes);
    }
}

#[tokio::test]
async fn long_requests_are_reviewed_every_time() {
    let script = Scripted::new([allowed(), allowed()]);
    let authorizer = authorizer(&script);
    let long = alice(&format!("/api/v1/namespaces/a/pods/{}", "x".repeat(10_000)));
    for _ in 0..2 {
        let permit = authorizer.authorize(&long, &SETTINGS).await.unwrap();
        assert_eq!(permit.source(), Source::Review);
    }
}

#[tokio::test]
async fn requests_for_the_same_share_one_review() {
    let script = Scripted::new([allowed()]);
    let authorizer = authorizer(&script);
    let pods = alice("/api/v1/pods");
    let (a, b) = tokio::join!(
        authorizer.authorize(&pods, &SETTINGS),
        authorizer.authorize(&pods, &SETTINGS)
    );
    assert!(a.is_ok() && b.is_ok());
    assert_eq!(script.asked().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn whatever_is_not_allowed_is_refused() {
    let note = "spec.resourceAttributes.fieldSelector ignored due to parse error";
    let pods = alice("/api/v1/pods");
    let table = [
        (
            refused("no relationship found"),
            403,
            ": no relationship found",
        ),
        (refused(""), 403, ""),
        (
            Ok(json!({"status": {"denied": true, "reason": "r"}})),
            403,
            ": r",
        ),
        (Ok(json!({"status": {}})), 403, ""),
        (Ok(json!({})), 403, ""),
        (
            Ok(json!({"status": {"allowed": false, "evaluationError": note}})),
            403,
            "",
        ),
        (
            Ok(json!({"status": {"evaluationError": "boom <1>"}})),
            500,
            "boom &lt;1&gt;\n",
        ),
        (
            Ok(json!({"status": {"allowed": true, "denied": true}})),
            500,
            "denied\n",
        ),
        (Ok(json!("nonsense")), 500, "\n"),
        (
            Err(ReviewError::Status {
                code: 403,
                reason: "Forbidden".into(),
                message: "no reviews for you".into(),
                retry_after: None,
            }),
            500,
            "no reviews for you\n",
        ),
    ];
    for (answer, code, tail) in table {
        let context = format!("{answer:?}");
        let error = authorizer(&Scripted::new([answer]))
            .authorize(&pods, &SETTINGS)
            .await
            .unwrap_err();
        let status = error.status(&pods, "/api/v1/pods");
        assert_eq!(status.code(), code, "{context}");
        assert!(
            status.message().ends_with(tail),
            "{context}: {}",
            status.message()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn failures_are_never_remembered() {
    let failure = Ok(json!({"status": {"evaluationError": "boom"}}));
    let down = ReviewError::Malformed { line: 1, column: 2 };
    let script = Scripted::new([failure, Err(down), allowed()]);
    let authorizer = authorizer(&script);
    let pods = alice("/api/v1/pods");
    authorizer.authorize(&pods, &SETTINGS).await.unwrap_err();
    authorizer.authorize(&pods, &SETTINGS).await.unwrap_err();
    authorizer.authorize(&pods, &SETTINGS).await.unwrap();
}

#[tokio::test]
async fn an_evaluation_error_beside_an_allow_does_not_matter() {
    let answer = Ok(json!({"status": {"allowed": true, "evaluationError": "role not found"}}));
    let pods = alice("/api/v1/pods");
    authorizer(&Scripted::new([answer]))
        .authorize(&pods, &SETTINGS)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_permit_covers_the_request_it_was_given_for_and_no_other() {
    let info = |target: &str| {
        let uri: Uri = target.parse().unwrap();
        let query = Query::parse(uri.query().unwrap_or_default());
        RequestInfo::parse(&Method::GET, &uri, &query).unwrap()
    };
    let target = "/api/v1/namespaces/a/pods?labelSelector=app%3Dx";
    let script = Scripted::new([allowed()]);
    let permit = authorizer(&script)
        .authorize(&alice(target), &SETTINGS)
        .await
        .unwrap();
    assert!(permit.covers(&info(target)));
    for other in [
        "/api/v1/namespaces/a/pods",
        "/api/v1/namespaces/a/pods?labelSelector=app%3Dy",
        "/api/v1/namespaces/b/pods?labelSelector=app%3Dx",
        "/api/v1/namespaces/a/pods?labelSelector=app%3Dx&watch=1",
    ] {
        assert!(!permit.covers(&info(other)), "{other}");
    }
}
