//! Which bindings are for whom.
//!
//! Owns an index from subjects to bindings, by namespace, with none for cluster role bindings. A
//! service account is found as the user it is. Invariant: under a subject stand exactly the bindings
//! that have it, each once, sorted by name.

use std::collections::HashMap;
use std::sync::Arc;

use super::account_namespace;
use crate::attributes::User;
use crate::facts::{BindingFacts, Subject};

#[derive(Debug, Default)]
pub(super) struct Subjects {
    namespaces: HashMap<Box<str>, Local>,
}

/// The subjects of one namespace's bindings.
#[derive(Debug, Default)]
struct Local {
    users: Index,
    groups: Index,
}

type Index = HashMap<Box<str>, Vec<Arc<BindingFacts>>>;

impl Subjects {
    /// The bindings in a namespace that apply to the user: those for the user, then those for each
    /// of the groups.
    pub(super) fn bindings<'s>(
        &'s self,
        namespace: &str,
        user: User<'s>,
    ) -> impl Iterator<Item = &'s BindingFacts> {
        let local = self.namespaces.get(namespace).into_iter();
        let bindings = local.flat_map(move |local| {
            let groups = user.groups.iter();
            let of_groups = groups.filter_map(|group| local.groups.get(&**group));
            local.users.get(user.name).into_iter().chain(of_groups)
        });
        bindings.flatten().map(|binding| &**binding)
    }

    pub(super) fn insert(&mut self, binding: &Arc<BindingFacts>) {
        let namespace = binding.namespace.clone();
        let local = self.namespaces.entry(namespace).or_default();
        for subject in &binding.subjects {
            let Some((index, name)) = local.place(subject, &binding.namespace) else {
                continue;
            };
            let found = index.entry(name).or_default();
            if let Err(place) = find(found, binding) {
                found.insert(place, Arc::clone(binding));
            }
        }
    }

    pub(super) fn remove(&mut self, binding: &BindingFacts) {
        let Some(local) = self.namespaces.get_mut(&binding.namespace) else {
            return;
        };
        for subject in &binding.subjects {
            let Some((index, name)) = local.place(subject, &binding.namespace) else {
                continue;
            };
            let Some(found) = index.get_mut(&name) else {
                continue; // The subject stands twice in the binding.
            };
            if let Ok(place) = find(found, binding) {
                found.remove(place);
            }
            if found.is_empty() {
                index.remove(&name);
            }
        }
        if local.users.is_empty() && local.groups.is_empty() {
            self.namespaces.remove(&binding.namespace);
        }
    }
}

impl Local {
    /// Where the bindings of a subject stand, if it can be anybody at all.
    fn place(&mut self, subject: &Subject, namespace: &str) -> Option<(&mut Index, Box<str>)> {
        match &*subject.kind {
            "User" => Some((&mut self.users, subject.name.clone())),
            "Group" => Some((&mut self.groups, subject.name.clone())),
            "ServiceAccount" => {
                let namespace = account_namespace(subject, namespace);
                let user = format!("system:serviceaccount:{namespace}:{}", subject.name);
                (!namespace.is_empty()).then(|| (&mut self.users, user.into()))
            }
            _other => None,
        }
    }
}

fn find(bindings: &[Arc<BindingFacts>], binding: &BindingFacts) -> Result<usize, usize> {
    bindings.binary_search_by(|other| other.name.cmp(&binding.name))
}
