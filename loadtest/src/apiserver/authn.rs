//! Who is asking: client certificates, the front proxy's word, bearer tokens, or nobody.
//!
//! Owns the chain of spec 7.1: front proxy, certificate, token; the first that succeeds wins, one
//! that fails makes the request a 401 unless another succeeds, and a caller without any
//! credential is `system:anonymous`. Owns the parsing of `Impersonate-*` too; whether a caller may
//! impersonate is decided by [`impersonation`](super::impersonation).
//! Refuses to decide what a caller may do: that is [`authz`](super::authz).
//!
//! Invariant: a certificate is judged once per connection ([`Authenticator::peer`]), headers and
//! tokens on every request.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use http::HeaderMap;
use percent_encoding::percent_decode_str;
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::certs::Pki;
use super::tokens::ServiceAccountTokens;

/// An authenticated caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// The user's name, such as `system:node:node-0`.
    pub name: String,
    /// The user's identifier; empty when the credential carries none.
    pub uid: String,
    /// Groups in the order the credential lists them, `system:authenticated` last.
    pub groups: Vec<String>,
    /// Extra attributes, such as the identifier of the credential.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// The caller without credentials.
    #[must_use]
    pub fn anonymous() -> Self {
        Self {
            name: ANONYMOUS.to_owned(),
            groups: vec![UNAUTHENTICATED.to_owned()],
            ..Self::default()
        }
    }

    /// Whether it is anybody but `system:anonymous`.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.name != ANONYMOUS
    }

    /// Whether the user is a member of `group`.
    #[must_use]
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|known| known == group)
    }

    /// Adds the group of every caller whose credential was good.
    pub(super) fn authenticated(mut self) -> Self {
        let known = self.is_in(AUTHENTICATED) || self.is_in(UNAUTHENTICATED);
        if self.name != ANONYMOUS && !known {
            self.groups.push(AUTHENTICATED.to_owned());
        }
        self
    }
}

pub(super) const ANONYMOUS: &str = "system:anonymous";
pub(super) const AUTHENTICATED: &str = "system:authenticated";
pub(super) const UNAUTHENTICATED: &str = "system:unauthenticated";

/// A credential was offered and none was good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no credential of the request is valid")]
pub struct Unauthorized;

/// What the other end of a connection proved by its certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    user: Certificate<UserInfo>,
    front_proxy: bool,
}

impl Peer {
    /// Whether it is a front proxy or has the certificate of a user.
    pub(super) fn is_behind(&self, user: &str) -> bool {
        self.front_proxy || matches!(&self.user, Certificate::Good(own) if own.name == user)
    }

    #[cfg(test)]
    pub(super) fn of(name: &str) -> Self {
        let name = name.to_owned();
        let user = UserInfo {
            name,
            ..UserInfo::default()
        };
        Self {
            user: Certificate::Good(user),
            front_proxy: false,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Certificate<T> {
    #[default]
    Absent,
    /// Of an unknown authority, expired, or not for clients.
    Bad,
    Good(T),
}

/// Judges credentials against the server's authorities and its list of tokens.
pub struct Authenticator {
    clients: Arc<dyn ClientCertVerifier>,
    front_proxies: Arc<dyn ClientCertVerifier>,
    users: Users,
    service_accounts: ServiceAccountTokens,
}

impl Authenticator {
    /// An authenticator that trusts the two authorities of `pki` and the tokens of `users`.
    ///
    /// # Errors
    /// When an authority's certificate is unusable.
    pub fn new(pki: &Pki, users: Users) -> Result<Self> {
        Ok(Self {
            clients: verifier(pki.ca())?,
            front_proxies: verifier(pki.front_proxy_ca())?,
            users,
            service_accounts: ServiceAccountTokens::new()?,
        })
    }

    /// The issuer of service account tokens.
    #[must_use]
    pub fn service_accounts(&self) -> &ServiceAccountTokens {
        &self.service_accounts
    }

    /// Judges the certificates of a connection; call it once, after the handshake.
    #[must_use]
    pub fn peer(&self, chain: &[CertificateDer<'_>]) -> Peer {
        let Some((leaf, intermediates)) = chain.split_first() else {
            return Peer::default();
        };
        let now = UnixTime::now();
        let chains_to = |verifier: &Arc<dyn ClientCertVerifier>| {
            verifier
                .verify_client_cert(leaf, intermediates, now)
                .is_ok()
        };
        if chains_to(&self.front_proxies) {
            return Peer {
                user: Certificate::Bad,
                front_proxy: true,
            };
        }
        let user = match certificate_user(leaf) {
            Some(user) if chains_to(&self.clients) => Certificate::Good(user),
            Some(_) | None => Certificate::Bad,
        };
        Peer {
            user,
            front_proxy: false,
        }
    }

    /// Names the caller of one request.
    ///
    /// # Errors
    /// When credentials were offered and none is valid: a 401.
    pub fn authenticate(&self, peer: &Peer, headers: &HeaderMap) -> Result<UserInfo, Unauthorized> {
        if peer.front_proxy
            && let Some(user) = asserted_user(headers)
        {
            return Ok(user.authenticated());
        }
        if let Certificate::Good(user) = &peer.user {
            return Ok(user.clone().authenticated());
        }
        let mut failed = peer.user == Certificate::Bad;
        if let Some(token) = bearer_token(headers) {
            match self.token_user(token) {
                Some(user) => return Ok(user.authenticated()),
                None => failed = true,
            }
        }
        if failed {
            Err(Unauthorized)
        } else {
            Ok(UserInfo::anonymous())
        }
    }

    /// The owner of a bearer token, without the group all authenticated callers share.
    #[must_use]
    pub fn token_user(&self, token: &str) -> Option<UserInfo> {
        self.users
            .by_token
            .get(token)
            .cloned()
            .or_else(|| self.service_accounts.user(token))
    }
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authenticator")
            .field("tokens", &self.users.by_token.len())
            .finish()
    }
}

/// The static tokens of a users file: `token,user,uid[,"group1,group2"]` a line, as
/// kube-apiserver's `--token-auth-file`.
#[derive(Clone, Default)]
pub struct Users {
    by_token: BTreeMap<String, UserInfo>,
}

impl Users {
    /// Reads a users file.
    ///
    /// # Errors
    /// When the file cannot be read or a line lacks a token or a name.
    pub fn open(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("read {}", path.display()))
    }

    /// Parses the text of a users file; empty lines and `#` comments are skipped.
    ///
    /// # Errors
    /// When a line lacks a token or a name.
    pub fn parse(text: &str) -> Result<Self> {
        let mut users = Self::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut cells = line.splitn(4, ',').map(str::trim);
            let (token, name) = (cells.next().unwrap_or(""), cells.next().unwrap_or(""));
            if token.is_empty() || name.is_empty() {
                bail!(
                    "line {}: want token,user,uid[,\"group1,group2\"]",
                    index + 1
                );
            }
            let uid = cells.next().unwrap_or("").to_owned();
            let groups = cells.next().unwrap_or("").trim_matches('"');
            let groups = groups
                .split(',')
                .map(str::trim)
                .filter(|group| !group.is_empty());
            let user = UserInfo {
                name: name.to_owned(),
                uid,
                groups: groups.map(str::to_owned).collect(),
                extra: BTreeMap::new(),
            };
            users.by_token.insert(token.to_owned(), user);
        }
        Ok(users)
    }
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.by_token.values()).finish() // never the tokens
    }
}

fn verifier(ca: &str) -> Result<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    Ok(WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?)
}

/// The subject of a certificate as a user; `None` when it has no common name.
fn certificate_user(der: &CertificateDer<'_>) -> Option<UserInfo> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?;
    let groups = subject
        .iter_organization()
        .filter_map(|value| value.as_str().ok());
    let credential = format!("X509SHA256={}", hex(&sha256(der)));
    (!name.is_empty()).then(|| UserInfo {
        name: name.to_owned(),
        uid: String::new(),
        groups: groups.map(str::to_owned).collect(),
        extra: BTreeMap::from([(CREDENTIAL_ID.to_owned(), vec![credential])]),
    })
}

pub(super) const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// The identity a front proxy vouches for; `None` without a user name.
fn asserted_user(headers: &HeaderMap) -> Option<UserInfo> {
    let name = values(headers, "x-remote-user").next()?;
    Some(UserInfo {
        name,
        uid: values(headers, "x-remote-uid").next().unwrap_or_default(),
        groups: values(headers, "x-remote-group").collect(),
        extra: extra(headers, "x-remote-extra-"),
    })
}

/// What the `Impersonate-*` headers ask for; `None` when there are none.
pub(super) fn requested_user(headers: &HeaderMap) -> Option<UserInfo> {
    let user = UserInfo {
        name: values(headers, "impersonate-user")
            .next()
            .unwrap_or_default(),
        uid: values(headers, "impersonate-uid")
            .next()
            .unwrap_or_default(),
        groups: values(headers, "impersonate-group").collect(),
        extra: extra(headers, "impersonate-extra-"),
    };
    (user != UserInfo::default()).then_some(user)
}

/// The non-empty values of a header, in order.
fn values<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = String> + 'a {
    let values = headers.get_all(name).into_iter();
    values
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .filter(|value| !value.is_empty())
}

/// Extra attributes out of prefixed headers; the key is lower case and percent-encoded.
fn extra(headers: &HeaderMap, prefix: &str) -> BTreeMap<String, Vec<String>> {
    let mut extra = BTreeMap::<String, Vec<String>>::new();
    for (name, value) in headers {
        let Some(raw) = name.as_str().strip_prefix(prefix) else {
            continue;
        };
        let decoded = percent_decode_str(raw).decode_utf8();
        let key = decoded.map_or_else(|_| raw.to_owned(), |key| key.into_owned());
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        extra.entry(key).or_default().push(value);
    }
    extra
}

/// The token of `Authorization: Bearer TOKEN`; two blanks before it hide it, as upstream.
fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let value = headers
        .get(http::header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .trim();
    let mut parts = value.splitn(3, ' ');
    let scheme = parts.next()?;
    let token = parts.next()?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// What a caller is warned of: a bearer token hidden by two blanks.
pub(super) fn warning(headers: &HeaderMap) -> Option<&'static str> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let mut parts = value.trim().splitn(3, ' ');
    let bearer = parts.next()?.eq_ignore_ascii_case("bearer");
    let hidden = parts.next()?.is_empty() && parts.next().is_some();
    (bearer && hidden).then_some(
        "the provided Authorization header contains extra space before the bearer token, and is \
         ignored",
    )
}

/// SHA-256 by the provider that already signs and verifies.
pub(super) fn sha256(bytes: &[u8]) -> Vec<u8> {
    let suite = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let suite = suite.tls13().expect("a TLS 1.3 suite, by its name");
    suite.common.hash_provider.hash(bytes).as_ref().to_vec()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authenticator(pki: &Pki) -> Authenticator {
        let users = Users::parse("secret,carol,u1,\"dev,ops\"\n# none\n").unwrap();
        Authenticator::new(pki, users).unwrap()
    }

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .fold(
                HeaderMap::new(),
                |mut map, (name, value): (http::HeaderName, http::HeaderValue)| {
                    map.append(name, value);
                    map
                },
            )
    }

    #[test]
    fn a_certificate_names_its_user_and_a_bad_token_does_not_spoil_it() {
        let pki = Pki::ephemeral().unwrap();
        let authn = authenticator(&pki);
        let peer = authn.peer(&pki.issue_node("n1").unwrap().chain().unwrap());
        let user = authn
            .authenticate(&peer, &headers(&[("authorization", "Bearer bad")]))
            .unwrap();
        assert_eq!(user.name, "system:node:n1");
        assert_eq!(user.groups, ["system:nodes", "system:authenticated"]);
        assert!(user.extra[CREDENTIAL_ID][0].starts_with("X509SHA256="));
    }

    #[test]
    fn a_certificate_of_an_unknown_authority_is_unauthorized() {
        let pki = Pki::ephemeral().unwrap();
        let authn = authenticator(&pki);
        let stranger = Pki::ephemeral()
            .unwrap()
            .issue("admin", Some("system:masters"))
            .unwrap();
        let peer = authn.peer(&stranger.chain().unwrap());
        assert_eq!(
            authn.authenticate(&peer, &HeaderMap::new()),
            Err(Unauthorized)
        );
    }

    #[test]
    fn the_front_proxy_asserts_and_nobody_else_does() {
        let pki = Pki::ephemeral().unwrap();
        let authn = authenticator(&pki);
        let asserted = headers(&[
            ("x-remote-user", "alice"),
            ("x-remote-group", "dev"),
            ("x-remote-group", "ops"),
            ("x-remote-extra-a%2fb", "1"),
        ]);
        let peer = authn.peer(&pki.issue_front_proxy().unwrap().chain().unwrap());
        let user = authn.authenticate(&peer, &asserted).unwrap();
        assert_eq!(
            (user.name.as_str(), user.extra["a/b"][0].as_str()),
            ("alice", "1")
        );
        assert_eq!(user.groups, ["dev", "ops", AUTHENTICATED]);
        assert_eq!(
            authn.authenticate(&peer, &HeaderMap::new()),
            Err(Unauthorized)
        );
        let bob = authn.peer(&pki.issue("bob", None).unwrap().chain().unwrap());
        assert_eq!(authn.authenticate(&bob, &asserted).unwrap().name, "bob");
    }

    #[test]
    fn only_a_well_formed_bearer_token_is_a_credential() {
        let pki = Pki::ephemeral().unwrap();
        let authn = authenticator(&pki);
        let name = |value| {
            authn
                .authenticate(&Peer::default(), &headers(&[("authorization", value)]))
                .map(|user| user.name)
        };
        assert_eq!(name("Bearer secret").as_deref(), Ok("carol"));
        assert_eq!(name("Bearer garbage"), Err(Unauthorized));
        for ignored in [
            "Bearer",
            "Bearer ",
            "Bearer  x",
            "Basic eDp5",
            "Token x",
            "",
        ] {
            assert_eq!(name(ignored).as_deref(), Ok(ANONYMOUS), "{ignored}");
        }
    }

    #[test]
    fn a_service_account_token_names_its_account() {
        let pki = Pki::ephemeral().unwrap();
        let authn = authenticator(&pki);
        let issued = authn.service_accounts().issue("ns", "sa", "uid-1", 3600);
        let user = authn.token_user(&issued.token).unwrap();
        assert_eq!(user.name, "system:serviceaccount:ns:sa");
        assert_eq!(user.uid, "uid-1");
        assert!(authn.token_user(&format!("{}x", issued.token)).is_none());
    }
}
