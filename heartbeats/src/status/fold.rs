//! What was absorbed goes along with the next real patch.
//!
//! Owns the addition of times to the conditions of a strategic merge patch, within its rules: the
//! list it patches is a subsequence of the order it sets (as `strategicpatch/patch.go`, 1.36).
//! Refuses to touch what the patch says: a member that is there stays as it is, byte by byte.
//! Whatever is not understood, directives above all, is not added to: such a patch goes on as it
//! came, and what was absorbed waits for the next.

use super::patch::{ORDER, types};
use super::{KEPT, StatusTimes, TYPES, kept};
use crate::Unread;
use crate::json::{Scanner, each_element, each_member, text};
use crate::micro_time::time_text;

/// A patch of a Node's status with the times of what was absorbed before, of those conditions that
/// it does not give a time itself. `stored` is what the cached Node says: nothing older is added.
/// `None` if there is nothing to add or nowhere to add it: the patch is forwarded as it is.
pub fn fold(body: &[u8], absorbed: StatusTimes, stored: StatusTimes) -> Option<Vec<u8>> {
    let newer = |place: usize| absorbed.0[place] > stored.0[place];
    let times = std::array::from_fn(|place| newer(place).then_some(absorbed.0[place]));
    times.iter().any(Option::is_some).then_some(())?;
    let place = Place::find(body).ok()?;
    let mut list = Vec::new();
    let elements = place.conditions.map_or(Ok(Vec::new()), elements).ok()?;
    match place.order {
        None => {
            for element in &elements {
                list.push(element.with_time(&times));
            }
            let said = |kind: &[u8]| elements.iter().any(|element| element.kind == kind);
            let unsaid = (0..KEPT).filter(|place| !said(TYPES[*place]));
            list.extend(unsaid.filter_map(|place| heartbeat(place, &times)));
        }
        Some(order) => {
            let mut elements = elements.iter().peekable();
            for kind in types(order).ok()? {
                match elements.next_if(|element| element.kind == kind) {
                    Some(element) => list.push(element.with_time(&times)),
                    None => list.extend(kept(kind).and_then(|place| heartbeat(place, &times))),
                }
            }
            // The list is no subsequence of the order: the apiserver has to say so.
            elements.next().is_none().then_some(())?;
        }
    }
    Some(place.put(body, &list))
}

/// A condition with nothing but a time.
fn heartbeat(place: usize, times: &[Option<i64>; KEPT]) -> Option<Vec<u8>> {
    let kind = std::str::from_utf8(TYPES[place]).expect("types are text");
    let time = time_text(times[place]?);
    Some(format!(r#"{{"lastHeartbeatTime":"{time}","type":"{kind}"}}"#).into_bytes())
}

/// Where conditions stand in a patch, or could.
struct Place<'a> {
    /// Of the status, with its brace.
    status: &'a [u8],
    order: Option<&'a [u8]>,
    conditions: Option<&'a [u8]>,
}

impl<'a> Place<'a> {
    fn find(body: &'a [u8]) -> Result<Self, Unread> {
        let mut scanner = Scanner::new(body);
        let whole = scanner.value()?;
        scanner.end()?;
        let mut status = None;
        each_member(whole, |key, value| match key {
            [b'$', ..] => Err(Unread::UnknownMember),
            b"status" => once(&mut status, value),
            _ => plain(key),
        })?;
        let status = status.ok_or(Unread::Incomplete)?;
        let (mut order, mut conditions) = (None, None);
        each_member(status, |key, value| match key {
            ORDER => once(&mut order, value),
            b"conditions" => once(&mut conditions, value),
            b"$patch" | b"$retainKeys" => Err(Unread::UnknownMember),
            _ => plain(key),
        })?;
        Ok(Self {
            status,
            order,
            conditions,
        })
    }

    /// The patch with this list of conditions.
    fn put(&self, body: &[u8], list: &[Vec<u8>]) -> Vec<u8> {
        let list = [b"[".as_slice(), &list.join(&b','), b"]"].concat();
        let offset = |part: &[u8]| part.as_ptr().addr() - body.as_ptr().addr();
        if let Some(old) = self.conditions {
            let start = offset(old);
            return [&body[..start], &list, &body[start + old.len()..]].concat();
        }
        let start = offset(self.status) + 1;
        let is_empty = Scanner::new(self.status)
            .object(|_, _| Err(Unread::Form))
            .is_ok();
        let comma: &[u8] = if is_empty { b"" } else { b"," };
        let (before, after) = body.split_at(start);
        [before, br#""conditions":"#, &list, comma, after].concat()
    }
}

/// One element of the patched list.
struct Element<'a> {
    kind: &'a [u8],
    bytes: &'a [u8],
    has_time: bool,
}

impl Element<'_> {
    fn with_time(&self, times: &[Option<i64>; KEPT]) -> Vec<u8> {
        let time = kept(self.kind).and_then(|place| times[place]);
        match time.filter(|_| !self.has_time) {
            None => self.bytes.to_vec(),
            Some(seconds) => {
                let added = format!(r#"{{"lastHeartbeatTime":"{}","#, time_text(seconds));
                [added.as_bytes(), &self.bytes[1..]].concat()
            }
        }
    }
}

fn elements(list: &[u8]) -> Result<Vec<Element<'_>>, Unread> {
    let mut elements: Vec<Element<'_>> = Vec::new();
    each_element(list, |bytes| {
        let (mut kind, mut time) = (None, None);
        each_member(bytes, |key, value| match key {
            [b'$', ..] => Err(Unread::UnknownMember),
            b"type" => once(&mut kind, value),
            b"lastHeartbeatTime" => once(&mut time, value),
            _ => plain(key),
        })?;
        let kind = kind.and_then(text).ok_or(Unread::Form)?;
        if elements.iter().any(|element| element.kind == kind) {
            return Err(Unread::Doubled);
        }
        elements.push(Element {
            kind,
            bytes,
            has_time: time.is_some(),
        });
        Ok(())
    })?;
    Ok(elements)
}

fn once<'a>(place: &mut Option<&'a [u8]>, value: &'a [u8]) -> Result<(), Unread> {
    place
        .replace(value)
        .map_or(Ok(()), |_twice| Err(Unread::Doubled))
}

/// A key without escapes is what it looks like.
fn plain(key: &[u8]) -> Result<(), Unread> {
    (!key.contains(&b'\\')).then_some(()).ok_or(Unread::Form)
}
