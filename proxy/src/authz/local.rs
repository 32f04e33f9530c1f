//! Decisions without asking the apiserver, as its own Node authorizer and RBAC would decide.
//!
//! Owns: what the configuration declares about the control plane, and when a decision of the facts
//! at hand may be given to a client. A "yes" needs nothing but the facts. A "no" is given only where
//! Node and RBAC are all there is, and only once every input that could have made it a "yes" was
//! proven to hold what was written before the request came; else the apiserver is asked.
//! Refuses: to decide itself, which is [`watershed_authorizer`]'s work, and to know how the facts
//! come in ([`inputs`](super::inputs)).
//!
//! Invariant: no caller is told "no" for want of facts.

use std::time::Duration;

use futures_util::future::join_all;
use watershed_authorizer::{Attributes as Asked, Decision, Denial, Grant, User};
use watershed_cache::selector::FieldOperator;
use watershed_config::Authorizers;

use super::{Attributes, inputs::Inputs};

/// How long a "no" to a node waits for its proof. On a resource where nothing happens an apiserver
/// takes about one second to vouch for that; busy and small ones take milliseconds.
const PROOF_PATIENCE_OF_NODES: Duration = Duration::from_secs(2);

/// The same for others. They are few, and people may be among them: what is not proven at once the
/// apiserver is asked.
const PROOF_PATIENCE: Duration = Duration::from_millis(150);

/// Decides from what the caches know. Clones share the facts.
#[derive(Clone)]
pub(crate) struct Local {
    inputs: Inputs,
    declared: Authorizers,
}

/// What can be said without asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It may.
    Allowed(Grant),
    /// It may not, and the apiserver would say the same.
    Refused {
        /// The authorizers' reasons; may be empty.
        reason: String,
    },
    /// Only the apiserver knows.
    Unknown,
}

impl Local {
    /// Decides for apiservers that authorize as `declared`, from `inputs`.
    pub(crate) fn new(inputs: Inputs, declared: Authorizers) -> Self {
        Self { inputs, declared }
    }

    /// What becomes of a request that the facts do not allow, for `denial`: waits until they are
    /// proven fresh, [`PROOF_PATIENCE_OF_NODES`] or [`PROOF_PATIENCE`] at most.
    pub(super) async fn judge(&self, attributes: &Attributes, denial: &Denial) -> Judgement {
        let Some(sources) = self.inputs.complete(denial.sources()) else {
            return Judgement::Unknown;
        };
        let patience = if attributes.user.is_node() {
            PROOF_PATIENCE_OF_NODES
        } else {
            PROOF_PATIENCE
        };
        let proofs = sources.iter().map(|it| it.cache.consistent(patience));
        let are_fresh = join_all(proofs).await.iter().all(Result::is_ok);
        match self.decide(attributes) {
            Ok(grant) => Judgement::Allowed(grant),
            // Facts may have been let go meanwhile; looked at last, that cannot be missed.
            Err(Some(Denial { reason, .. }))
                if are_fresh && sources.iter().all(|it| it.is_still_complete()) =>
            {
                Judgement::Refused { reason }
            }
            Err(_) => Judgement::Unknown,
        }
    }

    /// By what a request is allowed, as far as the facts say so now; or why not, where Node and
    /// RBAC are all there is, so that it may be refused here. Never waits.
    ///
    /// # Errors
    ///
    /// If the authorizers that the control plane is declared to have do not allow it.
    pub(super) fn decide(&self, attributes: &Attributes) -> Result<Grant, Option<Denial>> {
        if !self.declared.node {
            return Err(None);
        }
        let fields = attributes.field_selector.requirements();
        let selects = |field: &str, value: &str| {
            fields.iter().any(|it| {
                it.operator == FieldOperator::Equals && *it.key == *field && *it.value == *value
            })
        };
        let asked = Asked {
            user: User {
                name: &attributes.user.name,
                groups: &attributes.user.groups,
            },
            verb: &attributes.verb,
            is_resource: attributes.is_resource,
            group: &attributes.group,
            resource: &attributes.resource,
            subresource: &attributes.subresource,
            namespace: &attributes.namespace,
            name: &attributes.name,
            path: &attributes.path,
            selects: &selects,
        };
        let authorizer = self.inputs.authorizer();
        if self.declared.rbac {
            return match authorizer.decide(&asked) {
                Decision::Allow(grant) => Ok(grant),
                Decision::NoOpinion(denial) => Err(Some(denial)),
            };
        }
        match authorizer.decide_as_node(&asked) {
            Decision::Allow(grant) => Ok(grant),
            Decision::NoOpinion(_) => Err(None),
        }
    }
}

#[cfg(test)]
mod tests;
