//! The headers of a forwarded request: what must not travel, and how an identity does.
//!
//! Owns: the order that makes it safe. First what `Connection` names, then the other hop-by-hop
//! headers, then everything a client may have said about identity, and only then the identity
//! itself; done in another order, `Connection: X-Remote-User` would delete the identity and leave
//! the proxy's.
//! Refuses: identities that would change on the way, as one with a blank at its end, which HTTP
//! trims.
//! Invariant: after [`identify`] the identity headers are exactly those of the identity.

use std::net::IpAddr;

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{self, Entry},
};

use crate::{
    authn::{Credential, Identity, UserInfo},
    status::Status,
    upstream::Pool,
};

use super::{Assertion, CONNECTION, value};

/// Headers that concern one connection (RFC 9110 7.6.1), besides those `Connection` names.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Removes what concerns this connection alone. `te: trailers` is kept: it says what the client can
/// take. So is what `Connection` must not name (RFC 9110 7.6.1) and what says who asks and as whom:
/// without it, the request would be somebody else's.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|it| it.as_bytes().split(|byte| *byte == b','))
        .filter_map(|it| HeaderName::from_bytes(it.trim_ascii()).ok())
        .filter(|it| *it != header::AUTHORIZATION && !is_impersonation(it))
        .collect();
    let trailers = headers
        .get_all(header::TE)
        .iter()
        .any(|it| has_token(it, b"trailers"));
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    // Answered by this side's server, which asked the client for the body.
    headers.remove(header::EXPECT);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// Whether a comma-separated value has this token, whatever its case and parameters.
pub(super) fn has_token(value: &HeaderValue, token: &[u8]) -> bool {
    tokens(value).any(|it| it.eq_ignore_ascii_case(token))
}

/// The tokens of a comma-separated value, without their parameters.
pub(super) fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let elements = value.as_bytes().split(|byte| *byte == b',');
    elements.map(|it| {
        let name = it.split(|byte| *byte == b';').next().unwrap_or_default();
        name.trim_ascii()
    })
}

/// Adds the client's address to those of the proxies before; the apiserver's audit log shows it.
pub(super) fn append_forwarded_for(headers: &mut HeaderMap, peer: IpAddr) {
    let name = HeaderName::from_static("x-forwarded-for");
    let before = headers.get_all(&name).iter().map(HeaderValue::as_bytes);
    let peer = peer.to_string();
    let all: Vec<&[u8]> = before.chain([peer.as_bytes()]).collect();
    let joined = value(&all.join(&b", "[..])).expect("joined values are a value");
    headers.insert(name, joined);
}

/// Replaces what `headers` say about identity by `identity`.
///
/// # Errors
/// 403 when the identity cannot be carried.
pub(crate) fn identify(
    headers: &mut HeaderMap,
    identity: &Identity,
    assertion: Assertion,
) -> Result<Pool, Status> {
    strip(headers, is_remote);
    match identity.credential {
        // Its own token speaks for the client, and for its impersonation too.
        Credential::Bearer => return Ok(Pool::Bare),
        Credential::FrontProxy | Credential::Certificate | Credential::Anonymous => {}
    }
    // Not what proved the identity: an apiserver must not weigh it against what is asserted.
    headers.remove(header::AUTHORIZATION);
    let written = match assertion {
        Assertion::RequestHeader => write(headers, &identity.user, &REMOTE),
        Assertion::Impersonate => {
            if headers.keys().any(is_impersonation) {
                return Err(refused(
                    "impersonation is not possible through a proxy that impersonates; \
                     use a bearer token, or upstream.identity.mode RequestHeader",
                ));
            }
            write(headers, &identity.user, &IMPERSONATE)
        }
    };
    written.ok_or_else(|| refused("the user's name, groups or extra cannot travel in a header"))?;
    Ok(Pool::Asserted)
}

/// The names one way of asserting uses.
struct Names {
    user: HeaderName,
    group: HeaderName,
    uid: HeaderName,
    extra: &'static str,
}

const REMOTE: Names = Names {
    user: HeaderName::from_static("x-remote-user"),
    group: HeaderName::from_static("x-remote-group"),
    uid: HeaderName::from_static("x-remote-uid"),
    extra: "x-remote-extra-",
};

const IMPERSONATE: Names = Names {
    user: HeaderName::from_static("impersonate-user"),
    group: HeaderName::from_static("impersonate-group"),
    uid: HeaderName::from_static("impersonate-uid"),
    extra: "impersonate-extra-",
};

/// `None` when something cannot be carried; the headers are then of no use.
fn write(headers: &mut HeaderMap, user: &UserInfo, names: &Names) -> Option<()> {
    headers.insert(
        names.user.clone(),
        carried(&user.name).filter(|it| !it.is_empty())?,
    );
    for group in user.groups.iter().filter(|it| !it.is_empty()) {
        headers.append(names.group.clone(), carried(group)?);
    }
    if !user.uid.is_empty() {
        headers.insert(names.uid.clone(), carried(&user.uid)?);
    }
    for (key, values) in &user.extra {
        let name = HeaderName::from_bytes(format!("{}{}", names.extra, escape(key)).as_bytes());
        let name = name.ok()?;
        for value in values {
            headers.append(name.clone(), carried(value)?);
        }
    }
    Some(())
}

/// The text as a header value, if it arrives as it left: HTTP trims blanks and forbids control
/// bytes.
fn carried(text: &str) -> Option<HeaderValue> {
    let trimmed = text.trim_matches([' ', '\t']);
    (trimmed.len() == text.len())
        .then(|| value(text.as_bytes()))
        .flatten()
}

/// An extra's key as a part of a header name: `%XX` for each byte that is no token character, and
/// for `%`, as client-go `round_trippers.go`. Capitals too: names lose their case on the way, `%41`
/// does not.
fn escape(key: &str) -> String {
    let mut escaped = String::with_capacity(key.len());
    for byte in key.bytes() {
        let plain =
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$&'*+-.^_`|~".contains(&byte);
        if plain {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

fn refused(message: &str) -> Status {
    Status::new(403, "Forbidden", message)
}

/// `X-Remote-User` and everything else that begins like it: custom names are set on apiservers by
/// prefix, and some servers take `_` for `-`.
fn is_remote(name: &HeaderName) -> bool {
    name.as_str().replace('_', "-").starts_with("x-remote-")
}

fn is_impersonation(name: &HeaderName) -> bool {
    name.as_str().replace('_', "-").starts_with("impersonate-")
}

fn strip(headers: &mut HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) {
    let names: Vec<HeaderName> = headers.keys().filter(|it| unwanted(it)).cloned().collect();
    for name in names {
        if let Entry::Occupied(entry) = headers.entry(name) {
            entry.remove_entry_mult();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use super::*;

    fn identity(credential: Credential) -> Identity {
        let extra = BTreeMap::from([
            (
                "authentication.kubernetes.io/node-name".to_owned(),
                vec!["n1".to_owned()],
            ),
            ("Key%".to_owned(), vec!["a".to_owned(), "ü".to_owned()]),
        ]);
        let user = UserInfo {
            name: "system:node:n1".to_owned(),
            uid: "u-1".to_owned(),
            groups: vec!["system:nodes".to_owned(), String::new(), "b".to_owned()],
            extra,
        };
        Identity {
            user: Arc::new(user),
            credential,
            warning: None,
        }
    }

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            headers.append(name, value.parse().expect("a value"));
        }
        headers
    }

    /// Every header as `name: value`, sorted by name; values of one name keep their order.
    fn lines(headers: &HeaderMap) -> Vec<String> {
        let mut lines: Vec<String> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
            .collect();
        lines.sort_by(|a, b| a.split(':').next().cmp(&b.split(':').next()));
        lines
    }

    const ASSERTED: [&str; 7] = [
        "x-remote-extra-%4Bey%25: a",
        "x-remote-extra-%4Bey%25: ü",
        "x-remote-extra-authentication.kubernetes.io%2Fnode-name: n1",
        "x-remote-group: system:nodes",
        "x-remote-group: b",
        "x-remote-uid: u-1",
        "x-remote-user: system:node:n1",
    ];

    #[test]
    fn no_client_header_changes_the_asserted_identity() {
        let attacks: [&[(&str, &str)]; 9] = [
            &[],
            &[("X-Remote-User", "admin"), ("x-remote-user", "root")],
            &[
                ("X-Remote-Group", "system:masters"),
                ("X-REMOTE-GROUP", "system:masters"),
            ],
            &[("X-Remote-Uid", "0"), ("X-Remote-Extra-Scopes", "all")],
            &[
                ("x-ReMoTe-ExTrA-", "empty key"),
                ("X-Remote-Something-New", "x"),
            ],
            &[
                ("X_Remote_User", "admin"),
                ("x-remote_group", "system:masters"),
            ],
            &[
                ("Connection", "X-Remote-User, x-remote-group"),
                ("X-Remote-User", "admin"),
            ],
            &[
                ("Connection", "close"),
                ("connection", "X-Remote-Uid,,;, X-Remote-Extra-a"),
            ],
            &[
                ("Authorization", "Bearer stolen"),
                ("Proxy-Authorization", "Basic x"),
            ],
        ];
        for attack in attacks {
            for credential in [
                Credential::FrontProxy,
                Credential::Certificate,
                Credential::Anonymous,
            ] {
                let mut headers = headers(attack);
                remove_hop_by_hop(&mut headers);
                let pool = identify(
                    &mut headers,
                    &identity(credential),
                    Assertion::RequestHeader,
                );
                assert_eq!(
                    pool.expect("it can be carried"),
                    Pool::Asserted,
                    "{attack:?}"
                );
                let mut expected: Vec<String> = ASSERTED.map(str::to_lowercase).to_vec();
                let mut found: Vec<String> =
                    lines(&headers).iter().map(|it| it.to_lowercase()).collect();
                expected.sort();
                found.sort();
                assert_eq!(found, expected, "{attack:?}");
            }
        }
    }

    #[test]
    fn a_bearer_token_travels_untouched_and_alone() {
        let mut headers = headers(&[
            ("Authorization", "Bearer abc"),
            ("X-Remote-User", "admin"),
            ("Impersonate-User", "bob"),
        ]);
        let pool = identify(
            &mut headers,
            &identity(Credential::Bearer),
            Assertion::Impersonate,
        );
        assert_eq!(pool.expect("always"), Pool::Bare);
        assert_eq!(
            lines(&headers),
            ["authorization: Bearer abc", "impersonate-user: bob"]
        );
    }

    #[test]
    fn impersonation_passes_where_the_identity_is_asserted_by_header_and_is_refused_elsewhere() {
        let user = identity(Credential::Certificate);
        let client = headers(&[("Impersonate-User", "bob"), ("Impersonate-Group", "g")]);
        let mut forwarded = client.clone();
        identify(&mut forwarded, &user, Assertion::RequestHeader).expect("carried");
        assert_eq!(forwarded["impersonate-user"], "bob");
        assert_eq!(forwarded["impersonate-group"], "g");
        assert_eq!(forwarded["x-remote-user"], "system:node:n1");

        let mut forwarded = client;
        let refused = identify(&mut forwarded, &user, Assertion::Impersonate);
        assert_eq!(
            refused
                .expect_err("two users cannot be impersonated at once")
                .code(),
            403
        );
        let mut forwarded = HeaderMap::new();
        identify(&mut forwarded, &user, Assertion::Impersonate).expect("carried");
        assert_eq!(forwarded["impersonate-user"], "system:node:n1");
        assert_eq!(forwarded.get_all("impersonate-group").iter().count(), 2);
        assert_eq!(forwarded["impersonate-uid"], "u-1");
        assert_eq!(forwarded["impersonate-extra-%4bey%25"], "a");
    }

    #[test]
    fn an_identity_that_would_change_on_the_way_is_refused() {
        for name in ["", " admin", "admin ", "\tadmin", "a\nb", "a\0"] {
            let mut identity = identity(Credential::Certificate);
            let user = UserInfo {
                name: name.to_owned(),
                ..(*identity.user).clone()
            };
            identity.user = Arc::new(user);
            for assertion in [Assertion::RequestHeader, Assertion::Impersonate] {
                let refused = identify(&mut HeaderMap::new(), &identity, assertion);
                assert_eq!(refused.expect_err(name).code(), 403);
            }
        }
    }

    #[test]
    fn hop_by_hop_headers_end_here_and_all_others_pass() {
        let kept = [
            ("accept", "application/json"),
            ("accept-encoding", "gzip"),
            ("audit-id", "x"),
            ("traceparent", "00-1-2-00"),
            ("user-agent", "kubectl/v1"),
        ];
        let mut headers = headers(&kept);
        for (name, value) in [
            ("connection", "keep-alive, X-Private"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "gzip;q=0.5, Trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("x-private", "1"),
            ("expect", "100-continue"),
        ] {
            headers.insert(name, value.parse().expect("a value"));
        }
        remove_hop_by_hop(&mut headers);
        let mut expected: Vec<String> = kept
            .iter()
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        expected.insert(3, "te: trailers".to_owned());
        assert_eq!(lines(&headers), expected);
    }

    #[test]
    fn a_client_cannot_have_the_next_hop_forget_who_it_is_or_acts_as() {
        let kept = [
            ("authorization", "Bearer a"),
            ("impersonate-extra-scopes", "all"),
            ("impersonate-user", "bob"),
        ];
        let mut headers = headers(&kept);
        for named in [
            "Authorization, Impersonate-User",
            "impersonate-extra-scopes, close",
        ] {
            headers.append("connection", named.parse().expect("a value"));
        }
        remove_hop_by_hop(&mut headers);
        assert_eq!(
            lines(&headers),
            kept.map(|(name, value)| format!("{name}: {value}"))
        );
    }

    #[test]
    fn the_peer_is_added_to_the_forwarders_before_it() {
        let mut headers = headers(&[("X-Forwarded-For", "10.0.0.1"), ("X-Forwarded-For", "a, b")]);
        append_forwarded_for(&mut headers, IpAddr::from([192, 0, 2, 1]));
        assert_eq!(
            lines(&headers),
            ["x-forwarded-for: 10.0.0.1, a, b, 192.0.2.1"]
        );
    }
}
