//! Who asks: the word of a front proxy, a client certificate or a bearer token becomes a
//! [`UserInfo`], or the request a 401.
//!
//! Owns the order of authenticators (front proxy, certificate, bearer, WebSocket subprotocol, as
//! `authenticatorfactory/delegating.go`, 1.36: the first that succeeds wins), the parsing of each,
//! and the memory of TokenReview answers: keyed by a keyed hash of the token, bounded in bytes,
//! expiring, one review in flight per token. Tokens are never stored, logged or printed.
//!
//! Refuses to verify certificates (the TLS layer did, against the bundles in force) and to trust
//! identity headers of anybody but a front proxy.
//!
//! Invariant: no credentials, bad credentials and a failed review never become a user. Anonymous
//! is a user only where the configuration says so, and only without credentials.

mod certificate;
mod front_proxy;
mod review;
#[cfg(test)]
pub(crate) mod scripted;
mod token;
mod turns;
mod upstream;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;
use watershed_config::Authentication;

use self::certificate::Named;
pub(crate) use self::certificate::Subject;
pub(crate) use self::front_proxy::FrontProxies;
pub(crate) use self::review::{Behalf, ReviewError, Reviewer, Reviews};
use self::token::{Bearer, TokenReviews};
use crate::status::Status;
use crate::tls::Proof;

/// Everything authorization may look at about a caller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct UserInfo {
    /// User name, e.g. `system:node:n1`.
    pub(crate) name: String,
    /// Unique over time, where the credential has one.
    pub(crate) uid: String,
    /// Groups, in the credential's order.
    pub(crate) groups: Vec<String>,
    /// What else the credential says.
    pub(crate) extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// Whether the user is in a group.
    pub(crate) fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|found| found == group)
    }

    /// Whether the user may do everything, and is limited in nothing.
    pub(crate) fn is_master(&self) -> bool {
        self.in_group(MASTERS)
    }

    /// Whether it proved nothing about itself.
    pub(crate) fn is_anonymous(&self) -> bool {
        self.name == ANONYMOUS
    }

    /// Whether the node authorizer takes the user for a kubelet (as `nodeidentifier`, 1.36).
    pub(crate) fn is_node(&self) -> bool {
        self.name.starts_with("system:node:") && self.in_group("system:nodes")
    }

    /// What it takes, in bytes, roughly.
    fn memory(&self) -> usize {
        let strings = self.groups.iter().chain(self.extra.values().flatten());
        let keys = self.extra.keys().map(|key| key.len() + 64).sum::<usize>();
        self.name.len() + self.uid.len() + keys + strings.map(|it| it.len() + 24).sum::<usize>()
    }

    fn anonymous() -> Self {
        Self {
            name: ANONYMOUS.to_owned(),
            groups: vec![UNAUTHENTICATED.to_owned()],
            ..Self::default()
        }
    }

    /// Adds `system:authenticated`, unless the apiserver would not.
    fn authenticated(mut self) -> Self {
        let settled = self.name == ANONYMOUS
            || self.in_group(AUTHENTICATED)
            || self.in_group(UNAUTHENTICATED);
        if !settled {
            self.groups.push(AUTHENTICATED.to_owned());
        }
        self
    }
}

const ANONYMOUS: &str = "system:anonymous";
const AUTHENTICATED: &str = "system:authenticated";
const UNAUTHENTICATED: &str = "system:unauthenticated";
const MASTERS: &str = "system:masters";

/// A caller, and how a forwarded request carries it upstream.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// Who.
    pub(crate) user: Arc<UserInfo>,
    /// By what.
    pub(crate) credential: Credential,
    /// The value of a `Warning` header the answer must carry.
    pub(crate) warning: Option<&'static str>,
}

/// What proved the identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Credential {
    /// The word of a front proxy: the proxy must assert the identity upstream in its turn.
    FrontProxy,
    /// The TLS client certificate: the proxy must assert the identity upstream.
    Certificate,
    /// The bearer token: the header goes upstream untouched.
    Bearer,
    /// Nothing.
    Anonymous,
}

/// Why there is no identity. The apiserver answers 401 to all of them.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum AuthnError {
    /// No credentials, and anonymous requests are off.
    #[error("no credentials")]
    Missing,
    /// The credentials are bad.
    #[error("bad credentials: {0}")]
    Rejected(Arc<str>),
    /// The credentials could not be checked.
    #[error("the token could not be reviewed: {0}")]
    Review(#[source] Arc<ReviewError>),
}

impl AuthnError {
    /// The apiserver's answer.
    pub(crate) fn status(&self) -> Status {
        match self {
            Self::Review(error) => error.refusal().unwrap_or_else(Status::unauthorized),
            Self::Missing | Self::Rejected(_) => Status::unauthorized(),
        }
    }
}

/// Finds out who asks.
pub(crate) struct Authenticator<R> {
    front_proxies: Option<FrontProxies>,
    tokens: TokenReviews<R>,
}

impl<R: Reviews> Authenticator<R> {
    /// An authenticator that takes the word of `front_proxies` and asks `reviewer` about tokens.
    pub(crate) fn new(reviewer: Arc<Reviewer<R>>, front_proxies: Option<FrontProxies>) -> Self {
        Self {
            front_proxies,
            tokens: TokenReviews::new(reviewer),
        }
    }

    /// Lets go of reviews that have expired, for as long as it is polled.
    pub(crate) fn forget_expired(&self) -> impl Future<Output = ()> + Send + 'static {
        self.tokens.forget_expired()
    }

    /// Removes what a front proxy said of the user, or a client would have us believe.
    pub(crate) fn strip(&self, headers: &mut HeaderMap) {
        if let Some(front_proxies) = &self.front_proxies {
            front_proxies.strip(headers);
        }
    }

    /// Identifies the caller by what its connection's certificate proves now, whom it names, and
    /// what the request says. `settings` may change between calls; the TTL applies to reviews made
    /// from then on.
    ///
    /// # Errors
    /// See [`AuthnError`].
    pub(crate) async fn authenticate(
        &self,
        headers: &HeaderMap,
        (proof, subject, peer): (&Proof, &Subject, IpAddr),
        settings: &Authentication,
    ) -> Result<Identity, AuthnError> {
        let asserted = match &self.front_proxies {
            Some(front_proxies) => front_proxies.user(headers, (&proof.front_proxy, subject)),
            None => Ok(None),
        };
        let named = if settings.client_certificate {
            subject.user(&proof.client)
        } else {
            Ok(None)
        };
        let named = [
            (Credential::FrontProxy, asserted),
            (Credential::Certificate, named),
        ];
        self.identify(named, (headers, peer), settings).await
    }

    /// The same, once it is known whom the connection names by which credential.
    async fn identify(
        &self,
        named: [(Credential, Named); 2],
        (headers, peer): (&HeaderMap, IpAddr),
        settings: &Authentication,
    ) -> Result<Identity, AuthnError> {
        let authorization = Bearer::authorization(headers);
        let warning = authorization.warning();
        let identity = |user, credential| Identity {
            user,
            credential,
            warning,
        };
        let mut failure = None;
        for (credential, named) in named {
            match named {
                Ok(Some(user)) => return Ok(identity(user, credential)),
                Ok(None) => {}
                Err(error) => failure = Some(error),
            }
        }
        for bearer in [authorization, Bearer::subprotocol(headers)] {
            match bearer {
                Bearer::None | Bearer::Misplaced => {}
                Bearer::Malformed(reason) => {
                    failure = Some(AuthnError::Rejected(reason.into()));
                }
                // Boxed: most clients show a certificate and need no room for it.
                Bearer::Token(token) => {
                    match Box::pin(self.tokens.user((&token, peer), &settings.token_review)).await {
                        Ok(user) => return Ok(identity(user, Credential::Bearer)),
                        Err(error) => failure = Some(error),
                    }
                }
            }
        }
        match failure {
            Some(error) => Err(error),
            None if settings.anonymous => Ok(identity(
                Arc::new(UserInfo::anonymous()),
                Credential::Anonymous,
            )),
            None => Err(AuthnError::Missing),
        }
    }
}

#[cfg(test)]
mod tests;
