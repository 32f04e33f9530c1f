//! From a request to a question for the authorizer, and from its refusal to a 403.

use crate::apiserver::authn::UserInfo;
use crate::apiserver::authz::{Attributes, FieldTerm, ResourceTarget, Target};
use crate::apiserver::request::{RequestInfo, go_quote};
use crate::apiserver::selectors::FieldSelector;
use crate::apiserver::status::{Details, Status};

/// The question a request poses.
pub(super) fn attributes(info: &RequestInfo, user: &UserInfo) -> Attributes {
    let target = if info.is_resource {
        let fields = FieldSelector::parse(&info.field_selector).unwrap_or_default();
        let term = |term: &crate::apiserver::selectors::FieldRequirement| FieldTerm {
            key: term.key.clone(),
            value: term.value.clone(),
            equals: !term.negated,
        };
        Target::Resource(ResourceTarget {
            namespace: info.namespace.clone(),
            group: info.group.clone(),
            resource: info.resource.clone(),
            subresource: info.subresource.clone(),
            name: info.name.clone(),
            fields: fields.requirements().iter().map(term).collect(),
        })
    } else {
        Target::Path(info.path.clone())
    };
    Attributes {
        user: user.clone(),
        verb: info.verb.clone(),
        target,
    }
}

/// The refusal of a question, with the authorizers' reason.
pub(super) fn forbidden(attributes: &Attributes, reason: &str) -> Status {
    let inner = attributes.refusal();
    let inner = inner
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    let tail = if reason.is_empty() {
        inner
    } else {
        format!("{inner}: {reason}")
    };
    let Target::Resource(target) = &attributes.target else {
        return Status::forbidden(format!("forbidden: {tail}"), Details::default());
    };
    let details = Details::object(&target.group, &target.resource, &target.name);
    let qualified = match (target.resource.as_str(), target.group.as_str()) {
        ("", _) => return Status::forbidden(format!("forbidden: {tail}"), details),
        (resource, "") => resource.to_owned(),
        (resource, group) => format!("{resource}.{group}"),
    };
    let text = if target.name.is_empty() {
        format!("{qualified} is forbidden: {tail}")
    } else {
        format!(
            "{qualified} {} is forbidden: {tail}",
            go_quote(&target.name)
        )
    };
    Status::forbidden(text, details)
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::apiserver::request::Query;

    #[test]
    fn a_refusal_escapes_the_user_but_not_the_name() {
        let path = "/api/v1/namespaces/a/configmaps/a%3Cb%3E&c";
        let info = RequestInfo::parse(&Method::GET, path, &Query::default()).unwrap();
        let user = UserInfo {
            name: "we<i>rd&co".to_owned(),
            ..UserInfo::default()
        };
        let status = forbidden(&attributes(&info, &user), "");
        assert_eq!(
            status.message,
            "configmaps \"a<b>&c\" is forbidden: User \"we&lt;i&gt;rd&amp;co\" cannot get resource \"configmaps\" in API group \"\" in the namespace \"a\""
        );
    }
}
