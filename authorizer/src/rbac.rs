//! RBAC: which roles are bound to a user, and what they allow.
//!
//! Owns roles and bindings, and the answer of `plugin/pkg/auth/authorizer/rbac/rbac.go` (1.36):
//! cluster role bindings first, then the role bindings of the request's namespace, the first rule
//! that matches allows. Nothing forbids, and what cannot be resolved is only a reason in a refusal.
//! Bindings are found by subject ([`subjects`]), so that a decision costs what the caller's own
//! bindings cost. It refuses to know whether everything was fed. Invariant: the answer is that of
//! the roles and bindings of the moment, in whatever order they came.
//!
//! The apiserver walks its bindings in no particular order, and names the first that allows. Here
//! the order is that of the names, so that the same state gives the same words.
//!
//! One lock, held for the evaluation of a handful of rules. Changes are rare. Rejected: rules
//! copied into each binding, which would have to be found again when a role changes.

mod rules;
mod subjects;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use watershed_quote::Quoted;

use crate::attributes::{Attributes, User};
use crate::decision::{Decision, Grant};
use crate::facts::{BindingFacts, PolicyRule, RoleFacts, Subject};
use subjects::Subjects;

/// How much RBAC holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RbacSize {
    /// Roles and cluster roles.
    pub roles: usize,
    /// Role bindings and cluster role bindings.
    pub bindings: usize,
    /// Bytes of both, without what the tables that find them take.
    pub bytes: usize,
}

/// Roles and bindings. Shared by reference; its methods take its lock.
#[derive(Default)]
pub(crate) struct Rbac {
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    cluster_roles: HashMap<Box<str>, RoleFacts>,
    /// By namespace, by name.
    roles: HashMap<Box<str>, HashMap<Box<str>, RoleFacts>>,
    /// The cluster role bindings under no namespace.
    bindings: HashMap<Box<str>, HashMap<Box<str>, Arc<BindingFacts>>>,
    subjects: Subjects,
    /// Counts whatever took rights away.
    losses: u64,
    size: RbacSize,
}

impl Rbac {
    /// Takes in a role, or without a namespace a cluster role. Returns whether it allows less.
    pub(crate) fn upsert_role(&self, role: RoleFacts) -> bool {
        let state = &mut *self.state.write();
        state.size.bytes += role.bytes();
        let roles = state.roles_mut(&role.namespace);
        let before = roles.remove(&role.name);
        let narrowed = before.as_ref().is_some_and(|before| {
            let kept = |rule| role.rules.contains(rule);
            !before.rules.iter().all(kept)
        });
        roles.insert(role.name.clone(), role);
        match before {
            Some(before) => state.size.bytes -= before.bytes(),
            None => state.size.roles += 1,
        }
        state.lose_if(narrowed)
    }

    /// Forgets a role. Returns whether there was one.
    pub(crate) fn delete_role(&self, namespace: &str, name: &str) -> bool {
        let state = &mut *self.state.write();
        let removed = state.roles_mut(namespace).remove(name);
        if let Some(role) = &removed {
            state.size.roles -= 1;
            state.size.bytes -= role.bytes();
        }
        state.drop_empty(namespace);
        state.lose_if(removed.is_some())
    }

    /// Forgets all roles, or all cluster roles. Returns whether there were any.
    pub(crate) fn clear_roles(&self, cluster_wide: bool) -> bool {
        let state = &mut *self.state.write();
        let roles: Vec<RoleFacts> = if cluster_wide {
            state.cluster_roles.drain().map(|(_, role)| role).collect()
        } else {
            let namespaces = state.roles.drain();
            namespaces
                .flat_map(|(_, roles)| roles.into_values())
                .collect()
        };
        state.size.roles -= roles.len();
        state.size.bytes -= roles.iter().map(RoleFacts::bytes).sum::<usize>();
        state.lose_if(!roles.is_empty())
    }

    /// Takes in a binding, or without a namespace a cluster role binding. Returns whether it gives
    /// less.
    pub(crate) fn upsert_binding(&self, binding: BindingFacts) -> bool {
        let state = &mut *self.state.write();
        let before = state.remove_binding(&binding.namespace, &binding.name);
        let narrowed = before.is_some_and(|before| {
            (&before.role_kind, &before.role_name) != (&binding.role_kind, &binding.role_name)
                || !before
                    .subjects
                    .iter()
                    .all(|subject| binding.subjects.contains(subject))
        });
        state.size.bindings += 1;
        state.size.bytes += binding.bytes();
        let binding = Arc::new(binding);
        state.subjects.insert(&binding);
        let bindings = state.bindings.entry(binding.namespace.clone()).or_default();
        bindings.insert(binding.name.clone(), binding);
        state.lose_if(narrowed)
    }

    /// Forgets a binding. Returns whether there was one.
    pub(crate) fn delete_binding(&self, namespace: &str, name: &str) -> bool {
        let state = &mut *self.state.write();
        let removed = state.remove_binding(namespace, name);
        state.drop_empty(namespace);
        state.lose_if(removed.is_some())
    }

    /// Forgets all role bindings, or all cluster role bindings. Returns whether there were any.
    pub(crate) fn clear_bindings(&self, cluster_wide: bool) -> bool {
        let state = &mut *self.state.write();
        let namespaces = state.bindings.iter();
        let namespaces = namespaces.filter(|(namespace, _)| namespace.is_empty() == cluster_wide);
        let bindings: Vec<Arc<BindingFacts>> = namespaces
            .flat_map(|(_, bindings)| bindings.values().cloned())
            .collect();
        for binding in &bindings {
            state.remove_binding(&binding.namespace, &binding.name);
            state.drop_empty(&binding.namespace);
        }
        state.lose_if(!bindings.is_empty())
    }

    /// What the roles of the user say. The reason is empty unless a role is missing.
    pub(crate) fn decide(&self, asks: &Attributes<'_>) -> Decision<String> {
        let state = self.state.read();
        match state.first_grant(asks) {
            Some(_) => Decision::Allow(Grant::Rbac),
            None => Decision::NoOpinion(state.trouble(asks)),
        }
    }

    /// Why RBAC allows a request, in the words of the apiserver; `None` if it does not.
    pub(crate) fn explain(&self, asks: &Attributes<'_>) -> Option<String> {
        let state = self.state.read();
        let binding = state.first_grant(asks)?;
        let subject = binding
            .subjects
            .iter()
            .find(|subject| applies(subject, &binding.namespace, &asks.user));
        let subject = subject.expect("a binding is found by a subject that applies");
        Some(format!(
            "RBAC: allowed by {}",
            Description { binding, subject }
        ))
    }

    /// A number that is another one whenever anybody may have lost a right since.
    pub(crate) fn generation(&self) -> u64 {
        self.state.read().losses
    }

    pub(crate) fn size(&self) -> RbacSize {
        self.state.read().size
    }
}

impl State {
    /// The first binding with a rule that allows the request.
    fn first_grant<'s>(&'s self, asks: &Attributes<'s>) -> Option<&'s BindingFacts> {
        self.of_user(asks).find(|binding| {
            let role = self.role(binding);
            role.is_some_and(|role| role.rules.iter().any(|rule| rules::allows(rule, asks)))
        })
    }

    /// The bindings that apply, cluster-wide ones first; one with several subjects that apply as
    /// often as it has them.
    fn of_user<'s>(&'s self, asks: &Attributes<'s>) -> impl Iterator<Item = &'s BindingFacts> {
        let cluster_wide = self.subjects.bindings("", asks.user);
        // Without a namespace there is no second round.
        let local =
            (!asks.namespace.is_empty()).then(|| self.subjects.bindings(asks.namespace, asks.user));
        cluster_wide.chain(local.into_iter().flatten())
    }

    /// The role of a binding, if there is one. No role has no namespace: a cluster role binding to
    /// one finds none.
    fn role(&self, binding: &BindingFacts) -> Option<&RoleFacts> {
        match &*binding.role_kind {
            "ClusterRole" => self.cluster_roles.get(&binding.role_name),
            "Role" => self.roles.get(&binding.namespace)?.get(&binding.role_name),
            _other => None,
        }
    }

    /// What could not be resolved, each thing once (as `NewAggregate`, apimachinery 1.36).
    fn trouble(&self, asks: &Attributes<'_>) -> String {
        let mut errors: Vec<String> = Vec::new();
        for binding in self.of_user(asks) {
            if self.role(binding).is_none() {
                let error = missing(binding);
                if !errors.contains(&error) {
                    errors.push(error);
                }
            }
        }
        match errors.as_slice() {
            [] => String::new(),
            [error] => format!("RBAC: {error}"),
            errors => format!("RBAC: [{}]", errors.join(", ")),
        }
    }

    fn roles_mut(&mut self, namespace: &str) -> &mut HashMap<Box<str>, RoleFacts> {
        if namespace.is_empty() {
            return &mut self.cluster_roles;
        }
        self.roles.entry(namespace.into()).or_default()
    }

    fn remove_binding(&mut self, namespace: &str, name: &str) -> Option<Arc<BindingFacts>> {
        let binding = self.bindings.get_mut(namespace)?.remove(name)?;
        self.subjects.remove(&binding);
        self.size.bindings -= 1;
        self.size.bytes -= binding.bytes();
        Some(binding)
    }

    /// Leaves nothing behind of a namespace that is gone.
    fn drop_empty(&mut self, namespace: &str) {
        if self.roles.get(namespace).is_some_and(HashMap::is_empty) {
            self.roles.remove(namespace);
        }
        if self.bindings.get(namespace).is_some_and(HashMap::is_empty) {
            self.bindings.remove(namespace);
        }
    }

    fn lose_if(&mut self, lost: bool) -> bool {
        self.losses += u64::from(lost);
        lost
    }
}

/// What the apiserver says of a binding without its role.
fn missing(binding: &BindingFacts) -> String {
    let (kind, name) = (&*binding.role_kind, Quoted(&binding.role_name));
    match kind {
        "ClusterRole" => format!("clusterrole.rbac.authorization.k8s.io {name} not found"),
        "Role" => format!("role.rbac.authorization.k8s.io {name} not found"),
        other => format!("unsupported role reference kind: {}", Quoted(other)),
    }
}

/// Whether a subject is the user (as `appliesToUser`, `registry/rbac/validation/rule.go`, 1.36).
fn applies(subject: &Subject, namespace: &str, user: &User<'_>) -> bool {
    match &*subject.kind {
        "User" => *subject.name == *user.name,
        "Group" => user.in_group(&subject.name),
        "ServiceAccount" => {
            let namespace = account_namespace(subject, namespace);
            is_account(user.name, namespace, &subject.name)
        }
        _other => false,
    }
}

/// The namespace of a service account: its own, else that of the binding; neither is nobody's.
fn account_namespace<'a>(subject: &'a Subject, namespace: &'a str) -> &'a str {
    if subject.namespace.is_empty() {
        namespace
    } else {
        &subject.namespace
    }
}

fn is_account(user: &str, namespace: &str, name: &str) -> bool {
    let account = user.strip_prefix("system:serviceaccount:");
    let account = account.and_then(|account| account.strip_prefix(namespace));
    let account = account.and_then(|account| account.strip_prefix(':'));
    !namespace.is_empty() && account == Some(name)
}

/// A binding as the apiserver describes it.
struct Description<'a> {
    binding: &'a BindingFacts,
    subject: &'a Subject,
}

impl fmt::Display for Description<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { binding, subject } = self;
        if binding.namespace.is_empty() {
            write!(out, "ClusterRoleBinding {}", Quoted(&binding.name))?;
        } else {
            let name = format!("{}/{}", binding.name, binding.namespace);
            write!(out, "RoleBinding {}", Quoted(&name))?;
        }
        let role = Quoted(&binding.role_name);
        write!(out, " of {} {role} to {} ", binding.role_kind, subject.kind)?;
        if &*subject.kind == "ServiceAccount" {
            let namespace = account_namespace(subject, &binding.namespace);
            let name = format!("{}/{namespace}", subject.name);
            return write!(out, "{}", Quoted(&name));
        }
        write!(out, "{}", Quoted(&subject.name))
    }
}

impl RoleFacts {
    fn bytes(&self) -> usize {
        let rules: usize = self.rules.iter().map(PolicyRule::bytes).sum();
        size_of::<Self>() + self.namespace.len() + self.name.len() + rules
    }
}

impl PolicyRule {
    fn bytes(&self) -> usize {
        let lists = [
            &self.verbs,
            &self.api_groups,
            &self.resources,
            &self.resource_names,
            &self.non_resource_urls,
        ];
        let texts = lists.into_iter().flatten();
        let texts: usize = texts.map(|text| size_of::<Box<str>>() + text.len()).sum();
        size_of::<Self>() + texts
    }
}

impl BindingFacts {
    fn bytes(&self) -> usize {
        let subjects: usize = self
            .subjects
            .iter()
            .map(|subject| {
                let texts = subject.kind.len() + subject.name.len() + subject.namespace.len();
                size_of::<Subject>() + texts
            })
            .sum();
        let texts = [
            &self.namespace,
            &self.name,
            &self.role_kind,
            &self.role_name,
        ];
        let texts: usize = texts.into_iter().map(|text| text.len()).sum();
        size_of::<Self>() + subjects + texts
    }
}

impl fmt::Debug for Rbac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Rbac").field(&self.size()).finish()
    }
}
