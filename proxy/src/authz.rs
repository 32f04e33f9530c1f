//! May they? A request for a resource becomes a [`Permit`], or a 403.
//!
//! Owns the attributes of a request as authorizers see them, the order of those who are asked, the
//! SubjectAccessReview that carries the attributes, and the memory of its answers: allowed and
//! denied for a TTL each, bounded in bytes, one review in flight per set of attributes.
//!
//! ```text
//!  system:masters ─► local: Node rules, graph, RBAC ─► a remembered review ─► a review
//!                      │ yes: Permit
//!                      └ no: 403, if that is all the control plane has, and the facts are fresh
//! ```
//!
//! Refuses by default: whatever is not an explicit "allowed" from the apiserver, what its own
//! authorizers would allow by what the caches know, or membership in `system:masters`, is not a
//! permit. Errors are never remembered.
//!
//! Invariant: a [`Permit`] exists only for attributes that were allowed, and says which those were.

mod access;
mod attributes;
mod inputs;
mod local;
mod revocations;
mod tenure;

use std::sync::Arc;

use prometheus_client::metrics::{counter::Counter, family::Family};
use watershed_authorizer::Grant;
use watershed_config::Authorization;

use self::access::{AccessReviews, Verdict};
pub(crate) use self::attributes::Attributes;
pub(crate) use self::inputs::{Feed, Inputs};
use self::local::Judgement;
pub(crate) use self::local::Local;
use self::revocations::Basis;
pub(crate) use self::revocations::{Marks, Member, Revocations};
pub(crate) use self::tenure::{Holding, Tenure, Tenures};
use crate::authn::{ReviewError, Reviewer, Reviews, UserInfo};
use crate::memo::Origin;
use crate::metrics::AuthorizationLabels;
use crate::request::RequestInfo;
use crate::status::Status;

/// Leave to do exactly one thing. It cannot be made outside this module, and whoever serves data
/// takes one by value.
#[derive(Debug)]
pub(crate) struct Permit {
    attributes: Attributes,
    source: Source,
}

impl Permit {
    /// Whether this is the permit for that request, selectors included.
    pub(crate) fn covers(&self, info: &RequestInfo) -> bool {
        self.attributes == Attributes::new(Arc::clone(&self.attributes.user), info)
    }

    /// Whose it is.
    pub(crate) fn user(&self) -> &UserInfo {
        &self.attributes.user
    }

    /// Who decided.
    pub(crate) const fn source(&self) -> Source {
        self.source
    }

    /// What it depends on, of all that can be lost at once.
    fn basis(&self) -> Basis {
        match self.source {
            Source::Masters | Source::Local(Grant::Masters | Grant::NodeRule) => Basis::Nothing,
            Source::Local(Grant::NodeGraph) => Basis::Graph,
            Source::Local(Grant::Rbac) => Basis::Roles,
            Source::LocalRefusal => Basis::Either,
            Source::Cache | Source::Review if self.attributes.user.is_node() => Basis::Either,
            Source::Cache | Source::Review => Basis::Roles,
        }
    }
}

/// Who decided. A metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// Membership in `system:masters`.
    Masters,
    /// The facts the caches know: what allowed it.
    Local(Grant),
    /// The same: nothing did.
    LocalRefusal,
    /// A remembered review.
    Cache,
    /// A review made for this request.
    Review,
}

impl Source {
    /// The label.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Masters => "masters",
            Self::Local(grant) => grant.as_str(),
            Self::LocalRefusal => "local",
            Self::Cache => "cache",
            Self::Review => "review",
        }
    }
}

/// Why there is no permit.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthzError {
    /// The apiserver did not allow it.
    #[error("not allowed: {reason}")]
    Denied {
        /// The authorizers' reasons; may be empty.
        reason: String,
        /// Who decided.
        source_of: Source,
    },
    /// The apiserver's authorizers failed and none allowed it.
    #[error("the authorizer failed: {0}")]
    Evaluation(String),
    /// The apiserver could not be asked.
    #[error("the access could not be reviewed: {0}")]
    Review(#[source] Arc<ReviewError>),
}

impl AuthzError {
    /// The apiserver's answer to the request that `attributes` came from. `request_uri` is its
    /// target as sent.
    pub(crate) fn status(&self, attributes: &Attributes, request_uri: &str) -> Status {
        match self {
            Self::Denied { reason, .. } => {
                Status::forbidden(&attributes.user.name, attributes.refused(), reason)
            }
            Self::Evaluation(error) => Status::internal_server_error(request_uri, error),
            Self::Review(error) => error
                .refusal()
                .unwrap_or_else(|| Status::internal_server_error(request_uri, &error.to_string())),
        }
    }
}

/// Decides about requests.
pub(crate) struct Authorizer<R> {
    local: Local,
    reviews: AccessReviews<R>,
    decisions: Family<AuthorizationLabels, Counter>,
}

impl<R: Reviews> Authorizer<R> {
    /// An authorizer that asks `reviewer` what cannot be said locally, and counts its decisions.
    pub(crate) fn new(
        local: Local,
        reviewer: Arc<Reviewer<R>>,
        decisions: Family<AuthorizationLabels, Counter>,
    ) -> Self {
        Self {
            local,
            reviews: AccessReviews::new(reviewer),
            decisions,
        }
    }

    /// Lets go of reviews that have expired, for as long as it is polled.
    pub(crate) fn forget_expired(&self) -> impl Future<Output = ()> + Send + 'static {
        self.reviews.forget_expired()
    }

    /// Decides about one request. `settings` may change between calls; the TTLs apply to reviews
    /// made from then on.
    ///
    /// # Errors
    /// See [`AuthzError`].
    pub(crate) async fn authorize(
        &self,
        attributes: &Attributes,
        settings: &Authorization,
    ) -> Result<Permit, AuthzError> {
        let decision = self.decide(attributes, settings).await;
        let labels = match &decision {
            Ok(permit) => AuthorizationLabels {
                source: permit.source().as_str(),
                decision: "allowed",
            },
            Err(AuthzError::Denied { source_of, .. }) => AuthorizationLabels {
                source: source_of.as_str(),
                decision: "denied",
            },
            Err(AuthzError::Evaluation(_) | AuthzError::Review(_)) => AuthorizationLabels {
                source: "review",
                decision: "error",
            },
        };
        self.decisions.get_or_create(&labels).inc();
        decision
    }

    async fn decide(
        &self,
        attributes: &Attributes,
        settings: &Authorization,
    ) -> Result<Permit, AuthzError> {
        let permit = |source| Permit {
            attributes: attributes.clone(),
            source,
        };
        if attributes.user.is_master() {
            return Ok(permit(Source::Masters));
        }
        let denial = match self.local.decide(attributes) {
            Ok(grant) => return Ok(permit(Source::Local(grant))),
            Err(denial) => denial,
        };
        // Boxed, as the review is: most requests are allowed by now.
        if let Some(denial) = denial {
            match Box::pin(self.local.judge(attributes, &denial)).await {
                Judgement::Allowed(grant) => return Ok(permit(Source::Local(grant))),
                Judgement::Refused { reason } => {
                    return Err(AuthzError::Denied {
                        reason,
                        source_of: Source::LocalRefusal,
                    });
                }
                Judgement::Unknown => {}
            }
        }
        let (answer, origin) = self
            .reviews
            .verdict(attributes, settings)
            .await
            .map_err(AuthzError::Review)?;
        let source = match origin {
            Origin::Memory => Source::Cache,
            Origin::Fetch => Source::Review,
        };
        match &answer.value {
            Verdict::Allowed => Ok(permit(source)),
            Verdict::Refused { reason } => Err(AuthzError::Denied {
                reason: reason.clone(),
                source_of: source,
            }),
            Verdict::Failed { error } => Err(AuthzError::Evaluation(error.clone())),
        }
    }
}

#[cfg(test)]
mod tests;
