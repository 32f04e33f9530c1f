//! The newest events as one worker sees them, with the frames it built of them.
//!
//! Owns wrappers of the shared events that only one thread writes to: a frame is built at most once
//! per worker, form and transition, by whoever asks first, and its bytes are shared from then on
//! among that worker's connections. Nothing per delivered event is written to what other threads
//! read. It keeps few events, bounded by their number and the bytes of their frames, and forgets
//! from the old end; the newest stays. Who has not read what is forgotten here finds it in the
//! shared history, whose memory is the objects' bytes once.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::encoding::{Encoding, Extent, Form, MetaVersion};
use crate::event::{Event, Transition};
use crate::window::Sequence;

/// Events kept at most: what a reader that comes to its turn a little late has not read.
pub(crate) const EVENTS_MAX: usize = 512;

/// See the module text.
#[derive(Debug)]
pub(crate) struct Recent {
    events: VecDeque<Framed>,
    /// Sequence of the front.
    first: Sequence,
    /// Frames, and the wrappers themselves.
    bytes: usize,
    bytes_max: usize,
}

/// An event and the frames of it.
#[derive(Debug)]
pub(crate) struct Framed {
    event: Arc<Event>,
    whole: Frames,
    /// Two encodings of two versions; there once somebody asks for one.
    metadata: Option<Box<[Frames; 4]>>,
}

/// The frames of an event in one form.
#[derive(Debug, Default)]
struct Frames {
    added: Option<Bytes>,
    modified: Option<Bytes>,
    deleted: Option<Bytes>,
}

impl Recent {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            events: VecDeque::new(),
            first: 0,
            bytes: 0,
            bytes_max,
        }
    }

    /// Forgets everything; the next event is the one at `first`.
    pub(crate) fn restart(&mut self, first: Sequence) {
        self.events = VecDeque::new();
        self.first = first;
        self.bytes = 0;
    }

    pub(crate) fn push(&mut self, event: Arc<Event>) {
        self.bytes += size_of::<Framed>();
        self.events.push_back(Framed {
            event,
            whole: Frames::default(),
            metadata: None,
        });
        self.trim();
    }

    /// Forgets what is too much.
    pub(crate) fn trim(&mut self) {
        let is_over = |it: &Self| it.events.len() > EVENTS_MAX || it.bytes > it.bytes_max;
        while self.events.len() > 1 && is_over(self) {
            self.forget_oldest();
        }
    }

    /// Forgets what came before the event at `first`.
    pub(crate) fn forget_before(&mut self, first: Sequence) {
        while self.first < first && !self.events.is_empty() {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let oldest = self.events.pop_front();
        self.bytes -= oldest.map_or(0, |oldest| oldest.memory());
        self.first += 1;
    }

    /// Sequence of the oldest event.
    pub(crate) fn first(&self) -> Sequence {
        self.first
    }

    /// Sequence the next event will have.
    pub(crate) fn end(&self) -> Sequence {
        self.first + self.events.len() as u64
    }

    /// Bytes held beyond the objects.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Shows the event at `sequence`, which is here, and the frames that may be built of it.
    pub(crate) fn visit<T>(
        &mut self,
        sequence: Sequence,
        visit: impl FnOnce(&mut Framed) -> (usize, T),
    ) -> T {
        let place = usize::try_from(sequence - self.first).expect("a place in memory");
        let (built, answer) = visit(&mut self.events[place]);
        self.bytes += built;
        answer
    }
}

impl Framed {
    pub(crate) fn event(&self) -> &Event {
        &self.event
    }

    /// The whole watch frame for `transition`, and how many bytes had to be built for it; `None`
    /// for nothing.
    pub(crate) fn frame(&mut self, form: Form, transition: Transition) -> (usize, Option<&Bytes>) {
        let (mut built, frames) = match form.extent {
            Extent::Whole => (0, &mut self.whole),
            Extent::Metadata(version) => {
                let built = match self.metadata {
                    Some(_) => 0,
                    None => size_of::<[Frames; 4]>(),
                };
                let metadata = self.metadata.get_or_insert_default();
                (built, &mut metadata[place(form.encoding, version)])
            }
        };
        let memo = match transition {
            Transition::Added => &mut frames.added,
            Transition::Modified => &mut frames.modified,
            Transition::Deleted => &mut frames.deleted,
            Transition::Nothing => return (built, None),
        };
        if memo.is_none() {
            *memo = self.event.frame(form, transition);
            built += memo.as_ref().map_or(0, Bytes::len);
        }
        (built, memo.as_ref())
    }

    fn memory(&self) -> usize {
        let metadata = self.metadata.as_ref().map_or(0, |frames| {
            size_of_val(&**frames) + frames.iter().map(Frames::bytes).sum::<usize>()
        });
        size_of::<Self>() + self.whole.bytes() + metadata
    }
}

const fn place(encoding: Encoding, version: MetaVersion) -> usize {
    match (encoding, version) {
        (Encoding::Json, MetaVersion::V1) => 0,
        (Encoding::Json, MetaVersion::V1Beta1) => 1,
        (Encoding::Protobuf, MetaVersion::V1) => 2,
        (Encoding::Protobuf, MetaVersion::V1Beta1) => 3,
    }
}

impl Frames {
    fn bytes(&self) -> usize {
        let built = [&self.added, &self.modified, &self.deleted];
        built.into_iter().flatten().map(Bytes::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Change;
    use crate::testing::{pod, rv};

    const JSON: Form = Form::whole(Encoding::Json);

    fn update(old: &str, new: &str, version: u64) -> Arc<Event> {
        let change = Change::Updated {
            old: Arc::new(pod(old, 7)),
            new: Arc::new(pod(new, version)),
            is_heartbeat: false,
        };
        Arc::new(Event::new(rv(version), change))
    }

    /// The frame at `sequence`, built or not.
    fn frame(recent: &mut Recent, sequence: Sequence, form: Form, what: Transition) -> Bytes {
        recent.visit(sequence, |framed| {
            let (built, frame) = framed.frame(form, what);
            (built, frame.cloned().unwrap_or_default())
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_is_built_once_per_form_and_weighed_until_its_event_goes() {
        let mut recent = Recent::new(usize::MAX);
        recent.restart(5);
        recent.push(update("a/x @n1", "a/x @n2", 9));
        recent.push(update("a/x @n2", "a/x @n3", 10));
        let bare = recent.bytes();
        assert!(frame(&mut recent, 5, JSON, Transition::Nothing).is_empty());
        assert_eq!(recent.bytes(), bare);
        let metadata = |version| Form {
            encoding: Encoding::Json,
            extent: Extent::Metadata(version),
        };
        let mut weight = bare + size_of::<[Frames; 4]>();
        let mut seen = Vec::new();
        for (form, transition) in [
            (JSON, Transition::Modified),
            (JSON, Transition::Deleted),
            (metadata(MetaVersion::V1), Transition::Modified),
            (metadata(MetaVersion::V1Beta1), Transition::Modified),
        ] {
            let [first, second] = [(); 2].map(|()| frame(&mut recent, 5, form, transition));
            assert_eq!(first.as_ptr(), second.as_ptr());
            weight += first.len();
            assert!(!seen.contains(&first));
            seen.push(first);
        }
        assert_eq!(recent.bytes(), weight);
        recent.forget_before(6);
        assert_eq!(recent.bytes(), bare / 2);
        assert_eq!((recent.first(), recent.end()), (6, 7));
    }

    #[tokio::test(start_paused = true)]
    async fn number_and_bytes_forget_the_oldest_but_never_the_newest() {
        let mut recent = Recent::new(usize::MAX);
        for version in 1..=2 * EVENTS_MAX as u64 {
            recent.push(update("a/x", "a/x", version));
        }
        assert_eq!(recent.end() - recent.first(), EVENTS_MAX as u64);
        let newest = recent.end() - 1;
        recent.bytes_max = 0;
        frame(&mut recent, newest, JSON, Transition::Modified);
        recent.trim();
        assert_eq!((recent.first(), recent.end()), (newest, newest + 1));
    }
}
