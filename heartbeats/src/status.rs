//! A Node's heartbeat: which patches of its status say nothing but that the kubelet is alive.
//!
//! Owns three things, all on bytes: what a heartbeat-only patch says, what the cached Node says
//! about the same four conditions, and the cached Node with newer times in their places. A kubelet
//! that finds nothing changed sends a strategic merge patch of some 440 bytes with four times in it
//! (as `kubelet_node_status.go`, 1.36), every five minutes unless told otherwise; each costs the
//! store and everybody who watches nodes a whole Node of 15 to 30 KB.
//!
//! Refuses every patch with another member, another spelling or another set of conditions: that
//! is a real one, to be forwarded, and [`fold`] adds to it what was absorbed before. Refuses a
//! cached Node that is not plainly alive: what a kubelet does not say in such a patch is what it
//! takes for stored, so `Unknown`, which no kubelet says, means that it has not yet seen what the
//! store has. Invariant: the answer is the cached Node but for its times; they come from the
//! kubelet, and each is newer than what it replaces.

mod fold;
mod json;
mod patch;
mod protobuf;

use std::ops::Range;
use std::time::Duration;

pub use fold::fold;

use crate::micro_time::time_text;
use crate::{Encoding, Unread};

/// How many conditions a kubelet keeps.
const KEPT: usize = 4;

/// Those conditions, in the order in which kubelets write them.
const TYPES: [&[u8]; KEPT] = [b"MemoryPressure", b"DiskPressure", b"PIDPressure", b"Ready"];

/// Which of [`TYPES`] this is.
fn kept(kind: &[u8]) -> Option<usize> {
    TYPES.iter().position(|known| *known == kind)
}

/// `lastHeartbeatTime` of the conditions `MemoryPressure`, `DiskPressure`, `PIDPressure` and
/// `Ready`, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusTimes([i64; KEPT]);

impl StatusTimes {
    /// Of seconds since 1970; in the order of [`Self`].
    pub const fn from_seconds(seconds: [i64; 4]) -> Self {
        Self(seconds)
    }

    /// Seconds since 1970; in the order of [`Self`].
    pub const fn seconds(self) -> [i64; 4] {
        self.0
    }

    /// Whether each is newer than the other's.
    pub fn is_newer_than(self, other: Self) -> bool {
        self.0
            .iter()
            .zip(other.0)
            .all(|(here, there)| *here > there)
    }

    /// The longest time by which one is newer than the other's.
    pub fn since(self, other: Self) -> Duration {
        let apart = self.0.iter().zip(other.0);
        let longest = apart.map(|(here, there)| here.saturating_sub(there)).max();
        Duration::from_secs(longest.and_then(|it| u64::try_from(it).ok()).unwrap_or(0))
    }
}

/// A patch that says nothing but that the kubelet is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusHeartbeat<'a> {
    /// All conditions the kubelet knows of, in order.
    order: Vec<&'a [u8]>,
    times: StatusTimes,
}

impl<'a> StatusHeartbeat<'a> {
    /// Reads the body of a strategic merge patch; `None` if it may be anything more.
    pub fn read(body: &'a [u8]) -> Option<Self> {
        patch::read(body).ok()
    }
}

/// A heartbeat, and what it would replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRenewal {
    /// What the kubelet says.
    pub times: StatusTimes,
    /// What the cached Node says.
    pub stored: StatusTimes,
}

/// The conditions of a cached Node, where they stand in its bytes.
#[derive(Clone, Debug)]
pub struct NodeStatus<'a> {
    encoding: Encoding,
    bytes: &'a [u8],
    /// The types of all conditions, in order.
    types: Vec<&'a [u8]>,
    kept: [Condition<'a>; KEPT],
    is_being_deleted: bool,
}

/// One condition of those that kubelets keep.
#[derive(Clone, Debug)]
struct Condition<'a> {
    status: &'a [u8],
    /// Seconds since 1970, and where they stand.
    time: i64,
    at: Range<usize>,
}

impl<'a> NodeStatus<'a> {
    /// Reads the conditions of a Node.
    ///
    /// # Errors
    ///
    /// If the bytes are not understood, or one of the four conditions is not there, twice, or
    /// without a time.
    pub fn read(encoding: Encoding, bytes: &'a [u8]) -> Result<Self, Unread> {
        let mut found = Found::default();
        match encoding {
            Encoding::Json => json::read(bytes, &mut found)?,
            Encoding::Protobuf => protobuf::read(bytes, &mut found)?,
        }
        let [Some(memory), Some(disk), Some(pid), Some(ready)] = found.kept else {
            return Err(Unread::Incomplete);
        };
        Ok(Self {
            encoding,
            bytes,
            types: found.types,
            kept: [memory, disk, pid, ready],
            is_being_deleted: found.is_being_deleted,
        })
    }

    /// When the kubelet last said that it was alive, as far as the store knows.
    pub fn times(&self) -> StatusTimes {
        StatusTimes(self.kept.each_ref().map(|condition| condition.time))
    }

    /// What a patch would replace; `None` if it has to be forwarded, because it would change more
    /// than times: the kubelet knows other conditions or another order, or it cannot mean the
    /// status that is cached.
    pub fn compare(&self, heartbeat: &StatusHeartbeat<'_>) -> Option<StatusRenewal> {
        let [pressures @ .., ready] = &self.kept;
        let plain = |status: &[u8]| matches!(status, b"True" | b"False");
        let is_alive = ready.status == b"True" && pressures.iter().all(|it| plain(it.status));
        (is_alive && !self.is_being_deleted && self.types == heartbeat.order).then(|| {
            StatusRenewal {
                times: heartbeat.times,
                stored: self.times(),
            }
        })
    }

    /// The bytes of this Node with other times in its conditions: the answer to a patch that is
    /// absorbed. `None` for times that do not take as many bytes, which is before 1978 and after
    /// 3058.
    pub fn renewed(&self, times: StatusTimes) -> Option<Vec<u8>> {
        let mut renewed = self.bytes.to_vec();
        for (condition, seconds) in self.kept.iter().zip(times.0) {
            let written = match self.encoding {
                Encoding::Json => time_text(seconds).into_bytes(),
                Encoding::Protobuf => protobuf::time(seconds)?,
            };
            let place = &mut renewed[condition.at.clone()];
            (place.len() == written.len()).then(|| place.copy_from_slice(&written))?;
        }
        Some(renewed)
    }
}

/// What a walk through a Node found.
#[derive(Debug, Default)]
struct Found<'a> {
    types: Vec<&'a [u8]>,
    kept: [Option<Condition<'a>>; KEPT],
    is_being_deleted: bool,
}

impl<'a> Found<'a> {
    /// Takes in a condition. Its time is the seconds it says and the bytes that say so, in `whole`.
    fn condition(
        &mut self,
        whole: &'a [u8],
        kind: &'a [u8],
        status: Option<&'a [u8]>,
        time: Option<(i64, &'a [u8])>,
    ) -> Result<(), Unread> {
        if self.types.contains(&kind) {
            return Err(Unread::Doubled);
        }
        self.types.push(kind);
        if let Some(place) = kept(kind) {
            let (seconds, at) = time.ok_or(Unread::Incomplete)?;
            let start = at.as_ptr().addr() - whole.as_ptr().addr();
            self.kept[place] = Some(Condition {
                status: status.ok_or(Unread::Incomplete)?,
                time: seconds,
                at: start..start + at.len(),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
