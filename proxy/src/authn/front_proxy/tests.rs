use std::path::PathBuf;
use std::time::Duration;

use rcgen::DnType;
use watershed_config::{Authentication, TokenReview};

use super::*;
use crate::authn::scripted::Scripted;
use crate::authn::tests::leaf;
use crate::authn::{Authenticator, Credential, Identity, Reviewer};
use crate::passthrough::{Assertion, identify};
use crate::tls::Proof;

fn settings() -> RequestHeader {
    RequestHeader {
        client_ca_file: PathBuf::new(),
        allowed_names: Vec::new(),
        username_headers: vec!["x-remote-user".to_owned()],
        group_headers: vec!["x-remote-group".to_owned()],
        uid_headers: vec!["x-remote-uid".to_owned()],
        extra_header_prefixes: vec!["x-remote-extra-".to_owned()],
    }
}

fn holder(name: &str) -> ClientCertificate {
    ClientCertificate::Valid(leaf(&[(DnType::CommonName, name)]))
}

/// A certificate that only the authorities of front proxies signed.
fn front_proxy(name: &str) -> Proof {
    Proof {
        client: ClientCertificate::Invalid("unknown issuer".into()),
        front_proxy: holder(name),
    }
}

/// A certificate that only the authorities of clients signed.
fn client(name: &str) -> Proof {
    Proof {
        client: holder(name),
        front_proxy: ClientCertificate::Invalid("unknown issuer".into()),
    }
}

type Lines<'a> = &'a [(&'static str, &'a [u8])];

fn headers(lines: Lines<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_bytes(value).unwrap());
    }
    headers
}

async fn who(
    settings: &RequestHeader,
    proof: &Proof,
    headers: &HeaderMap,
) -> Result<Identity, AuthnError> {
    let authentication = Authentication {
        client_certificate: true,
        token_review: TokenReview {
            cache_ttl: Duration::from_secs(10),
            audiences: Vec::new(),
        },
        anonymous: true,
    };
    let reviewer = Arc::new(Reviewer::new(Scripted::default()));
    let authenticator = Authenticator::new(reviewer, Some(FrontProxies::new(settings)));
    let credentials = (proof, &Subject::default(), crate::authn::tests::PEER);
    authenticator
        .authenticate(headers, credentials, &authentication)
        .await
}

const ALICE: Lines<'_> = &[("X-Remote-User", b"alice")];

#[tokio::test]
async fn a_front_proxy_names_user_groups_uid_and_extras() {
    let headers = headers(&[
        ("X-Remote-User", b"system:node:n1"),
        ("X-Remote-Uid", b"u-1"),
        ("X-Remote-Group", b"system:nodes"),
        ("X-Remote-Group", b""),
        ("X-Remote-Group", b"a,b"),
        (
            "X-REMOTE-EXTRA-Authentication.kubernetes.io%2fnode-Name",
            b"n1",
        ),
        ("X-Remote-Extra-Scopes", b"one"),
        ("X-Remote-Extra-Scopes", b"two"),
        ("X-Remote-Extra-Scopes", b""),
        ("X-Remote-Extra-%4Bey%25", "\u{fc}".as_bytes()),
        ("X-Remote-Extra-A%zzB%41", b"raw"),
        ("X-Remote-Extra-", b"no key"),
        ("X_Remote_Extra_a", b"not this one"),
    ]);
    let identity = who(&settings(), &front_proxy("region"), &headers)
        .await
        .unwrap();
    assert_eq!(identity.credential, Credential::FrontProxy);
    let user = &identity.user;
    assert_eq!((&*user.name, &*user.uid), ("system:node:n1", "u-1"));
    assert_eq!(user.groups, ["system:nodes", "a,b", "system:authenticated"]);
    let extra: Vec<_> = user
        .extra
        .iter()
        .map(|(key, values)| (&**key, values.join("|")))
        .collect();
    let expected = [
        ("", "no key"),
        ("a%zzb%41", "raw"),
        ("authentication.kubernetes.io/node-name", "n1"),
        ("key%", "\u{fc}"),
        ("scopes", "one|two|"),
    ];
    // An escaped capital survives, as a plain one does not.
    let expected = expected.map(|(key, value)| match key {
        "key%" => ("Key%", value.to_owned()),
        _ => (key, value.to_owned()),
    });
    let mut expected = expected.to_vec();
    expected.sort();
    assert_eq!(extra, expected);
}

#[tokio::test]
async fn the_first_header_with_a_name_counts_and_of_it_the_first_line() {
    let two = RequestHeader {
        username_headers: vec!["x-user".to_owned(), "x-remote-user".to_owned()],
        uid_headers: Vec::new(),
        ..settings()
    };
    let table: [(Lines<'_>, Option<&str>); 6] = [
        (&[("X-Remote-User", b"alice")], Some("alice")),
        (
            &[("X-Remote-User", b"alice"), ("X-User", b"bob")],
            Some("bob"),
        ),
        (
            &[("X-User", b""), ("X-Remote-User", b"alice")],
            Some("alice"),
        ),
        (
            &[("X-Remote-User", b"alice"), ("X-Remote-User", b"bob")],
            Some("alice"),
        ),
        (&[("X-Remote-User", b""), ("X-Remote-User", b"bob")], None),
        (&[("X_Remote_User", b"alice")], None),
    ];
    for (lines, name) in table {
        let mut headers = headers(lines);
        headers.insert("x-remote-uid", HeaderValue::from_static("1"));
        let found = who(&two, &front_proxy("region"), &headers).await.ok();
        let found = found.map(|it| {
            assert_eq!(it.user.uid, "", "no header is configured for it");
            it.user.name.clone()
        });
        assert_eq!(found.as_deref(), name, "{lines:?}");
    }
}

#[tokio::test]
async fn who_is_no_front_proxy_names_nobody_by_header() {
    let headers = headers(&[
        ("X-Remote-User", b"admin"),
        ("X-Remote-Group", b"system:masters"),
    ]);
    let identity = who(&settings(), &client("bob"), &headers).await.unwrap();
    assert_eq!(identity.credential, Credential::Certificate);
    assert_eq!(identity.user.name, "bob");
    assert!(!identity.user.in_group("system:masters"));
    let identity = who(&settings(), &Proof::default(), &headers).await.unwrap();
    assert_eq!(identity.credential, Credential::Anonymous);
    let invalid = || ClientCertificate::Invalid("expired".into());
    let stranger = Proof {
        client: invalid(),
        front_proxy: invalid(),
    };
    let refused = who(&settings(), &stranger, &headers).await;
    assert!(matches!(refused, Err(AuthnError::Rejected(_))));
}

#[tokio::test]
async fn only_the_allowed_names_may_speak_for_others() {
    let named = RequestHeader {
        allowed_names: vec!["region-a".to_owned(), "region-b".to_owned()],
        ..settings()
    };
    for (name, allowed) in [
        ("region-a", true),
        ("region-b", true),
        ("region-c", false),
        ("", false),
    ] {
        let found = who(&named, &front_proxy(name), &headers(ALICE)).await;
        assert_eq!(found.is_ok(), allowed, "{name:?}: {found:?}");
    }
    // A certificate that both authorities signed stays what it is as a client.
    let both = Proof {
        client: holder("region-c"),
        front_proxy: holder("region-c"),
    };
    let identity = who(&named, &both, &headers(ALICE)).await.unwrap();
    assert_eq!(
        (&*identity.user.name, identity.credential),
        ("region-c", Credential::Certificate)
    );
    assert!(
        who(&settings(), &front_proxy(""), &headers(ALICE))
            .await
            .is_ok(),
        "any name"
    );
}

#[tokio::test]
async fn a_front_proxy_that_names_nobody_is_only_what_its_certificate_says() {
    for lines in [
        &[][..],
        &[("X-Remote-User", &b""[..])],
        &[("X-Remote-Group", b"g")],
    ] {
        let refused = who(&settings(), &front_proxy("region"), &headers(lines)).await;
        assert_eq!(refused.unwrap_err().status().code(), 401, "{lines:?}");
        let both = Proof {
            client: holder("region"),
            front_proxy: holder("region"),
        };
        let identity = who(&settings(), &both, &headers(lines)).await.unwrap();
        assert_eq!(identity.user.name, "region", "{lines:?}");
    }
}

#[tokio::test]
async fn the_word_of_a_front_proxy_goes_before_every_other_credential() {
    let mut headers = headers(ALICE);
    headers.insert(
        "authorization",
        HeaderValue::from_static("Bearer never-reviewed"),
    );
    let both = Proof {
        client: holder("region"),
        front_proxy: holder("region"),
    };
    let identity = who(&settings(), &both, &headers).await.unwrap();
    assert_eq!(
        (&*identity.user.name, identity.credential),
        ("alice", Credential::FrontProxy)
    );
}

#[tokio::test]
async fn a_certificate_that_names_nobody_is_not_anonymous_where_front_proxies_are_known() {
    let refused = who(&settings(), &client(""), &HeaderMap::new()).await;
    assert!(
        matches!(refused, Err(AuthnError::Rejected(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_front_proxy_may_say_that_the_user_is_anonymous() {
    let headers = headers(&[
        ("X-Remote-User", b"system:anonymous"),
        ("X-Remote-Group", b"system:unauthenticated"),
    ]);
    let identity = who(&settings(), &front_proxy("region"), &headers)
        .await
        .unwrap();
    assert!(identity.user.is_anonymous());
    assert_eq!(identity.user.groups, ["system:unauthenticated"]);
}

#[tokio::test]
async fn what_is_no_text_is_refused_and_not_guessed() {
    let lines: [Lines<'_>; 5] = [
        &[("X-Remote-User", b"al\xffice")],
        &[("X-Remote-User", b"alice"), ("X-Remote-Uid", b"\xff")],
        &[("X-Remote-User", b"alice"), ("X-Remote-Group", b"\xc3")],
        &[("X-Remote-User", b"alice"), ("X-Remote-Extra-a", b"\xc3")],
        &[("X-Remote-User", b"alice"), ("X-Remote-Extra-%ff", b"a")],
    ];
    for lines in lines {
        let refused = who(&settings(), &front_proxy("region"), &headers(lines)).await;
        assert!(
            matches!(refused, Err(AuthnError::Rejected(_))),
            "{lines:?}: {refused:?}"
        );
    }
}

#[test]
fn configured_names_are_stripped_in_every_spelling() {
    let custom = RequestHeader {
        username_headers: vec!["x-user".to_owned()],
        group_headers: vec!["x-user-group".to_owned()],
        uid_headers: vec!["x-user-id".to_owned()],
        extra_header_prefixes: vec!["x-user-about-".to_owned()],
        ..settings()
    };
    let mut headers = headers(&[
        ("X-User", b"admin"),
        ("x_user", b"admin"),
        ("X-User-Group", b"system:masters"),
        ("X-User_Group", b"system:masters"),
        ("X-USER-ID", b"0"),
        ("X-User-About-Scopes", b"all"),
        ("X-User-About_Scopes", b"all"),
        ("X_User_About_Scopes", b"all"),
        ("X-User-Agent", b"kept"),
    ]);
    FrontProxies::new(&custom).strip(&mut headers);
    assert_eq!(headers.keys().collect::<Vec<_>>(), ["x-user-agent"]);
}

/// What one proxy asserts, the next one reads.
#[test]
fn an_identity_survives_any_number_of_tiers() {
    let mut rng = fastrand::Rng::with_seed(11);
    let proxies = FrontProxies::new(&settings());
    let certificate = holder("region");
    for _ in 0..300 {
        let mut word = |least: usize, most: usize| -> String {
            let alphabet = "aZ09 ,;=%/\"\u{e9}\u{4e2d}:-_.~!#$&'*+^`|(){}[]<>?@\\";
            let alphabet: Vec<char> = alphabet.chars().collect();
            let length = rng.usize(least..=most);
            let word: String = (0..length)
                .map(|_| alphabet[rng.usize(..alphabet.len())])
                .collect();
            // HTTP trims blanks; such an identity is refused before it is sent.
            word.replace(' ', if length == 1 { "x" } else { " " })
                .trim()
                .to_owned()
        };
        let name = format!("n{}", word(0, 12));
        let uid = word(0, 8);
        let groups: Vec<String> = (0..4).map(|_| format!("g{}", word(0, 6))).collect();
        let extra = (0..4)
            .map(|_| (word(0, 10), vec![word(0, 5), word(0, 5)]))
            .collect();
        let sent = UserInfo {
            name,
            uid,
            groups,
            extra,
        }
        .authenticated();
        let mut user = Arc::new(sent.clone());
        for _ in 0..3 {
            let mut headers = HeaderMap::new();
            let identity = Identity {
                user,
                credential: Credential::FrontProxy,
                warning: None,
            };
            identify(&mut headers, &identity, Assertion::RequestHeader).expect("it can be carried");
            let read = proxies.user(&headers, (&certificate, &Subject::default()));
            user = read.expect("it is text").expect("it has a name");
            assert_eq!(*user, sent);
        }
    }
}
