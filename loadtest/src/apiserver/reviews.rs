//! Questions about identity and access: TokenReview, SubjectAccessReview and their kin.
//!
//! Owns the checks of their bodies, the translation of a review's attributes into a question for
//! the [`authz`](super::authz), and the shape of the answers. Nothing is stored.
//! Refuses to authorise the asker; that has happened.
//!
//! Invariant: a selector that does not parse is as good as none, and the answer says so.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::authn::UserInfo;
use super::authz::{Attributes, FieldTerm, ResourceTarget, Target};
use super::body::Response;
use super::resources::Resource;
use super::selectors::{FieldSelector, LabelSelector};
use super::status::{Cause, Status};
use super::write::{Request, now, owned_on_create, review_body};

/// Whether a resource is answered here.
pub(super) fn is_review(resource: &Resource) -> bool {
    resource.custom.is_none()
        && matches!(
            resource.group.as_str(),
            "authentication.k8s.io" | "authorization.k8s.io"
        )
}

/// Answers a review.
pub(super) fn serve(request: &Request<'_>) -> Result<Response, Status> {
    let info = &request.exchange.info;
    if request.exchange.method != Method::POST || !info.name.is_empty() {
        return Err(Status::method_not_allowed());
    }
    if request.resource.namespaced == info.namespace.is_empty() {
        return Err(Status::no_such_resource());
    }
    let mut review = review_body(request)?;
    if request.resource.kind != "SelfSubjectReview" {
        let entries = owned_on_create(request, &review);
        if !entries.is_empty() {
            review["metadata"]["managedFields"] = Value::Array(entries);
        }
    }
    review["status"] = match request.resource.kind.as_str() {
        "TokenReview" => token_review(request, &review)?,
        "SelfSubjectReview" => {
            review["metadata"]["creationTimestamp"] = json!(now());
            json!({"userInfo": user_value(&request.exchange.user)})
        }
        "SelfSubjectRulesReview" => {
            let namespace = review["spec"]["namespace"].as_str().unwrap_or_default();
            let user = &request.exchange.user;
            let (resources, paths) = request.state.authorizer.rules(user, namespace);
            json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false})
        }
        "SelfSubjectAccessReview" => access(request, &review, request.exchange.user.clone())?,
        _ => access(request, &review, named_user(&review)?)?,
    };
    request
        .state
        .answer_value(request.exchange, StatusCode::CREATED, &review)
}

fn token_review(request: &Request<'_>, review: &Value) -> Result<Value, Status> {
    let token = review["spec"]["token"].as_str().unwrap_or_default();
    if token.is_empty() {
        let text = "token is required for TokenReview in authentication";
        return Err(Status::bad_request(text));
    }
    let Some(user) = request.state.authenticator.token_user(token) else {
        return Ok(json!({"user": {}, "error": "invalid bearer token"}));
    };
    let mut status = json!({"authenticated": true, "user": user_value(&user.authenticated())});
    let asked = review["spec"]["audiences"].as_array();
    if let Some(asked) = asked.filter(|asked| !asked.is_empty()) {
        if !asked.iter().any(|audience| audience == AUDIENCE) {
            return Ok(json!({"user": {}, "error": "invalid bearer token"}));
        }
        status["audiences"] = json!([AUDIENCE]);
    }
    Ok(status)
}

/// Whom every token is for.
const AUDIENCE: &str = "https://kubernetes.default.svc";

fn user_value(user: &UserInfo) -> Value {
    let mut value = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        value["uid"] = json!(user.uid);
    }
    if !user.extra.is_empty() {
        value["extra"] = json!(user.extra);
    }
    value
}

fn named_user(review: &Value) -> Result<UserInfo, Status> {
    let spec = &review["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().map(text).collect()
    };
    let user = UserInfo {
        name: text(&spec["user"]),
        uid: text(&spec["uid"]),
        groups: texts(&spec["groups"]),
        extra: spec["extra"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, values)| (key.clone(), texts(values)))
            .collect(),
    };
    if user.name.is_empty() && user.groups.is_empty() {
        // Both mistakes of an empty spec are reported, this one first.
        let text = "Invalid value: \"\": at least one of user or group must be specified";
        return Err(invalid(vec![Cause::field(
            "FieldValueInvalid",
            text,
            "spec.user",
        )]));
    }
    Ok(user)
}

fn access(request: &Request<'_>, review: &Value, user: UserInfo) -> Result<Value, Status> {
    let spec = &review["spec"];
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let mut errors = Vec::new();
    let (verb, target) = match (resource.is_object(), path.is_object()) {
        (true, true) => {
            let printed = json!({"Path": path["path"], "Verb": path["verb"]});
            let text = format!(
                "Invalid value: {printed}: cannot be specified in combination with \
                 resourceAttributes"
            );
            let field = "spec.nonResourceAttributes";
            return Err(invalid(vec![Cause::field(
                "FieldValueInvalid",
                text,
                field,
            )]));
        }
        (false, false) => {
            let text = "Invalid value: null: exactly one of nonResourceAttributes or \
                        resourceAttributes must be specified";
            let field = "spec.resourceAttributes";
            return Err(invalid(vec![Cause::field(
                "FieldValueInvalid",
                text,
                field,
            )]));
        }
        (true, false) => (&resource["verb"], resource_target(resource, &mut errors)),
        (false, true) => (
            &path["verb"],
            Target::Path(path["path"].as_str().unwrap_or_default().to_owned()),
        ),
    };
    let verb = verb.as_str().unwrap_or_default().to_owned();
    let decision = request
        .state
        .authorizer
        .authorize(&Attributes { user, verb, target });
    let mut status = json!({"allowed": decision.allowed});
    if !decision.reason.is_empty() {
        status["reason"] = json!(decision.reason);
    }
    if !errors.is_empty() {
        status["evaluationError"] = json!(errors.join("\n"));
    }
    Ok(status)
}

fn resource_target(attributes: &Value, errors: &mut Vec<String>) -> Target {
    let text = |field: &str| attributes[field].as_str().unwrap_or_default().to_owned();
    let mut ignored = |field: &str| {
        errors.push(format!(
            "spec.resourceAttributes.{field} ignored due to parse error"
        ));
    };
    let fields = field_terms(&attributes["fieldSelector"]);
    if fields.is_none() {
        ignored("fieldSelector");
    }
    if !labels_parse(&attributes["labelSelector"]) {
        ignored("labelSelector");
    }
    Target::Resource(ResourceTarget {
        namespace: text("namespace"),
        group: text("group"),
        resource: text("resource"),
        subresource: text("subresource"),
        name: text("name"),
        fields: fields.unwrap_or_default(),
    })
}

/// The terms of a field selector, raw or as requirements; `None` when it does not parse.
fn field_terms(selector: &Value) -> Option<Vec<FieldTerm>> {
    if let Some(raw) = selector["rawSelector"]
        .as_str()
        .filter(|raw| !raw.is_empty())
    {
        return terms_of(raw);
    }
    let requirements = selector["requirements"].as_array().into_iter().flatten();
    requirements
        .map(|requirement| {
            let values = requirement["values"].as_array()?;
            let [value] = values.as_slice() else {
                return None;
            };
            let equals = match requirement["operator"].as_str()? {
                "In" => true,
                "NotIn" => false,
                _ => return None,
            };
            Some(FieldTerm {
                key: requirement["key"].as_str()?.to_owned(),
                value: value.as_str()?.to_owned(),
                equals,
            })
        })
        .collect()
}

/// The terms of a field selector as a query has it; `None` when it does not parse.
pub(super) fn terms_of(raw: &str) -> Option<Vec<FieldTerm>> {
    let selector = FieldSelector::parse(raw).ok()?;
    let terms = selector.requirements().iter().map(|requirement| FieldTerm {
        key: requirement.key.clone(),
        value: requirement.value.clone(),
        equals: !requirement.negated,
    });
    Some(terms.collect())
}

fn labels_parse(selector: &Value) -> bool {
    if let Some(raw) = selector["rawSelector"]
        .as_str()
        .filter(|raw| !raw.is_empty())
    {
        return LabelSelector::parse(raw).is_ok();
    }
    let mut requirements = selector["requirements"].as_array().into_iter().flatten();
    requirements.all(|requirement| {
        matches!(
            requirement["operator"].as_str(),
            Some("In" | "NotIn" | "Exists" | "DoesNotExist")
        )
    })
}

fn invalid(causes: Vec<Cause>) -> Status {
    Status::invalid("authorization.k8s.io", "", "", causes)
}
