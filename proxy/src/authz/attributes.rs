//! What an authorizer is told about a request.

use std::sync::Arc;

use watershed_cache::{
    Selection, Watcher,
    selector::{FieldSelector, LabelSelector},
};

use crate::authn::UserInfo;
use crate::request::{RequestInfo, Verb};
use crate::status::Refused;

/// A request as authorizers see it. Empty strings stand for what it does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// Who asks.
    pub(crate) user: Arc<UserInfo>,
    /// The verb; for a non-resource request the method in lower case.
    pub(crate) verb: String,
    /// Whether it is for an API resource.
    pub(crate) is_resource: bool,
    /// API group.
    pub(crate) group: String,
    /// API version.
    pub(crate) version: String,
    /// Resource in the plural.
    pub(crate) resource: String,
    /// Subresource.
    pub(crate) subresource: String,
    /// Namespace.
    pub(crate) namespace: String,
    /// Object, also when only the field selector names it.
    pub(crate) name: String,
    /// The decoded path of a non-resource request.
    pub(crate) path: String,
    /// Only for list, watch and deletecollection, and only if it parses.
    pub(crate) field_selector: FieldSelector,
    /// Only for list, watch and deletecollection, and only if it parses.
    pub(crate) label_selector: LabelSelector,
}

impl Attributes {
    /// The attributes of a request. A selector that does not parse is left out: the check is then
    /// broader, and the request fails later.
    pub(crate) fn new(user: Arc<UserInfo>, info: &RequestInfo) -> Self {
        let path = if info.is_resource {
            String::new()
        } else {
            info.path.clone()
        };
        let field_selector = info
            .field_selector
            .as_deref()
            .and_then(|text| FieldSelector::parse(text).ok())
            .unwrap_or_default();
        let label_selector = info
            .label_selector
            .as_deref()
            .and_then(|text| LabelSelector::parse(text).ok())
            .unwrap_or_default();
        Self {
            user,
            verb: info.verb.as_str().to_owned(),
            is_resource: info.is_resource,
            group: info.group.clone(),
            version: info.version.clone(),
            resource: info.resource.clone(),
            subresource: info.subresource.clone(),
            namespace: info.namespace.clone(),
            name: info.name.clone(),
            path,
            field_selector,
            label_selector,
        }
    }

    /// The attributes of a request that a watch was opened for, as far as the watch tells: it does
    /// not know by which path it came, nor under which of two names a field was selected.
    pub(crate) fn of_watch(user: Arc<UserInfo>, watcher: &Watcher) -> Self {
        let resource = watcher.resource();
        let selection = watcher.selection();
        let name = |of: fn(&Selection) -> &Option<Box<str>>| {
            let name = selection.and_then(|it| of(it).as_deref());
            name.unwrap_or_default().to_owned()
        };
        Self {
            user,
            verb: Verb::Watch.as_str().to_owned(),
            is_resource: true,
            group: resource.group.to_string(),
            version: resource.version.to_string(),
            resource: resource.resource.to_string(),
            subresource: String::new(),
            namespace: name(|it| &it.namespace),
            name: name(|it| &it.name),
            path: String::new(),
            field_selector: selection
                .map(|it| it.fields.unbound(&resource.fields))
                .unwrap_or_default(),
            label_selector: selection.map(|it| it.labels.clone()).unwrap_or_default(),
        }
    }

    /// What a 403 says was refused.
    pub(crate) fn refused(&self) -> Refused<'_> {
        if !self.is_resource {
            return Refused::Path {
                verb: &self.verb,
                path: &self.path,
            };
        }
        Refused::Resource {
            verb: &self.verb,
            group: &self.group,
            resource: &self.resource,
            subresource: &self.subresource,
            namespace: &self.namespace,
            name: &self.name,
        }
    }
}
