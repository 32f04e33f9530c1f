//! One change of one object, shared by everything that walks the window.
//!
//! Owns the version before and after. It refuses to know who watches: a selection asks
//! [`Event::transition`] what the change means to it. It is shared by all threads and written to by
//! none; the frames built of it live with each worker, in [`recent`](crate::recent).

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use crate::encoding::{EventType, Form};
use crate::interest::KeyRef;
use crate::object::Object;
use crate::resource_version::ResourceVersion;

/// What an event holds besides the objects: itself and its places in the index, bytes. As measured
/// by `tests/memory.rs`.
const OVERHEAD: usize = 232;

/// What happened to the object.
#[derive(Debug)]
pub(crate) enum Change {
    /// The key was free before.
    Created { new: Arc<Object> },
    /// One version replaced another.
    Updated {
        old: Arc<Object>,
        new: Arc<Object>,
        /// Whether it says no more than that a kubelet is alive.
        is_heartbeat: bool,
    },
    /// The key is free now; `last` is the body the apiserver sent, carrying the version of the
    /// deletion.
    Removed { old: Arc<Object>, last: Arc<Object> },
}

/// What one selection sees of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transition {
    Added,
    Modified,
    Deleted,
    Nothing,
}

/// One entry of the window.
#[derive(Debug)]
pub(crate) struct Event {
    resource_version: ResourceVersion,
    change: Change,
    arrived: Instant,
}

impl Event {
    pub(crate) fn new(resource_version: ResourceVersion, change: Change) -> Self {
        Self {
            resource_version,
            change,
            arrived: Instant::now(),
        }
    }

    pub(crate) fn resource_version(&self) -> ResourceVersion {
        self.resource_version
    }

    pub(crate) fn change(&self) -> &Change {
        &self.change
    }

    /// The key of the object.
    pub(crate) fn key(&self) -> &str {
        match &self.change {
            Change::Created { new } | Change::Updated { new, .. } => new.key(),
            Change::Removed { old, .. } => old.key(),
        }
    }

    /// Whether it says no more than that a kubelet is alive.
    pub(crate) fn is_heartbeat(&self) -> bool {
        match self.change {
            Change::Updated { is_heartbeat, .. } => is_heartbeat,
            Change::Created { .. } | Change::Removed { .. } => false,
        }
    }

    /// When the upstream delivered it.
    pub(crate) fn arrived(&self) -> Instant {
        self.arrived
    }

    /// Bytes only the window holds: the version that left the store. The new version belongs to the
    /// store, until a later event takes it out and is charged for it.
    pub(crate) fn memory(&self) -> usize {
        OVERHEAD
            + match &self.change {
                Change::Created { .. } => 0,
                Change::Updated { old, .. } => old.memory(),
                Change::Removed { old, last } => old.memory() + last.memory(),
            }
    }

    /// Calls `visit` with every key a watcher that may care can be registered under. `trigger` is
    /// the field the resource is indexed by: both values count, or the one who loses the object
    /// would never hear of it.
    pub(crate) fn keys(&self, trigger: Option<usize>, mut visit: impl FnMut(KeyRef<'_>)) {
        let (old, new) = match &self.change {
            Change::Created { new } => (None, new),
            Change::Updated { old, new, .. } => (Some(old), new),
            Change::Removed { old, .. } => (None, old),
        };
        visit(KeyRef::Name(new.key()));
        if !new.namespace().is_empty() {
            visit(KeyRef::Namespace(new.namespace()));
        }
        let Some(field) = trigger else { return };
        visit(KeyRef::Field(new.field(field)));
        if let Some(old) = old
            && old.field(field) != new.field(field)
        {
            visit(KeyRef::Field(old.field(field)));
        }
    }

    /// What the change is to someone who sees only objects that `pass`: as apiserver
    /// `cache_watcher.go` `convertToWatchEvent`, 1.36.
    pub(crate) fn transition(&self, pass: impl Fn(&Object) -> bool) -> Transition {
        match &self.change {
            Change::Created { new } if pass(new) => Transition::Added,
            Change::Updated { old, new, .. } => match (pass(old), pass(new)) {
                (true, true) => Transition::Modified,
                (false, true) => Transition::Added,
                (true, false) => Transition::Deleted,
                (false, false) => Transition::Nothing,
            },
            Change::Removed { old, .. } if pass(old) => Transition::Deleted,
            Change::Created { .. } | Change::Removed { .. } => Transition::Nothing,
        }
    }

    /// Builds the whole watch frame for `transition`; `None` for nothing.
    pub(crate) fn frame(&self, form: Form, transition: Transition) -> Option<Bytes> {
        let event_type = match transition {
            Transition::Added => EventType::Added,
            Transition::Modified => EventType::Modified,
            Transition::Deleted => EventType::Deleted,
            Transition::Nothing => return None,
        };
        Some(match (transition, &self.change) {
            // The selection lost sight of it: the old body with the version of this event.
            (Transition::Deleted, Change::Updated { old, .. }) => form.event_frame(
                event_type,
                &old.with_resource_version(self.resource_version),
            ),
            (
                Transition::Added
                | Transition::Modified
                | Transition::Deleted
                | Transition::Nothing,
                Change::Created { new }
                | Change::Updated { new, .. }
                | Change::Removed { last: new, .. },
            ) => form.event_frame(event_type, new),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::Encoding;
    use crate::testing::{pod, rv};

    const JSON: Form = Form::whole(Encoding::Json);

    fn event(change: Change) -> Event {
        Event::new(rv(9), change)
    }

    fn update(old: &str, new: &str) -> Event {
        event(Change::Updated {
            old: Arc::new(pod(old, 7)),
            new: Arc::new(pod(new, 9)),
            is_heartbeat: false,
        })
    }

    fn on_n1(object: &Object) -> bool {
        object.bytes().windows(4).any(|window| window == b"\"n1\"")
    }

    #[test]
    fn transitions_follow_the_apiserver() {
        let [yes, no] = ["a/x @n1", "a/x @n2"];
        let created = |what| {
            event(Change::Created {
                new: Arc::new(pod(what, 9)),
            })
        };
        let removed = |what| {
            let [old, last] = [7, 9].map(|version| Arc::new(pod(what, version)));
            event(Change::Removed { old, last })
        };
        for (event, transition) in [
            (created(yes), Transition::Added),
            (created(no), Transition::Nothing),
            (update(yes, yes), Transition::Modified),
            (update(no, yes), Transition::Added),
            (update(yes, no), Transition::Deleted),
            (update(no, no), Transition::Nothing),
            (removed(yes), Transition::Deleted),
            (removed(no), Transition::Nothing),
        ] {
            assert_eq!(event.transition(on_n1), transition, "{:?}", event.change());
        }
    }

    #[test]
    fn leaving_a_selection_carries_the_old_body_at_the_new_version() {
        let event = update("a/x @n1 +old", "a/x @n2 +new");
        let frame = event.frame(JSON, Transition::Deleted).unwrap();
        let expected = crate::testing::pod_json("a/x @n1 +old", 9);
        assert_eq!(
            frame,
            format!("{{\"type\":\"DELETED\",\"object\":{expected}}}\n").as_bytes()
        );
    }

    #[test]
    fn a_deletion_carries_the_body_the_apiserver_sent() {
        let [old, last] = [pod("a/x", 7), pod("a/x +late", 9)].map(Arc::new);
        let event = event(Change::Removed {
            old,
            last: Arc::clone(&last),
        });
        let frame = event.frame(JSON, Transition::Deleted).unwrap();
        assert!(
            frame
                .windows(last.bytes().len())
                .any(|window| window == last.bytes())
        );
    }
}
