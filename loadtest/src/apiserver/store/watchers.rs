//! Who is handed which event: an index from scope to queues.
//!
//! Each watcher waits under exactly one scope, the narrowest its request allows, so that an event
//! costs as much as there are watchers that may care. A queue has a limit; a watcher that lets it
//! fill is dropped, which ends its stream cleanly once the queue is read out, as the apiserver ends
//! slow watchers.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use tokio::sync::mpsc;

use super::Store;
use super::event::Event;
use super::object::{Stored, trigger_value};

/// What a watcher or a list is narrowed to before selectors are looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Every object.
    All,
    /// One namespace.
    Namespace(String),
    /// One object, by its key.
    Key(String),
    /// Objects with this value of the field the resource is indexed by.
    Trigger(String),
}

/// Events that wait for one watcher at most; above it the watcher is dropped.
pub(super) const QUEUE_EVENTS_MAX: usize = 1000;

#[derive(Debug, Default)]
pub(super) struct Watchers {
    by_scope: HashMap<Scope, HashMap<u64, mpsc::Sender<Arc<Event>>>>,
}

impl Watchers {
    pub(super) fn add(&mut self, id: u64, scope: Scope) -> mpsc::Receiver<Arc<Event>> {
        let (sender, receiver) = mpsc::channel(QUEUE_EVENTS_MAX);
        self.by_scope.entry(scope).or_default().insert(id, sender);
        receiver
    }

    pub(super) fn remove(&mut self, id: u64, scope: &Scope) {
        if let Some(watchers) = self.by_scope.get_mut(scope) {
            watchers.remove(&id);
            if watchers.is_empty() {
                self.by_scope.remove(scope);
            }
        }
    }

    pub(super) fn dispatch(&mut self, event: &Arc<Event>) {
        if self.by_scope.is_empty() {
            return;
        }
        let object = &event.object;
        self.hand_to(&Scope::All, event);
        self.hand_to(&Scope::Key(object.key.clone()), event);
        if !object.namespace.is_empty() {
            self.hand_to(&Scope::Namespace(object.namespace.clone()), event);
        }
        let new = node_of(object);
        let old = event
            .previous
            .as_ref()
            .and_then(|previous| node_of(previous));
        if let Some(old) = old
            && new != Some(old)
        {
            self.hand_to(&Scope::Trigger(old.to_owned()), event);
        }
        if let Some(new) = new {
            self.hand_to(&Scope::Trigger(new.to_owned()), event);
        }
    }

    fn hand_to(&mut self, scope: &Scope, event: &Arc<Event>) {
        if let Some(watchers) = self.by_scope.get_mut(scope) {
            watchers.retain(|_, queue| queue.try_send(Arc::clone(event)).is_ok());
        }
    }
}

fn node_of(object: &Stored) -> Option<&str> {
    match object.value["kind"].as_str() {
        Some("Pod") => trigger_value("pods", &object.value),
        Some("ResourceSlice") => trigger_value("resourceslices.resource.k8s.io", &object.value),
        Some(_) | None => None,
    }
}

/// An open watch; dropping it unregisters the watcher.
#[derive(Debug)]
pub struct Subscription {
    /// The objects the watch starts with, in key order.
    pub initial: Vec<Arc<Stored>>,
    /// Events between the requested start and now.
    pub history: Vec<Arc<Event>>,
    /// The resource version the watch starts after.
    pub start_version: u64,
    /// Later events; ends when the watcher is dropped by the store.
    pub events: mpsc::Receiver<Arc<Event>>,
    id: u64,
    scope: Scope,
    owner: Weak<Store>,
    storage: String,
}

impl Subscription {
    pub(super) fn new(
        id: u64,
        scope: Scope,
        (initial, history, start_version): (Vec<Arc<Stored>>, Vec<Arc<Event>>, u64),
        events: mpsc::Receiver<Arc<Event>>,
    ) -> Self {
        let (owner, storage) = (Weak::new(), String::new());
        Self {
            initial,
            history,
            start_version,
            events,
            id,
            scope,
            owner,
            storage,
        }
    }

    pub(super) fn owned_by(mut self, store: &Arc<Store>, storage: &str) -> Self {
        self.owner = Arc::downgrade(store);
        storage.clone_into(&mut self.storage);
        self
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(store) = self.owner.upgrade() {
            store.unsubscribe(&self.storage, self.id, &self.scope);
        }
    }
}
