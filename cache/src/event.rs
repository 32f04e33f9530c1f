//! One change of one object, shared by everything that walks the window.
//!
//! Owns the version before and after, and the frames built from them. It refuses to know who
//! watches: a selection asks [`Event::transition`] what the change means to it. Each of the three
//! possible frames is built at most once per form, by whoever asks first, and the bytes are shared
//! from then on. Frames of metadata have a place only once somebody asks for one. Built frames are
//! weighed in a counter of the window, so that they count against the history budget; dropping the
//! event gives the weight back.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::time::Instant;

use crate::encoding::{Encoding, EventType, Extent, Form, MetaVersion};
use crate::interest::KeyRef;
use crate::object::Object;
use crate::resource_version::ResourceVersion;

/// What an event holds besides the objects: itself and its places in the index. An estimate,
/// rounded up.
const OVERHEAD: usize = 512;

/// What happened to the object.
#[derive(Debug)]
pub(crate) enum Change {
    /// The key was free before.
    Created { new: Arc<Object> },
    /// One version replaced another.
    Updated { old: Arc<Object>, new: Arc<Object> },
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
    whole: Frames,
    /// Two encodings of two versions.
    metadata: OnceLock<Box<[Frames; 4]>>,
    /// Sum of the built frames of all living events of one window.
    frame_bytes: Arc<AtomicUsize>,
}

/// The frames of an event in one form.
#[derive(Debug, Default)]
struct Frames {
    added: OnceLock<Bytes>,
    modified: OnceLock<Bytes>,
    deleted: OnceLock<Bytes>,
}

impl Event {
    pub(crate) fn new(
        resource_version: ResourceVersion,
        change: Change,
        frame_bytes: &Arc<AtomicUsize>,
    ) -> Self {
        Self {
            resource_version,
            change,
            arrived: Instant::now(),
            whole: Frames::default(),
            metadata: OnceLock::new(),
            frame_bytes: Arc::clone(frame_bytes),
        }
    }

    pub(crate) fn resource_version(&self) -> ResourceVersion {
        self.resource_version
    }

    pub(crate) fn change(&self) -> &Change {
        &self.change
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
            Change::Updated { old, new } => (Some(old), new),
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
            Change::Updated { old, new } => match (pass(old), pass(new)) {
                (true, true) => Transition::Modified,
                (false, true) => Transition::Added,
                (true, false) => Transition::Deleted,
                (false, false) => Transition::Nothing,
            },
            Change::Removed { old, .. } if pass(old) => Transition::Deleted,
            Change::Created { .. } | Change::Removed { .. } => Transition::Nothing,
        }
    }

    /// The whole watch frame for `transition`; `None` for nothing.
    pub(crate) fn frame(&self, form: Form, transition: Transition) -> Option<&Bytes> {
        let frames = self.frames(form);
        let (memo, event_type) = match transition {
            Transition::Added => (&frames.added, EventType::Added),
            Transition::Modified => (&frames.modified, EventType::Modified),
            Transition::Deleted => (&frames.deleted, EventType::Deleted),
            Transition::Nothing => return None,
        };
        Some(memo.get_or_init(|| {
            let frame = match (transition, &self.change) {
                (Transition::Deleted, Change::Removed { last, .. }) => {
                    form.event_frame(event_type, last)
                }
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
            };
            self.frame_bytes.fetch_add(frame.len(), Ordering::Relaxed);
            frame
        }))
    }

    fn frames(&self, form: Form) -> &Frames {
        let Extent::Metadata(version) = form.extent else {
            return &self.whole;
        };
        let metadata = self.metadata.get_or_init(|| {
            self.frame_bytes
                .fetch_add(size_of::<[Frames; 4]>(), Ordering::Relaxed);
            Box::default()
        });
        match (form.encoding, version) {
            (Encoding::Json, MetaVersion::V1) => &metadata[0],
            (Encoding::Json, MetaVersion::V1Beta1) => &metadata[1],
            (Encoding::Protobuf, MetaVersion::V1) => &metadata[2],
            (Encoding::Protobuf, MetaVersion::V1Beta1) => &metadata[3],
        }
    }
}

impl Frames {
    fn bytes(&self) -> usize {
        [&self.added, &self.modified, &self.deleted]
            .into_iter()
            .filter_map(|memo| memo.get())
            .map(Bytes::len)
            .sum()
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let metadata = self.metadata.get().map_or(0, |frames| {
            size_of_val(&**frames) + frames.iter().map(Frames::bytes).sum::<usize>()
        });
        self.frame_bytes
            .fetch_sub(self.whole.bytes() + metadata, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{pod, rv};

    const JSON: Form = Form::whole(Encoding::Json);

    fn event(change: Change) -> (Event, Arc<AtomicUsize>) {
        let frame_bytes = Arc::default();
        (Event::new(rv(9), change, &frame_bytes), frame_bytes)
    }

    fn update(old: &str, new: &str) -> (Event, Arc<AtomicUsize>) {
        event(Change::Updated {
            old: Arc::new(pod(old, 7)),
            new: Arc::new(pod(new, 9)),
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
            .0
        };
        let removed = |what| {
            let [old, last] = [7, 9].map(|version| Arc::new(pod(what, version)));
            event(Change::Removed { old, last }).0
        };
        for (event, transition) in [
            (created(yes), Transition::Added),
            (created(no), Transition::Nothing),
            (update(yes, yes).0, Transition::Modified),
            (update(no, yes).0, Transition::Added),
            (update(yes, no).0, Transition::Deleted),
            (update(no, no).0, Transition::Nothing),
            (removed(yes), Transition::Deleted),
            (removed(no), Transition::Nothing),
        ] {
            assert_eq!(event.transition(on_n1), transition, "{:?}", event.change());
        }
    }

    #[test]
    fn leaving_a_selection_carries_the_old_body_at_the_new_version() {
        let (event, _) = update("a/x @n1 +old", "a/x @n2 +new");
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
        let (event, _) = event(Change::Removed {
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

    #[test]
    fn a_frame_is_built_once_and_weighed_while_the_event_lives() {
        let (event, frame_bytes) = update("a/x @n1", "a/x @n2");
        assert_eq!(event.frame(JSON, Transition::Nothing), None);
        assert_eq!(frame_bytes.load(Ordering::Relaxed), 0);
        let first = event.frame(JSON, Transition::Modified).unwrap().clone();
        let second = event.frame(JSON, Transition::Modified).unwrap();
        assert_eq!(first.as_ptr(), second.as_ptr());
        let left = event.frame(JSON, Transition::Deleted).unwrap().len();
        assert_eq!(frame_bytes.load(Ordering::Relaxed), first.len() + left);
        drop(event);
        assert_eq!(frame_bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn frames_of_metadata_are_built_once_per_form_and_weighed() {
        let (event, frame_bytes) = update("a/x @n1", "a/x @n1 +new");
        let form = |version| Form {
            encoding: Encoding::Json,
            extent: Extent::Metadata(version),
        };
        let whole = event.frame(JSON, Transition::Modified).unwrap().len();
        let frames = [MetaVersion::V1, MetaVersion::V1Beta1].map(|version| {
            let first = event.frame(form(version), Transition::Modified).unwrap();
            let second = event.frame(form(version), Transition::Modified).unwrap();
            assert_eq!(first.as_ptr(), second.as_ptr());
            first.clone()
        });
        assert_ne!(frames[0], frames[1]);
        let weight = whole + frames[0].len() + frames[1].len() + size_of::<[Frames; 4]>();
        assert_eq!(frame_bytes.load(Ordering::Relaxed), weight);
        drop(event);
        assert_eq!(frame_bytes.load(Ordering::Relaxed), 0);
    }
}
