//! What a reader asks for, and the one key of it that events are indexed by.
//!
//! A [`Selection`] is the whole predicate. An [`Interest`] is its most selective indexable part:
//! everyone who reads or waits does so under exactly one interest, so an event reaches a reader at
//! most once and never visits readers that cannot care. The predicate still decides; the interest
//! only narrows.

use std::collections::HashMap;

use crate::object::Object;
use crate::resource::Resource;
use crate::selector::{BoundFieldSelector, LabelSelector};

/// Which objects a GET, LIST or WATCH is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Selection {
    /// Only this namespace; `None` for cluster-scoped resources and reads across namespaces.
    pub namespace: Option<Box<str>>,
    /// Only this name.
    pub name: Option<Box<str>>,
    /// Only objects whose labels match.
    pub labels: LabelSelector,
    /// Only objects whose fields match.
    pub fields: BoundFieldSelector,
}

impl Selection {
    /// Every object.
    pub(crate) fn everything() -> Self {
        Self {
            namespace: None,
            name: None,
            labels: LabelSelector::default(),
            fields: BoundFieldSelector::default(),
        }
    }

    /// Whether it rules nothing out.
    pub(crate) fn is_everything(&self) -> bool {
        let is_somewhere = self.namespace.is_some() || self.name.is_some();
        !is_somewhere && self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether the object is selected.
    pub fn matches(&self, object: &Object) -> bool {
        self.namespace
            .as_deref()
            .is_none_or(|namespace| namespace == object.namespace())
            && self
                .name
                .as_deref()
                .is_none_or(|name| name == object.name())
            && self.labels.matches(object)
            && self.fields.matches(object)
    }

    /// The most selective key: one object, then one value of the trigger field, then one namespace.
    pub(crate) fn interest(&self, resource: &Resource) -> Interest {
        if let (Some(name), namespace) = (self.name.as_deref(), self.namespace.as_deref()) {
            match (resource.namespaced, namespace) {
                (true, Some(namespace)) => {
                    return Interest::Name(format!("{namespace}/{name}").into());
                }
                (false, _) => return Interest::Name(name.into()),
                (true, None) => {}
            }
        }
        if resource.fields.trigger().is_some()
            && let Some(value) = self.fields.trigger_value()
        {
            return Interest::Field(value.into());
        }
        match self.namespace.as_deref() {
            Some(namespace) if resource.namespaced => Interest::Namespace(namespace.into()),
            Some(_) | None => Interest::All,
        }
    }
}

/// The key a reader is registered under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Every event.
    All,
    /// One namespace.
    Namespace(Box<str>),
    /// One object, by its key.
    Name(Box<str>),
    /// One value of the trigger field.
    Field(Box<str>),
}

impl Interest {
    /// The key to look up; `None` means everything.
    pub(crate) fn key(&self) -> Option<KeyRef<'_>> {
        match self {
            Self::All => None,
            Self::Namespace(namespace) => Some(KeyRef::Namespace(namespace)),
            Self::Name(key) => Some(KeyRef::Name(key)),
            Self::Field(value) => Some(KeyRef::Field(value)),
        }
    }
}

/// A key of the index, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum KeyRef<'a> {
    Namespace(&'a str),
    Name(&'a str),
    Field(&'a str),
}

/// A map from keys to `T`, looked up without allocating. Names are chosen by tenants, hence the
/// keyed hash of std.
#[derive(Debug)]
pub(crate) struct Index<T> {
    namespaces: HashMap<Box<str>, T>,
    names: HashMap<Box<str>, T>,
    fields: HashMap<Box<str>, T>,
}

impl<T: Default> Index<T> {
    pub(crate) fn new() -> Self {
        Self {
            namespaces: HashMap::new(),
            names: HashMap::new(),
            fields: HashMap::new(),
        }
    }

    pub(crate) fn find(&self, key: KeyRef<'_>) -> Option<&T> {
        match key {
            KeyRef::Namespace(key) => self.namespaces.get(key),
            KeyRef::Name(key) => self.names.get(key),
            KeyRef::Field(key) => self.fields.get(key),
        }
    }

    /// The value at `key`, made on first use.
    pub(crate) fn entry(&mut self, key: KeyRef<'_>) -> &mut T {
        let (map, key) = self.map(key);
        if !map.contains_key(key) {
            map.insert(key.into(), T::default());
        }
        map.get_mut(key).expect("the key was inserted just above")
    }

    pub(crate) fn remove(&mut self, key: KeyRef<'_>) {
        let (map, key) = self.map(key);
        map.remove(key);
    }

    fn map<'a>(&mut self, key: KeyRef<'a>) -> (&mut HashMap<Box<str>, T>, &'a str) {
        match key {
            KeyRef::Namespace(key) => (&mut self.namespaces, key),
            KeyRef::Name(key) => (&mut self.names, key),
            KeyRef::Field(key) => (&mut self.fields, key),
        }
    }
}
