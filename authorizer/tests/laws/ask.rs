//! Requests, and a short way of writing them down.

use watershed_authorizer::{Attributes, Authorizer, Decision, Denial, Grant, User};

/// A request with everything an authorizer looks at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ask {
    pub(crate) user: String,
    pub(crate) groups: Vec<String>,
    pub(crate) verb: String,
    pub(crate) is_resource: bool,
    pub(crate) group: String,
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) path: String,
    /// Field, whether it is `=` rather than `!=`, value.
    pub(crate) selector: Vec<(String, bool, String)>,
}

impl Ask {
    /// A request as `VERB RESOURCE[/SUBRESOURCE][@GROUP] [NAMESPACE/][NAME] [?SELECTOR]`, or as
    /// `VERB /PATH`.
    pub(crate) fn new(text: &str) -> Self {
        let mut words = text.split(' ');
        let verb = words.next().expect("a verb").to_owned();
        let target = words.next().expect("a resource or a path");
        if target.starts_with('/') {
            let path = target.to_owned();
            return Self {
                verb,
                path,
                ..Self::default()
            };
        }
        let (resource, group) = target.split_once('@').unwrap_or((target, ""));
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let mut ask = Self {
            verb,
            is_resource: true,
            group: group.to_owned(),
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            ..Self::default()
        };
        for word in words {
            if let Some(selector) = word.strip_prefix('?') {
                ask.selector = selector.split(',').map(requirement).collect();
            } else {
                let (namespace, name) = word.split_once('/').unwrap_or(("", word));
                ask.namespace = namespace.to_owned();
                ask.name = name.to_owned();
            }
        }
        ask
    }

    /// Asked by a user in groups.
    pub(crate) fn by(self, user: &str, groups: &[&str]) -> Self {
        Self {
            user: user.to_owned(),
            groups: groups.iter().map(|&group| group.to_owned()).collect(),
            ..self
        }
    }

    /// Asked by a node.
    pub(crate) fn by_node(self, node: &str) -> Self {
        let groups = ["system:nodes", "system:authenticated"];
        self.by(&format!("system:node:{node}"), &groups)
    }

    pub(crate) fn with<T>(&self, ask: impl FnOnce(&Attributes<'_>) -> T) -> T {
        let selects = |field: &str, value: &str| {
            let mut requirements = self.selector.iter();
            requirements.any(|(key, equals, wanted)| *equals && key == field && wanted == value)
        };
        ask(&Attributes {
            user: User {
                name: &self.user,
                groups: &self.groups,
            },
            verb: &self.verb,
            is_resource: self.is_resource,
            group: &self.group,
            resource: &self.resource,
            subresource: &self.subresource,
            namespace: &self.namespace,
            name: &self.name,
            path: &self.path,
            selects: &selects,
        })
    }

    pub(crate) fn decide(&self, authorizer: &Authorizer) -> Decision<Denial> {
        self.with(|asks| authorizer.decide(asks))
    }

    pub(crate) fn allowed(&self, authorizer: &Authorizer) -> bool {
        matches!(self.decide(authorizer), Decision::Allow(_))
    }
}

fn requirement(text: &str) -> (String, bool, String) {
    match text.split_once("!=") {
        Some((field, value)) => (field.to_owned(), false, value.to_owned()),
        None => {
            let (field, value) = text.split_once('=').expect("a field and a value");
            let value = value.strip_prefix('=').unwrap_or(value);
            (field.to_owned(), true, value.to_owned())
        }
    }
}

/// A decision as a table shows it: `rule`, `graph`, `rbac`, `masters`, or `no: ` and the reason.
pub(crate) fn shown(decision: &Decision<Denial>) -> String {
    match decision {
        Decision::Allow(Grant::Masters) => "masters".to_owned(),
        Decision::Allow(Grant::NodeRule) => "rule".to_owned(),
        Decision::Allow(Grant::NodeGraph) => "graph".to_owned(),
        Decision::Allow(Grant::Rbac) => "rbac".to_owned(),
        Decision::NoOpinion(denial) => format!("no: {}", denial.reason),
    }
}
