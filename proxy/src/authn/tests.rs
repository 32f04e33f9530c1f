use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use http::{HeaderValue, header};
use rcgen::{CertificateParams, DnType, DnValue, KeyPair};
use serde_json::{Value, json};
use tokio::time::{Instant, advance};
use watershed_config::TokenReview;

use super::scripted::Scripted;
use super::*;
use crate::tls::{ClientCertificate, Leaf};

/// Where requests come from.
pub(super) const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn settings(anonymous: bool) -> Authentication {
    Authentication {
        client_certificate: true,
        token_review: TokenReview {
            cache_ttl: Duration::from_secs(10),
            audiences: Vec::new(),
        },
        anonymous,
    }
}

fn authenticator(script: &Scripted) -> Authenticator<Scripted> {
    Authenticator::new(Arc::new(Reviewer::new(script.clone())), None)
}

fn headers(authorization: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(value) = authorization {
        headers.insert(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
    }
    headers
}

const UID_TYPE: &[u64] = &[1, 3, 6, 1, 4, 1, 57683, 2];
const SECOND_ORGANIZATION: &[u64] = &[2, 5, 4, 10];

/// Whom a certificate with this subject names.
fn named(names: &[(DnType, &str)]) -> Named {
    certificate::name(&leaf(names))
}

pub(super) fn leaf(names: &[(DnType, &str)]) -> Leaf {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    for (kind, value) in names {
        let value = DnValue::Utf8String((*value).to_owned());
        params.distinguished_name.push(kind.clone(), value);
    }
    let certificate = params.self_signed(&key).unwrap();
    Leaf::of(certificate.der().clone())
}

/// What a certificate proves about its holder alone.
fn client(client: ClientCertificate) -> Proof {
    Proof {
        client,
        ..Proof::default()
    }
}

fn by_certificate(named: Named) -> [(Credential, Named); 2] {
    [
        (Credential::FrontProxy, Ok(None)),
        (Credential::Certificate, named),
    ]
}

fn alice() -> Named {
    named(&[
        (DnType::CommonName, "alice"),
        (DnType::OrganizationName, "dev"),
    ])
}

fn accepted(name: &str) -> Value {
    json!({"status": {
        "authenticated": true,
        "user": {
            "username": name,
            "uid": "u1",
            "groups": ["g1"],
            "extra": {"authentication.kubernetes.io/pod-name": ["p"]},
        },
        "audiences": ["https://kubernetes.default.svc"],
    }})
}

fn garbage() -> Value {
    json!({"status": {"user": {}, "error": "invalid bearer token"}})
}

fn unreachable() -> ReviewError {
    ReviewError::Transport("connection refused".to_owned())
}

#[tokio::test]
async fn a_certificate_names_user_groups_uid_and_credential() {
    let certificate = named(&[
        (DnType::CommonName, "system:node:n1"),
        (DnType::OrganizationName, "system:nodes"),
        (DnType::CustomDnType(UID_TYPE.to_vec()), "u-1"),
        (DnType::CustomDnType(SECOND_ORGANIZATION.to_vec()), "Zürich"),
    ]);
    let identity = authenticator(&Scripted::default())
        .identify(
            by_certificate(certificate.clone()),
            (&headers(None), PEER),
            &settings(false),
        )
        .await
        .unwrap();
    assert_eq!(identity.credential, Credential::Certificate);
    assert_eq!(identity.user.name, "system:node:n1");
    assert_eq!(identity.user.uid, "u-1");
    assert_eq!(
        identity.user.groups,
        ["system:nodes", "Zürich", "system:authenticated"]
    );
    let [id] = identity.user.extra["authentication.kubernetes.io/credential-id"].as_slice() else {
        panic!("one credential id");
    };
    let digest = id.strip_prefix("X509SHA256=").unwrap();
    assert_eq!(digest.len(), 64);
    assert!(
        digest
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    );
}

#[tokio::test]
async fn what_was_read_of_one_certificate_is_never_said_of_another() {
    let authenticator = authenticator(&Scripted::default());
    let (subject, settings) = (Subject::default(), settings(false));
    let who = async |certificate: &ClientCertificate| {
        let identity = authenticator
            .authenticate(
                &headers(None),
                (&client(certificate.clone()), &subject, PEER),
                &settings,
            )
            .await;
        identity.map(|it| it.user.name.clone())
    };
    let [alice, bob] = ["alice", "bob"].map(|name| leaf(&[(DnType::CommonName, name)]));
    for _ in 0..2 {
        let alice = ClientCertificate::Valid(alice.clone());
        assert_eq!(who(&alice).await.unwrap(), "alice");
        let bob = ClientCertificate::Valid(bob.clone());
        assert_eq!(who(&bob).await.unwrap(), "bob");
    }
    for unproven in [
        ClientCertificate::None,
        ClientCertificate::Invalid("expired".into()),
    ] {
        assert!(who(&unproven).await.is_err(), "{unproven:?}");
    }
}

#[tokio::test]
async fn an_empty_common_name_is_nobody_and_an_empty_uid_is_refused() {
    let nobody = named(&[(DnType::OrganizationName, "system:masters")]);
    let empty = named(&[(DnType::CommonName, ""), (DnType::OrganizationName, "dev")]);
    for certificate in [nobody, empty] {
        let authenticator = authenticator(&Scripted::default());
        let identity = authenticator
            .identify(
                by_certificate(certificate.clone()),
                (&headers(None), PEER),
                &settings(true),
            )
            .await;
        assert_eq!(identity.unwrap().credential, Credential::Anonymous);
        let refused = authenticator
            .identify(
                by_certificate(certificate.clone()),
                (&headers(None), PEER),
                &settings(false),
            )
            .await;
        assert!(matches!(refused, Err(AuthnError::Missing)));
    }
    let uid = (DnType::CustomDnType(UID_TYPE.to_vec()), "");
    let certificate = named(&[(DnType::CommonName, "alice"), uid]);
    let refused = authenticator(&Scripted::default())
        .identify(
            by_certificate(certificate.clone()),
            (&headers(None), PEER),
            &settings(true),
        )
        .await;
    assert!(matches!(refused, Err(AuthnError::Rejected(_))));
}

#[tokio::test]
async fn a_reserved_group_in_a_certificate_keeps_authenticated_out() {
    let certificate = named(&[
        (DnType::CommonName, "x"),
        (DnType::OrganizationName, "system:unauthenticated"),
    ]);
    let identity = authenticator(&Scripted::default())
        .identify(
            by_certificate(certificate.clone()),
            (&headers(None), PEER),
            &settings(false),
        )
        .await
        .unwrap();
    assert_eq!(identity.user.groups, ["system:unauthenticated"]);
}

/// What `Authorization` may say without being a token, and whether the apiserver warns.
const NO_TOKENS: [(Option<&str>, bool); 8] = [
    (None, false),
    (Some(""), false),
    (Some("Basic YWRtaW46YWRtaW4="), false),
    (Some("Bearer"), false),
    (Some("Bearer "), false),
    (Some("Bearer  x"), true),
    (Some("Token x"), false),
    (Some("Bearerx y"), false),
];

#[tokio::test]
async fn without_credentials_the_caller_is_anonymous_only_where_allowed() {
    for (authorization, warns) in NO_TOKENS {
        let authenticator = authenticator(&Scripted::default());
        let headers = headers(authorization);
        let none = Proof::default();
        let identity = authenticator
            .authenticate(
                &headers,
                (&none, &Subject::default(), PEER),
                &settings(true),
            )
            .await
            .unwrap();
        assert_eq!(identity.user.name, "system:anonymous", "{authorization:?}");
        assert_eq!(identity.user.groups, ["system:unauthenticated"]);
        assert_eq!(identity.warning.is_some(), warns, "{authorization:?}");
        let refused = authenticator
            .authenticate(
                &headers,
                (&none, &Subject::default(), PEER),
                &settings(false),
            )
            .await;
        assert!(
            matches!(refused, Err(AuthnError::Missing)),
            "{authorization:?}"
        );
    }
}

#[tokio::test]
async fn a_good_certificate_wins_over_any_token() {
    for authorization in ["Bearer garbage", "bearer a.b.c", "Bearer  x", "Basic x"] {
        let script = Scripted::default();
        let identity = authenticator(&script)
            .identify(
                by_certificate(alice()),
                (&headers(Some(authorization)), PEER),
                &settings(false),
            )
            .await
            .unwrap();
        assert_eq!(identity.user.name, "alice");
        assert_eq!(identity.warning.is_some(), authorization == "Bearer  x");
        assert!(script.asked().is_empty());
    }
}

#[tokio::test]
async fn a_bad_certificate_is_never_anonymous_but_a_good_token_helps() {
    let bad = client(ClientCertificate::Invalid("unknown issuer".into()));
    let script = Scripted::new([Ok(garbage()), Ok(accepted("sa"))]);
    let authenticator = authenticator(&script);
    let settings = settings(true);
    let refused = authenticator
        .authenticate(&headers(None), (&bad, &Subject::default(), PEER), &settings)
        .await;
    assert!(matches!(refused, Err(AuthnError::Rejected(_))));
    let both = authenticator
        .authenticate(
            &headers(Some("Bearer bad")),
            (&bad, &Subject::default(), PEER),
            &settings,
        )
        .await;
    assert_eq!(both.unwrap_err().status().code(), 401);
    let token = authenticator
        .authenticate(
            &headers(Some("Bearer good")),
            (&bad, &Subject::default(), PEER),
            &settings,
        )
        .await;
    assert_eq!(token.unwrap().credential, Credential::Bearer);
}

#[tokio::test]
async fn certificates_are_ignored_where_the_configuration_says_so() {
    let invalid = client(ClientCertificate::Invalid("unknown issuer".into()));
    let settings = Authentication {
        client_certificate: false,
        ..settings(false)
    };
    let refused = authenticator(&Scripted::default())
        .authenticate(
            &headers(None),
            (&invalid, &Subject::default(), PEER),
            &settings,
        )
        .await;
    assert!(matches!(refused, Err(AuthnError::Missing)));
}

#[tokio::test]
async fn a_token_becomes_the_user_the_review_names() {
    let script = Scripted::new([Ok(accepted("system:serviceaccount:a:b"))]);
    let identity = authenticator(&script)
        .authenticate(
            &headers(Some(" bEaReR t.o.k ignored ")),
            (&Proof::default(), &Subject::default(), PEER),
            &settings(true),
        )
        .await
        .unwrap();
    assert_eq!(identity.credential, Credential::Bearer);
    assert_eq!(identity.user.name, "system:serviceaccount:a:b");
    assert_eq!(identity.user.uid, "u1");
    assert_eq!(identity.user.groups, ["g1", "system:authenticated"]);
    assert_eq!(
        identity.user.extra["authentication.kubernetes.io/pod-name"],
        ["p"]
    );
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": "t.o.k"},
    });
    assert_eq!(
        script.asked(),
        [("/apis/authentication.k8s.io/v1/tokenreviews", review)]
    );
}

#[tokio::test]
async fn a_token_for_another_audience_is_refused() {
    let mut settings = settings(true);
    settings.token_review.audiences = vec!["watershed".to_owned(), "other".to_owned()];
    let mut reviewed = accepted("sa");
    for (audiences, good) in [
        (json!(["https://kubernetes.default.svc"]), false),
        (json!([]), false),
        (Value::Null, false),
        (json!(["other"]), true),
        (json!(["x", "watershed"]), true),
    ] {
        match &audiences {
            Value::Null => drop(
                reviewed["status"]
                    .as_object_mut()
                    .unwrap()
                    .remove("audiences"),
            ),
            audiences => reviewed["status"]["audiences"] = audiences.clone(),
        }
        let script = Scripted::new([Ok(reviewed.clone())]);
        let answer = authenticator(&script)
            .authenticate(
                &headers(Some("Bearer t")),
                (&Proof::default(), &Subject::default(), PEER),
                &settings,
            )
            .await;
        assert_eq!(answer.is_ok(), good, "{audiences}");
        assert!(good || matches!(answer, Err(AuthnError::Rejected(_))));
        assert_eq!(
            script.asked()[0].1["spec"]["audiences"],
            json!(["watershed", "other"])
        );
    }
}

#[tokio::test]
async fn what_was_reviewed_for_some_audiences_is_reviewed_again_for_others() {
    let script = Scripted::new([Ok(accepted("sa")), Ok(accepted("sa"))]);
    let authenticator = authenticator(&script);
    let with = async |audiences: &[&str]| {
        let mut settings = settings(true);
        settings.token_review.audiences = audiences.iter().map(ToString::to_string).collect();
        let headers = headers(Some("Bearer t"));
        let nobody = (&Proof::default(), &Subject::default(), PEER);
        authenticator
            .authenticate(&headers, nobody, &settings)
            .await
    };
    assert!(with(&[]).await.is_ok());
    assert!(with(&["watershed"]).await.is_err());
    assert!(with(&[]).await.is_ok());
    assert!(with(&["watershed"]).await.is_err());
    assert_eq!(script.asked().len(), 2);
}

#[tokio::test]
async fn a_token_that_is_no_text_is_bad_and_not_absent() {
    let mut headers = HeaderMap::new();
    for (value, missing) in [
        (&b"Bearer \xff"[..], false),
        (b" bEARER \xc3\x28 x", false),
        (b"Basic \xff", true),
    ] {
        headers.insert(
            header::AUTHORIZATION,
            HeaderValue::from_bytes(value).unwrap(),
        );
        let nobody = (&Proof::default(), &Subject::default(), PEER);
        let answer = authenticator(&Scripted::default())
            .authenticate(&headers, nobody, &settings(true))
            .await;
        assert_eq!(answer.is_ok(), missing, "{}", value.escape_ascii());
    }
}

#[tokio::test]
async fn of_two_authorization_lines_the_first_counts() {
    let mut headers = headers(Some("Bearer first"));
    headers.append(
        header::AUTHORIZATION,
        HeaderValue::from_static("Bearer second"),
    );
    let script = Scripted::new([Ok(accepted("sa"))]);
    let nobody = (&Proof::default(), &Subject::default(), PEER);
    let answer = authenticator(&script)
        .authenticate(&headers, nobody, &settings(true))
        .await;
    assert!(answer.is_ok());
    assert_eq!(script.asked()[0].1["spec"]["token"], "first");
}

#[tokio::test]
async fn a_token_beyond_its_limit_is_refused_unreviewed() {
    let long = format!("Bearer {}", "a".repeat(1 << 20));
    let nobody = (&Proof::default(), &Subject::default(), PEER);
    let answer = authenticator(&Scripted::default())
        .authenticate(&headers(Some(&long)), nobody, &settings(true))
        .await;
    assert!(matches!(answer, Err(AuthnError::Rejected(_))));
}

/// Asks with `Bearer t` and no certificate.
async fn ask(authenticator: &Authenticator<Scripted>) -> Result<Identity, AuthnError> {
    let headers = headers(Some("Bearer t"));
    authenticator
        .authenticate(
            &headers,
            (&Proof::default(), &Subject::default(), PEER),
            &settings(true),
        )
        .await
}

#[tokio::test(start_paused = true)]
async fn answers_are_remembered_for_the_ttl() {
    let script = Scripted::new([
        Ok(accepted("sa")),
        Ok(json!({"status": {"authenticated": false}})),
        Ok(accepted("sa")),
    ]);
    let authenticator = authenticator(&script);
    assert!(ask(&authenticator).await.is_ok());
    advance(Duration::from_millis(9_900)).await;
    assert!(ask(&authenticator).await.is_ok());
    assert_eq!(script.asked().len(), 1);
    advance(Duration::from_millis(100)).await;
    assert!(ask(&authenticator).await.is_err());
    advance(Duration::from_millis(9_900)).await;
    assert!(ask(&authenticator).await.is_err());
    assert_eq!(script.asked().len(), 2);
    advance(Duration::from_millis(100)).await;
    assert!(ask(&authenticator).await.is_ok());
    assert_eq!(script.asked().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_may_be_a_failure_is_remembered_for_a_second_only() {
    let script = Scripted::new([Ok(garbage()), Ok(accepted("sa"))]);
    let authenticator = authenticator(&script);
    assert!(ask(&authenticator).await.is_err());
    advance(Duration::from_millis(900)).await;
    assert!(ask(&authenticator).await.is_err());
    advance(Duration::from_millis(100)).await;
    assert!(ask(&authenticator).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn without_a_ttl_every_request_is_reviewed() {
    let mut settings = settings(true);
    settings.token_review.cache_ttl = Duration::ZERO;
    let script = Scripted::new([Ok(accepted("sa")), Ok(garbage())]);
    let authenticator = authenticator(&script);
    let headers = headers(Some("Bearer t"));
    let none = Proof::default();
    assert!(
        authenticator
            .authenticate(&headers, (&none, &Subject::default(), PEER), &settings)
            .await
            .is_ok()
    );
    assert!(
        authenticator
            .authenticate(&headers, (&none, &Subject::default(), PEER), &settings)
            .await
            .is_err()
    );
}

#[tokio::test(start_paused = true)]
async fn requests_with_the_same_token_share_one_review() {
    let script = Scripted::new([Ok(accepted("sa"))]);
    let authenticator = authenticator(&script);
    let (a, b, c) = tokio::join!(
        ask(&authenticator),
        ask(&authenticator),
        ask(&authenticator)
    );
    for identity in [a, b, c] {
        assert_eq!(identity.unwrap().user.name, "sa");
    }
    assert_eq!(script.asked().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn failures_are_retried_a_few_times_within_the_timeout_and_never_remembered() {
    let script = Scripted::new([
        Err(unreachable()),
        Err(unreachable()),
        Err(unreachable()),
        Err(unreachable()),
        Err(unreachable()),
        Ok(accepted("sa")),
    ]);
    let authenticator = authenticator(&script);
    let start = Instant::now();
    let failed = ask(&authenticator).await.unwrap_err();
    assert!(matches!(&failed, AuthnError::Review(error) if **error == unreachable()));
    assert_eq!(failed.status().code(), 401);
    assert_eq!(script.asked().len(), 5);
    let waited = start.elapsed();
    // 500 ms × (1 + 1.5 + 2.25 + 3.375), and a fifth more at most.
    assert!((Duration::from_millis(4_062)..Duration::from_millis(4_900)).contains(&waited));
    assert!(ask(&authenticator).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn only_what_may_pass_is_retried() {
    let status = |code, reason: &str, retry_after| ReviewError::Status {
        code,
        reason: reason.to_owned(),
        message: String::new(),
        retry_after,
    };
    let table = [
        (status(429, "TooManyRequests", None), true),
        (status(504, "Timeout", None), true),
        (status(500, "InternalError", None), true),
        (status(503, "ServiceUnavailable", Some(1)), true),
        (status(503, "ServiceUnavailable", None), false),
        (status(500, "", None), false),
        (status(403, "Forbidden", None), false),
        (status(401, "Unauthorized", None), false),
    ];
    for (error, retried) in table {
        let script = Scripted::new([Err(error.clone()), Ok(accepted("sa"))]);
        assert_eq!(
            ask(&authenticator(&script)).await.is_ok(),
            retried,
            "{error}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_review_that_does_not_come_ends_at_the_timeout() {
    struct Silent;
    impl Reviews for Silent {
        async fn create(
            &self,
            _: &'static str,
            _: bytes::Bytes,
        ) -> Result<bytes::Bytes, ReviewError> {
            std::future::pending().await
        }
    }
    let authenticator = Authenticator::new(Arc::new(Reviewer::new(Silent)), None);
    let start = Instant::now();
    let failed = authenticator
        .authenticate(
            &headers(Some("Bearer t")),
            (&Proof::default(), &Subject::default(), PEER),
            &settings(true),
        )
        .await;
    assert!(matches!(failed, Err(AuthnError::Review(error)) if *error == ReviewError::Timeout));
    assert_eq!(start.elapsed(), Duration::from_secs(10));
}

#[tokio::test]
async fn a_websocket_may_bring_its_token_as_a_subprotocol() {
    // The token is "t.o.k".
    let table = [
        (
            "base64url.bearer.authorization.k8s.io.dC5vLms, v4.channel.k8s.io",
            Some("t.o.k"),
        ),
        ("v4.channel.k8s.io", None),
        (
            "base64url.bearer.authorization.k8s.io., v4.channel.k8s.io",
            None,
        ),
    ];
    for (protocols, token) in table {
        let script = Scripted::new([Ok(accepted("sa"))]);
        let identity = websocket(&script, protocols).await.unwrap();
        let anonymous = identity.credential == Credential::Anonymous;
        assert_eq!(anonymous, token.is_none(), "{protocols}");
        let asked = script.asked();
        let reviewed = asked
            .first()
            .map(|(_, body)| body["spec"]["token"].as_str().unwrap());
        assert_eq!(reviewed, token, "{protocols}");
    }
    // After a bearer token that is bad or hidden it has its turn.
    for authorization in ["Bearer bad", "Bearer  hidden", "Basic x"] {
        let is_reviewed = authorization == "Bearer bad";
        let script = match is_reviewed {
            true => Scripted::new([Ok(garbage()), Ok(accepted("sa"))]),
            false => Scripted::new([Ok(accepted("sa"))]),
        };
        let protocols = "x,base64url.bearer.authorization.k8s.io.dC5vLms";
        let mut headers = websocket_headers(protocols);
        headers.insert(
            header::AUTHORIZATION,
            HeaderValue::from_static(authorization),
        );
        let nobody = (&Proof::default(), &Subject::default(), PEER);
        let identity = authenticator(&script)
            .authenticate(&headers, nobody, &settings(true))
            .await;
        assert_eq!(identity.unwrap().user.name, "sa", "{authorization}");
        assert_eq!(script.asked().len(), 1 + usize::from(is_reviewed));
    }
    let refused = [
        "base64url.bearer.authorization.k8s.io.dC5vLms",
        "base64url.bearer.authorization.k8s.io.!, v4.channel.k8s.io",
        "base64url.bearer.authorization.k8s.io.dA,base64url.bearer.authorization.k8s.io.dA,x",
    ];
    for protocols in refused {
        let error = websocket(&Scripted::default(), protocols)
            .await
            .unwrap_err();
        assert!(matches!(error, AuthnError::Rejected(_)), "{protocols}");
    }
}

fn websocket_headers(protocols: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONNECTION, HeaderValue::from_static("keep-alive"));
    headers.append(header::CONNECTION, HeaderValue::from_static("x, Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("WebSocket"));
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocols.parse().unwrap());
    headers
}

async fn websocket(script: &Scripted, protocols: &str) -> Result<Identity, AuthnError> {
    authenticator(script)
        .authenticate(
            &websocket_headers(protocols),
            (&Proof::default(), &Subject::default(), PEER),
            &settings(true),
        )
        .await
}

#[tokio::test]
async fn no_error_repeats_the_token() {
    let refused = json!({"status": {"error": "the token s3cr3t is no good"}});
    let status = |message: &str| ReviewError::Status {
        code: 422,
        reason: "Invalid s3cr3t".to_owned(),
        message: message.to_owned(),
        retry_after: None,
    };
    let script = Scripted::new([
        Ok(refused),
        Err(status("spec.token: Invalid value: \"s3cr3t\"")),
        Ok(json!({"status": "s3cr3t"})),
        Ok(json!("s3cr3t")),
        Ok(json!({"status": {"user": {"groups": "s3cr3t"}}})),
    ]);
    let authenticator = authenticator(&script);
    let settings = Authentication {
        token_review: TokenReview {
            cache_ttl: Duration::ZERO,
            audiences: Vec::new(),
        },
        ..settings(false)
    };
    for _ in 0..5 {
        let nobody = (&Proof::default(), &Subject::default(), PEER);
        let headers = headers(Some("Bearer s3cr3t"));
        let refused = authenticator
            .authenticate(&headers, nobody, &settings)
            .await;
        let error = refused.expect_err("nobody");
        for told in [error.to_string(), format!("{error:?}")] {
            assert!(!told.contains("s3cr3t"), "{told}");
        }
    }
    assert_eq!(script.asked().len(), 5);
}
