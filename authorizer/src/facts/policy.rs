//! Roles and bindings, cluster-wide or not.
//!
//! Their facts are owned: the evaluator keeps them.

use std::borrow::Cow;

use super::schema::{Message, Sink, item, message, text, walk};
use super::{BindingFacts, FactsError, PolicyRule, RoleFacts, Subject};

/// What a role or cluster role says.
pub(super) fn role(object: &[u8], shape: &'static RoleShape) -> Result<RoleFacts, FactsError> {
    let mut facts = RoleFacts::default();
    walk(object, shape, &mut facts)?;
    Ok(facts)
}

/// What a role binding or cluster role binding says.
pub(super) fn binding(
    object: &[u8],
    shape: &'static BindingShape,
) -> Result<BindingFacts, FactsError> {
    let mut facts = BindingFacts::default();
    walk(object, shape, &mut facts)?;
    Ok(facts)
}

#[derive(Clone, Copy, Debug)]
pub(super) enum RoleText {
    Namespace,
    Name,
    Verb,
    ApiGroup,
    Resource,
    ResourceName,
    NonResourceUrl,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Rule;

pub(super) type RoleShape = Message<RoleText, Rule>;

pub(super) static ROLE: RoleShape = Message(&[
    message("metadata", 1, &ROLE_METADATA),
    item("rules", 2, Rule, &RULE),
]);

/// Has no namespace.
pub(super) static CLUSTER_ROLE: RoleShape = Message(&[
    message("metadata", 1, &Message(&[text("name", 1, RoleText::Name)])),
    item("rules", 2, Rule, &RULE),
]);

static ROLE_METADATA: RoleShape = Message(&[
    text("name", 1, RoleText::Name),
    text("namespace", 3, RoleText::Namespace),
]);

static RULE: RoleShape = Message(&[
    text("verbs", 1, RoleText::Verb),
    text("apiGroups", 2, RoleText::ApiGroup),
    text("resources", 3, RoleText::Resource),
    text("resourceNames", 4, RoleText::ResourceName),
    text("nonResourceURLs", 5, RoleText::NonResourceUrl),
]);

impl<'a> Sink<'a> for RoleFacts {
    type Text = RoleText;
    type Item = Rule;

    fn text(&mut self, which: RoleText, text: Cow<'a, str>) {
        let text = text.into();
        match which {
            RoleText::Namespace => self.namespace = text,
            RoleText::Name => self.name = text,
            RoleText::Verb => self.rule().verbs.push(text),
            RoleText::ApiGroup => self.rule().api_groups.push(text),
            RoleText::Resource => self.rule().resources.push(text),
            RoleText::ResourceName => self.rule().resource_names.push(text),
            RoleText::NonResourceUrl => self.rule().non_resource_urls.push(text),
        }
    }

    fn enter(&mut self, _rule: Rule) {
        self.rules.push(PolicyRule::default());
    }

    fn leave(&mut self, _rule: Rule) {}
}

impl RoleFacts {
    fn rule(&mut self) -> &mut PolicyRule {
        self.rules.last_mut().expect("a rule was entered")
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum BindingText {
    Namespace,
    Name,
    SubjectKind,
    SubjectName,
    SubjectNamespace,
    RoleKind,
    RoleName,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct OneSubject;

pub(super) type BindingShape = Message<BindingText, OneSubject>;

pub(super) static ROLE_BINDING: BindingShape = Message(&[
    message("metadata", 1, &BINDING_METADATA),
    item("subjects", 2, OneSubject, &SUBJECT),
    message("roleRef", 3, &ROLE_REFERENCE),
]);

/// Has no namespace.
pub(super) static CLUSTER_ROLE_BINDING: BindingShape = Message(&[
    message(
        "metadata",
        1,
        &Message(&[text("name", 1, BindingText::Name)]),
    ),
    item("subjects", 2, OneSubject, &SUBJECT),
    message("roleRef", 3, &ROLE_REFERENCE),
]);

static BINDING_METADATA: BindingShape = Message(&[
    text("name", 1, BindingText::Name),
    text("namespace", 3, BindingText::Namespace),
]);

static SUBJECT: BindingShape = Message(&[
    text("kind", 1, BindingText::SubjectKind),
    text("name", 3, BindingText::SubjectName),
    text("namespace", 4, BindingText::SubjectNamespace),
]);

static ROLE_REFERENCE: BindingShape = Message(&[
    text("kind", 2, BindingText::RoleKind),
    text("name", 3, BindingText::RoleName),
]);

impl<'a> Sink<'a> for BindingFacts {
    type Text = BindingText;
    type Item = OneSubject;

    fn text(&mut self, which: BindingText, text: Cow<'a, str>) {
        let text = text.into();
        match which {
            BindingText::Namespace => self.namespace = text,
            BindingText::Name => self.name = text,
            BindingText::SubjectKind => self.subject().kind = text,
            BindingText::SubjectName => self.subject().name = text,
            BindingText::SubjectNamespace => self.subject().namespace = text,
            BindingText::RoleKind => self.role_kind = text,
            BindingText::RoleName => self.role_name = text,
        }
    }

    fn enter(&mut self, _subject: OneSubject) {
        self.subjects.push(Subject::default());
    }

    fn leave(&mut self, _subject: OneSubject) {}
}

impl BindingFacts {
    fn subject(&mut self) -> &mut Subject {
        self.subjects.last_mut().expect("a subject was entered")
    }
}
