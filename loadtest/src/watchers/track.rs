//! The running check of one watch, over all its streams.
//!
//! Owns the last version and the last beat of every object that carries one. Refuses to hold
//! objects: a hundred thousand watches must fit.
//! Invariant: an event that was lost, doubled or reordered breaks a rule here, or leaves a beat
//! behind that [`Track::is_behind`] tells at the end.

use super::frame::{Beat, Event, Kind};

/// A rule that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// So many events are missing.
    Lost(u64),
    /// An event came again.
    Doubled,
    /// An event or bookmark is older than what came before it.
    Reordered,
}

/// What an event meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// An object of the initial list.
    Initial,
    /// The initial list is complete.
    Synced,
    /// A change.
    Live(Option<Beat>),
    /// A bookmark.
    Bookmark,
    /// The stream is over.
    Failed(u64),
}

/// One watch.
#[derive(Debug, Default)]
pub(super) struct Track {
    version: u64,
    /// (lane, last sequence).
    beats: Vec<(u32, u64)>,
    is_synced: bool,
    is_listing: bool,
}

impl Track {
    /// Where the next stream goes on; none when it has to list.
    pub(super) fn resume(&self) -> Option<u64> {
        self.is_synced.then_some(self.version)
    }

    /// A stream was opened: true when it goes on from a version, false when it lists.
    pub(super) fn opened(&mut self) -> bool {
        self.is_listing = !self.is_synced;
        self.is_synced
    }

    /// The server cannot go on from the version; false when there was none.
    pub(super) fn expire(&mut self) -> bool {
        std::mem::take(&mut self.is_synced)
    }

    /// Takes in an event.
    ///
    /// # Errors
    /// The rule that it breaks. The event counts as seen.
    pub(super) fn event(&mut self, event: &Event) -> Result<Seen, Fault> {
        match event.kind {
            Kind::Error(code) => Ok(Seen::Failed(code)),
            Kind::Bookmark { ends_initial } => {
                let is_back = event.version < self.version;
                self.version = self.version.max(event.version);
                if is_back {
                    return Err(Fault::Reordered);
                }
                if !(self.is_listing && ends_initial) {
                    return Ok(Seen::Bookmark);
                }
                (self.is_listing, self.is_synced) = (false, true);
                Ok(Seen::Synced)
            }
            Kind::Added | Kind::Modified | Kind::Deleted if self.is_listing => self.initial(event),
            Kind::Added | Kind::Modified | Kind::Deleted => self.live(event),
        }
    }

    fn initial(&mut self, event: &Event) -> Result<Seen, Fault> {
        let Some(beat) = event.beat else {
            return Ok(Seen::Initial);
        };
        let last = self.last(beat.lane);
        let is_back = beat.sequence < *last; // older than what this client has seen
        *last = beat.sequence;
        if is_back {
            return Err(Fault::Reordered);
        }
        Ok(Seen::Initial)
    }

    fn live(&mut self, event: &Event) -> Result<Seen, Fault> {
        let order = event.version.cmp(&self.version);
        if order.is_eq() {
            return Err(Fault::Doubled);
        }
        if order.is_lt() {
            return Err(Fault::Reordered);
        }
        self.version = event.version;
        let Some(beat) = event.beat.filter(|_| event.kind != Kind::Deleted) else {
            return Ok(Seen::Live(None));
        };
        let is_known = self.beats.iter().any(|(lane, _)| *lane == beat.lane);
        let last = self.last(beat.lane);
        let expected = *last + 1;
        *last = beat.sequence.max(*last);
        match beat.sequence {
            _ if !is_known => Ok(Seen::Live(Some(beat))),
            sequence if sequence < expected => Err(Fault::Doubled),
            sequence if sequence > expected => Err(Fault::Lost(sequence - expected)),
            _ => Ok(Seen::Live(Some(beat))),
        }
    }

    fn last(&mut self, lane: u32) -> &mut u64 {
        let at = self.beats.iter().position(|(own, _)| *own == lane);
        let at = at.unwrap_or_else(|| {
            self.beats.reserve_exact(1);
            self.beats.push((lane, 0));
            self.beats.len() - 1
        });
        &mut self.beats[at].1
    }

    /// Events that are still to come until every lane it has seen is where `at` says.
    pub(super) fn is_behind(&self, at: impl Fn(u32) -> Option<u64>) -> u64 {
        let behind = |(lane, last): &(u32, u64)| at(*lane).unwrap_or(0).saturating_sub(*last);
        self.beats.iter().map(behind).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: Kind, version: u64, beat: Option<(u32, u64)>) -> Event {
        let beat = beat.map(|(lane, sequence)| Beat {
            lane,
            sequence,
            sent: 1,
        });
        Event {
            kind,
            version,
            beat,
        }
    }

    /// A watch that listed lane 1 at sequence 5, at version 100.
    fn synced() -> Track {
        let mut track = Track::default();
        track.opened();
        let initial = event(Kind::Added, 90, Some((1, 5)));
        assert_eq!(track.event(&initial), Ok(Seen::Initial));
        let end = Kind::Bookmark { ends_initial: true };
        assert_eq!(track.event(&event(end, 100, None)), Ok(Seen::Synced));
        track
    }

    #[test]
    fn every_broken_rule_is_told() {
        for (version, sequence, fault) in [
            (101, 7, Fault::Lost(1)),
            (100, 6, Fault::Doubled),
            (101, 5, Fault::Doubled),
            (99, 6, Fault::Reordered),
        ] {
            let live = event(Kind::Modified, version, Some((1, sequence)));
            assert_eq!(synced().event(&live), Err(fault), "{live:?}");
        }
        let bookmark = Kind::Bookmark {
            ends_initial: false,
        };
        let back = event(bookmark, 99, None);
        assert_eq!(synced().event(&back), Err(Fault::Reordered));
    }

    #[test]
    fn a_resumed_stream_goes_on_where_the_last_one_ended() {
        let mut track = synced();
        let live = event(Kind::Modified, 101, Some((1, 6)));
        assert!(matches!(track.event(&live), Ok(Seen::Live(Some(_)))));
        assert_eq!(track.resume(), Some(101));
        track.opened();
        assert_eq!(track.event(&live), Err(Fault::Doubled));
    }

    #[test]
    fn a_new_list_may_skip_but_not_go_back() {
        for (sequence, wanted) in [(9, Ok(Seen::Initial)), (4, Err(Fault::Reordered))] {
            let mut track = synced();
            assert!(track.expire());
            assert_eq!(track.resume(), None);
            track.opened();
            let listed = event(Kind::Added, 90, Some((1, sequence)));
            assert_eq!(track.event(&listed), wanted);
        }
    }

    #[test]
    fn what_never_came_is_told_at_the_end() {
        let track = synced();
        assert_eq!(track.is_behind(|_| Some(5)), 0);
        assert_eq!(track.is_behind(|_| Some(8)), 3);
        assert_eq!(track.is_behind(|_| None), 0);
    }
}
