//! A request as authorizers see it.
//!
//! Owns nothing: every text is the caller's, so that asking costs no allocation. What the fields
//! hold is what kube-apiserver derives from a request (`endpoints/request/requestinfo.go` and
//! `endpoints/filters/authorization.go`, 1.36); deriving it is not done here.

use std::fmt;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct User<'a> {
    /// The user name, e.g. `system:node:n1` or `system:serviceaccount:kube-system:cni`.
    pub name: &'a str,
    /// The groups, as authentication found them: none is added here.
    pub groups: &'a [String],
}

impl User<'_> {
    /// Whether it is in a group.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|found| found == group)
    }
}

/// What is asked. Empty texts stand for what a request does not have.
#[derive(Clone, Copy)]
pub struct Attributes<'a> {
    /// Who asks.
    pub user: User<'a>,
    /// The verb; of a non-resource request the method in lower case.
    pub verb: &'a str,
    /// Whether it is for an API resource.
    pub is_resource: bool,
    /// API group.
    pub group: &'a str,
    /// Resource in the plural.
    pub resource: &'a str,
    /// Subresource.
    pub subresource: &'a str,
    /// Namespace.
    pub namespace: &'a str,
    /// Object, also when only the field selector names it.
    pub name: &'a str,
    /// The path of a non-resource request.
    pub path: &'a str,
    /// Whether the field selector has an `=` requirement of this field (first) and value (second),
    /// maybe besides others. Without a field selector, and with one that does not parse, always
    /// false.
    pub selects: &'a dyn Fn(&str, &str) -> bool,
}

impl fmt::Debug for Attributes<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Attributes")
            .field("user", &self.user)
            .field("verb", &self.verb)
            .field("is_resource", &self.is_resource)
            .field("group", &self.group)
            .field("resource", &self.resource)
            .field("subresource", &self.subresource)
            .field("namespace", &self.namespace)
            .field("name", &self.name)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
