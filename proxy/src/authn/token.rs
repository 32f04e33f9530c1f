//! Bearer tokens: parsing the header, and TokenReview with a short, bounded memory.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, header};
use rustls::crypto::aws_lc_rs;
use rustls::crypto::tls13::{Hkdf, OkmBlock};
use serde::{Deserialize, Serialize};
use watershed_config::TokenReview;
use zeroize::Zeroizing;

use super::review::{Behalf, ReviewError, Reviewer, Reviews, without};
use super::{AuthnError, UserInfo};
use crate::memo::{Fetched, Memo, fetch_now};

const PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
/// What remembered reviews may take, in bytes; beyond it tokens are reviewed again.
const MEMORY_BYTES_MAX: u64 = 64 << 20;
/// The apiserver does not tell a bad token from a failing authenticator: both are texts in the
/// answer. Such an answer serves one burst of retries, not a whole TTL.
const REFUSAL_WITH_ERROR_TTL: Duration = Duration::from_secs(1);
/// Longer ones are refused unread; Go's server limits all headers to 1 MiB.
const TOKEN_BYTES_MAX: usize = 256 << 10;

/// Marks a WebSocket subprotocol as a token; browsers cannot send `Authorization`.
const SUBPROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// What the headers say about a token.
pub(super) enum Bearer {
    /// No token.
    None,
    /// A second blank in front of the token makes the apiserver ignore it, with a warning.
    Misplaced,
    /// Something that should be a token and is none.
    Malformed(&'static str),
    /// A token.
    Token(Zeroizing<String>),
}

impl Bearer {
    /// Reads the first `Authorization` line, as the apiserver's `bearertoken.go`.
    pub(super) fn authorization(headers: &HeaderMap) -> Self {
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            return Self::None;
        };
        let is_bearer = |scheme: &[u8]| scheme.eq_ignore_ascii_case(b"bearer");
        let Ok(value) = std::str::from_utf8(value.as_bytes()) else {
            let scheme = value
                .as_bytes()
                .trim_ascii()
                .split(|byte| *byte == b' ')
                .next();
            return match scheme {
                Some(scheme) if is_bearer(scheme) => Self::Malformed("the token is no UTF-8"),
                Some(_) | None => Self::None,
            };
        };
        let mut parts = value.trim().splitn(3, ' ');
        let scheme = parts.next().unwrap_or_default();
        if !is_bearer(scheme.as_bytes()) {
            return Self::None;
        }
        match (parts.next(), parts.next()) {
            (None, _) | (Some(""), None) => Self::None,
            (Some(""), Some(_)) => Self::Misplaced,
            (Some(token), _) => Self::Token(Zeroizing::new(token.to_owned())),
        }
    }

    /// Reads the subprotocols of a WebSocket request, as the apiserver's `websocket/protocol.go`: one
    /// token, and another protocol to agree on.
    pub(super) fn subprotocol(headers: &HeaderMap) -> Self {
        if !is_websocket(headers) {
            return Self::None;
        }
        let (mut token, mut others) = (None, false);
        let lines = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL);
        let protocols = lines
            .iter()
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','));
        for protocol in protocols {
            match protocol.trim().strip_prefix(SUBPROTOCOL) {
                None => others = true,
                Some(_) if token.is_some() => return Self::Malformed("several WebSocket tokens"),
                Some(encoded) => token = Some(encoded),
            }
        }
        let decoded = match token.map(|token| URL_SAFE_NO_PAD.decode(token)) {
            None => return Self::None,
            Some(Ok(bytes)) => String::from_utf8(bytes).ok(),
            Some(Err(_)) => None,
        };
        match decoded.map(Zeroizing::new) {
            None => Self::Malformed("the WebSocket token is no base64url text"),
            Some(token) if token.is_empty() => Self::None,
            Some(_) if !others => Self::Malformed("a WebSocket token without another subprotocol"),
            Some(token) => Self::Token(token),
        }
    }

    /// The value of the `Warning` header the answer carries.
    pub(super) const fn warning(&self) -> Option<&'static str> {
        match self {
            Self::Misplaced => Some(
                "299 - \"the provided Authorization header contains extra space before the bearer \
                 token, and is ignored\"",
            ),
            Self::None | Self::Malformed(_) | Self::Token(_) => None,
        }
    }
}

/// As apimachinery's `IsWebSocketRequest`: an exact name, and the word anywhere in `Connection`.
fn is_websocket(headers: &HeaderMap) -> bool {
    let protocol = headers.get(header::UPGRADE);
    protocol.is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && headers.get_all(header::CONNECTION).iter().any(|it| {
            let words = it.as_bytes().windows(b"upgrade".len());
            words
                .into_iter()
                .any(|it| it.eq_ignore_ascii_case(b"upgrade"))
        })
}

/// Reviews of tokens, remembered by a keyed hash.
pub(super) struct TokenReviews<R> {
    reviewer: Arc<Reviewer<R>>,
    key: TokenKey,
    memory: Memo<[u8; 32], Review>,
}

/// What a review found.
enum Review {
    User(Arc<UserInfo>),
    Refused(String),
}

impl<R: Reviews> TokenReviews<R> {
    pub(super) fn new(reviewer: Arc<Reviewer<R>>) -> Self {
        Self {
            reviewer,
            key: TokenKey::random(),
            memory: Memo::new(MEMORY_BYTES_MAX),
        }
    }

    /// See [`Memo::forget_expired`].
    pub(super) fn forget_expired(&self) -> impl Future<Output = ()> + Send + 'static {
        self.memory.forget_expired()
    }

    /// The user a token stands for that came from `peer`.
    ///
    /// # Errors
    /// [`AuthnError::Rejected`] for a bad token, [`AuthnError::Review`] when nobody can tell.
    pub(super) async fn user(
        &self,
        (token, peer): (&str, IpAddr),
        settings: &TokenReview,
    ) -> Result<Arc<UserInfo>, AuthnError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(AuthnError::Rejected("the token is too long".into()));
        }
        let answer = if settings.cache_ttl.is_zero() {
            let fetch = Box::pin(fetch_now(self.review((token, peer), settings)));
            fetch.await.map_err(Arc::new)
        } else {
            let key = self.key.hash(token, &settings.audiences);
            match self.memory.remembered(&key).await {
                Some(answer) => Ok(answer),
                None => {
                    // Boxed: most tokens are remembered and need no room for a review.
                    let answer = Box::pin(
                        self.memory
                            .answer(key, self.review((token, peer), settings)),
                    );
                    answer.await.map(|(answer, _)| answer)
                }
            }
        };
        match &answer.map_err(AuthnError::Review)?.value {
            Review::User(user) => Ok(Arc::clone(user)),
            Review::Refused(reason) => Err(AuthnError::Rejected(reason.as_str().into())),
        }
    }

    async fn review(
        &self,
        (token, peer): (&str, IpAddr),
        settings: &TokenReview,
    ) -> Result<Fetched<Review>, ReviewError> {
        let request = Request {
            api_version: "authentication.k8s.io/v1",
            kind: "TokenReview",
            spec: Spec {
                token,
                audiences: &settings.audiences,
            },
        };
        // Room for the whole text, so that growing leaves no copy of the token behind.
        let room =
            2 * token.len() + 256 + 8 * settings.audiences.iter().map(String::len).sum::<usize>();
        let mut body = Zeroizing::new(Vec::with_capacity(room));
        serde_json::to_writer(&mut *body, &request).expect("strings serialise");
        let (body, peer) = (Bytes::from_owner(body), Behalf::Peer(peer));
        let answer = self.reviewer.create::<Response>(PATH, body, peer).await;
        let mut outcome = answer.map_err(|error| error.without(token))?.status;
        outcome.error = without(&outcome.error, token);
        Ok(outcome.judge(settings))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    api_version: &'static str,
    kind: &'static str,
    spec: Spec<'a>,
}

#[derive(Serialize)]
struct Spec<'a> {
    token: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    audiences: &'a [String],
}

#[derive(Deserialize)]
struct Response {
    #[serde(default)]
    status: Outcome,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Outcome {
    authenticated: bool,
    user: User,
    audiences: Vec<String>,
    error: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct User {
    username: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

impl Outcome {
    fn judge(self, settings: &TokenReview) -> Fetched<Review> {
        // A review that does not say for whom the token is did not look.
        let foreign = !settings.audiences.is_empty()
            && !self
                .audiences
                .iter()
                .any(|it| settings.audiences.contains(it));
        if !self.authenticated || foreign || self.user.username.is_empty() {
            let ttl = if self.error.is_empty() {
                settings.cache_ttl
            } else {
                settings.cache_ttl.min(REFUSAL_WITH_ERROR_TTL)
            };
            let bytes = 256 + self.error.len();
            return Fetched {
                value: Review::Refused(self.error),
                ttl,
                bytes,
            };
        }
        let User {
            username,
            uid,
            groups,
            extra,
        } = self.user;
        let user = UserInfo {
            name: username,
            uid,
            groups,
            extra,
        }
        .authenticated();
        let bytes = 256 + user.memory();
        Fetched {
            value: Review::User(Arc::new(user)),
            ttl: settings.cache_ttl,
            bytes,
        }
    }
}

/// A random key for hashing tokens, new in every process.
struct TokenKey {
    hkdf: &'static dyn Hkdf,
    key: OkmBlock,
}

impl TokenKey {
    fn random() -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        aws_lc_rs::default_provider()
            .secure_random
            .fill(&mut *bytes)
            .expect("the system has randomness");
        let suite = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256
            .tls13()
            .expect("the suite is one of TLS 1.3");
        Self {
            hkdf: suite.hkdf_provider,
            key: OkmBlock::new(&*bytes),
        }
    }

    /// HMAC-SHA256 of the token and the audiences it was reviewed for.
    fn hash(&self, token: &str, audiences: &[String]) -> [u8; 32] {
        let room = token.len() + audiences.iter().map(|it| it.len() + 8).sum::<usize>();
        let mut message = Zeroizing::new(Vec::with_capacity(room));
        for audience in audiences {
            message.extend_from_slice(&(audience.len() as u64).to_be_bytes());
            message.extend_from_slice(audience.as_bytes());
        }
        message.extend_from_slice(token.as_bytes());
        let tag = self.hkdf.hmac_sign(&self.key, &message);
        tag.as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}
