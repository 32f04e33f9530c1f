//! SubjectAccessReview: its wire form, and a short, bounded memory of its answers.
//!
//! An answer is remembered by the SHA-256 of everything that was asked, a fifth of what it would be
//! in full: ten watches of each kubelet are remembered at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use watershed_cache::selector::{FieldOperator, FieldSelector, LabelOperator, LabelSelector};
use watershed_config::Authorization;

use super::Attributes;
use crate::authn::{Behalf, ReviewError, Reviewer, Reviews, UserInfo};
use crate::memo::{Answer, Fetched, Memo, Origin, fetch_now};
use crate::tls::sha256;

const PATH: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
/// What remembered answers may take, in bytes; beyond it accesses are reviewed again.
const MEMORY_BYTES_MAX: u64 = 64 << 20;
/// Reviews as long as this are never remembered; the apiserver's webhook authorizer draws its line
/// there too.
const REVIEW_BYTES_MAX: usize = 10_000;
/// How the apiserver's note on a selector it could not read ends. That is no failure.
const SELECTOR_NOTE: &str = "Selector ignored due to parse error";

/// How long a refusal of a node is remembered at most. The node authorizer learns of a pod a moment
/// after the kubelet does, and the kubelet asks again at once for what the pod needs.
const NODE_REFUSAL_TTL_MAX: Duration = Duration::from_secs(1);

/// Reviews of accesses, remembered by what was asked.
pub(super) struct AccessReviews<R> {
    reviewer: Arc<Reviewer<R>>,
    memory: Memo<[u8; 32], Verdict>,
}

/// What a review found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Allowed.
    Allowed,
    /// Not allowed, or without an opinion.
    Refused {
        /// May be empty.
        reason: String,
    },
    /// Neither allowed nor properly refused. Never remembered.
    Failed {
        /// The authorizers' error.
        error: String,
    },
}

impl<R: Reviews> AccessReviews<R> {
    pub(super) fn new(reviewer: Arc<Reviewer<R>>) -> Self {
        Self {
            reviewer,
            memory: Memo::new(MEMORY_BYTES_MAX),
        }
    }

    /// See [`Memo::forget_expired`].
    pub(super) fn forget_expired(&self) -> impl Future<Output = ()> + Send + 'static {
        self.memory.forget_expired()
    }

    /// The answer about `attributes`.
    ///
    /// # Errors
    /// When the apiserver could not be asked.
    pub(super) async fn verdict(
        &self,
        attributes: &Attributes,
        settings: &Authorization,
    ) -> Result<(Arc<Answer<Verdict>>, Origin), Arc<ReviewError>> {
        let body = request(attributes);
        let digest = sha256(&body);
        let forgetful = settings.allow_ttl.is_zero() && settings.deny_ttl.is_zero();
        if !forgetful && let Some(answer) = self.memory.remembered(&digest).await {
            return Ok((answer, Origin::Memory));
        }
        let deny_ttl = if attributes.user.is_node() {
            settings.deny_ttl.min(NODE_REFUSAL_TTL_MAX)
        } else {
            settings.deny_ttl
        };
        // Boxed: most accesses are remembered and need no room for a review.
        let reviewing = Box::pin(async {
            // Boxed again: the memory's own future would have room for it several times over.
            let fetch = Box::pin(self.review(
                (body.clone(), &attributes.user),
                settings.allow_ttl,
                deny_ttl,
            ));
            if forgetful || body.len() >= REVIEW_BYTES_MAX {
                let answer = fetch_now(fetch).await.map_err(Arc::new)?;
                return Ok((answer, Origin::Fetch));
            }
            self.memory.answer(digest, fetch).await
        });
        reviewing.await
    }

    async fn review(
        &self,
        (body, user): (Bytes, &UserInfo),
        allow_ttl: Duration,
        deny_ttl: Duration,
    ) -> Result<Fetched<Verdict>, ReviewError> {
        let answer: Response = self
            .reviewer
            .create(PATH, body, Behalf::User(&user.name))
            .await?;
        let value = answer.status.judge();
        let (ttl, reason) = match &value {
            Verdict::Allowed => (allow_ttl, 0),
            Verdict::Refused { reason } => (deny_ttl, reason.len()),
            Verdict::Failed { error } => (Duration::ZERO, error.len()),
        };
        Ok(Fetched {
            value,
            ttl,
            bytes: 288 + reason,
        })
    }
}

/// The body of the review, by which its answer is remembered too.
fn request(attributes: &Attributes) -> Bytes {
    let resource_attributes = attributes.is_resource.then(|| ResourceAttributes {
        namespace: &attributes.namespace,
        verb: &attributes.verb,
        group: &attributes.group,
        version: &attributes.version,
        resource: &attributes.resource,
        subresource: &attributes.subresource,
        name: &attributes.name,
        field_selector: field_requirements(&attributes.field_selector),
        label_selector: label_requirements(&attributes.label_selector),
    });
    let non_resource_attributes = (!attributes.is_resource).then_some(NonResourceAttributes {
        path: &attributes.path,
        verb: &attributes.verb,
    });
    let review = Request {
        api_version: "authorization.k8s.io/v1",
        kind: "SubjectAccessReview",
        spec: Spec {
            resource_attributes,
            non_resource_attributes,
            user: &attributes.user.name,
            groups: &attributes.user.groups,
            extra: &attributes.user.extra,
            uid: &attributes.user.uid,
        },
    };
    serde_json::to_vec(&review)
        .expect("strings serialise")
        .into()
}

fn field_requirements(selector: &FieldSelector) -> Option<Requirements<'_>> {
    let requirements = selector.requirements().iter().map(|it| Requirement {
        key: &it.key,
        operator: match it.operator {
            FieldOperator::Equals => "In",
            FieldOperator::NotEquals => "NotIn",
        },
        values: vec![&*it.value],
    });
    Requirements::some(requirements.collect())
}

/// Comparisons have no form in a review and are dropped, which makes the check broader.
fn label_requirements(selector: &LabelSelector) -> Option<Requirements<'_>> {
    let requirements = selector.requirements().iter().filter_map(|it| {
        let operator = match it.operator {
            LabelOperator::In => "In",
            LabelOperator::NotIn => "NotIn",
            LabelOperator::Exists => "Exists",
            LabelOperator::DoesNotExist => "DoesNotExist",
            LabelOperator::GreaterThan | LabelOperator::LessThan => return None,
        };
        let values = it.values.iter().map(|value| &**value).collect();
        Some(Requirement {
            key: &it.key,
            operator,
            values,
        })
    });
    Requirements::some(requirements.collect())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    api_version: &'static str,
    kind: &'static str,
    spec: Spec<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_attributes: Option<ResourceAttributes<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    non_resource_attributes: Option<NonResourceAttributes<'a>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    user: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    groups: &'a [String],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra: &'a BTreeMap<String, Vec<String>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    uid: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceAttributes<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    verb: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    group: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    resource: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    subresource: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field_selector: Option<Requirements<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label_selector: Option<Requirements<'a>>,
}

#[derive(Serialize)]
struct NonResourceAttributes<'a> {
    path: &'a str,
    verb: &'a str,
}

#[derive(Serialize)]
struct Requirements<'a> {
    requirements: Vec<Requirement<'a>>,
}

impl<'a> Requirements<'a> {
    fn some(requirements: Vec<Requirement<'a>>) -> Option<Self> {
        (!requirements.is_empty()).then_some(Self { requirements })
    }
}

#[derive(Serialize)]
struct Requirement<'a> {
    key: &'a str,
    operator: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    values: Vec<&'a str>,
}

#[derive(Deserialize)]
struct Response {
    #[serde(default)]
    status: Outcome,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Outcome {
    allowed: bool,
    denied: bool,
    reason: String,
    evaluation_error: String,
}

impl Outcome {
    fn judge(self) -> Verdict {
        let failed =
            !self.evaluation_error.is_empty() && !self.evaluation_error.ends_with(SELECTOR_NOTE);
        match (self.allowed, self.denied) {
            (true, false) => Verdict::Allowed,
            (true, true) => Verdict::Failed {
                error: "the review was both allowed and denied".to_owned(),
            },
            (false, false) if failed => Verdict::Failed {
                error: self.evaluation_error,
            },
            (false, true | false) => Verdict::Refused {
                reason: self.reason,
            },
        }
    }
}
