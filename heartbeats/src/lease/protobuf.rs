//! Leases in protobuf.
//!
//! Owns the wire format as far as leases use it, and the envelope. What an apiserver's encoder
//! writes once must be there at most once, and what repeats must stand together; other orders and
//! spellings are not understood. Values are compared as they stand, tags of what repeats included.

use super::{Member, Members, Owner, Uid, Unread};
use crate::MicroTime;
use crate::protobuf::{LENGTH, MAGIC, Reader, VARINT, number, put_message, put_varint};

pub(super) fn read(bytes: &[u8]) -> Result<Members<'_>, Unread> {
    let envelope = Envelope::read(bytes)?;
    let mut members = Members::default();
    read_members(envelope.metadata, &mut members, of_metadata)?;
    read_members(envelope.spec, &mut members, of_spec)?;
    Ok(members)
}

/// Where the two parts of a lease stand.
struct Envelope<'a> {
    /// Between the magic and the lease's tag.
    before: &'a [u8],
    /// After the lease.
    after: &'a [u8],
    metadata: &'a [u8],
    spec: &'a [u8],
}

impl<'a> Envelope<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Unread> {
        let unknown = bytes.strip_prefix(MAGIC).ok_or(Unread::Form)?;
        let mut reader = Reader { rest: unknown };
        let (mut kind, mut lease, mut last) = (None, None, 0);
        let (mut before, mut after): (&[u8], &[u8]) = (&[], &[]);
        while !reader.rest.is_empty() {
            let start = unknown.len() - reader.rest.len();
            let field = reader.field()?;
            if field.number <= last {
                return Err(Unread::Doubled);
            }
            last = field.number;
            let place = match field.number {
                1 => &mut kind,
                2 => {
                    before = &unknown[..start];
                    after = reader.rest;
                    &mut lease
                }
                // Encoding and media type of the lease: none but the default.
                3 | 4 if field.value.is_empty() && field.wire == LENGTH => continue,
                _ => return Err(Unread::UnknownMember),
            };
            if place.replace(field.message()?).is_some() {
                return Err(Unread::Doubled);
            }
        }
        if kind != Some(b"\x0a\x16coordination.k8s.io/v1\x12\x05Lease") {
            return Err(Unread::Kind);
        }
        let (mut metadata, mut spec) = (None, None);
        let mut reader = Reader {
            rest: lease.ok_or(Unread::Incomplete)?,
        };
        while !reader.rest.is_empty() {
            let field = reader.field()?;
            let place = match field.number {
                1 if spec.is_none() => &mut metadata,
                2 => &mut spec,
                _ => return Err(Unread::UnknownMember),
            };
            if place.replace(field.message()?).is_some() {
                return Err(Unread::Doubled);
            }
        }
        Ok(Self {
            before,
            after,
            metadata: metadata.ok_or(Unread::Incomplete)?,
            spec: spec.ok_or(Unread::Incomplete)?,
        })
    }
}

/// How a member stands in its message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Number,
    /// A text or a message.
    Sized,
    Repeated,
}

const fn of_metadata(number: u64) -> Option<(Member, Shape)> {
    Some(match number {
        1 => (Member::Name, Shape::Sized),
        2 => (Member::GenerateName, Shape::Sized),
        3 => (Member::Namespace, Shape::Sized),
        4 => (Member::SelfLink, Shape::Sized),
        5 => (Member::Uid, Shape::Sized),
        6 => (Member::ResourceVersion, Shape::Sized),
        7 => (Member::Generation, Shape::Number),
        8 => (Member::CreationTimestamp, Shape::Sized),
        9 => (Member::DeletionTimestamp, Shape::Sized),
        10 => (Member::DeletionGracePeriod, Shape::Number),
        11 => (Member::Labels, Shape::Repeated),
        12 => (Member::Annotations, Shape::Repeated),
        13 => (Member::OwnerReferences, Shape::Repeated),
        14 => (Member::Finalizers, Shape::Repeated),
        17 => (Member::ManagedFields, Shape::Repeated),
        _ => return None,
    })
}

const fn of_spec(number: u64) -> Option<(Member, Shape)> {
    Some(match number {
        1 => (Member::HolderIdentity, Shape::Sized),
        2 => (Member::Duration, Shape::Number),
        3 => (Member::AcquireTime, Shape::Sized),
        4 => (Member::RenewTime, Shape::Sized),
        5 => (Member::Transitions, Shape::Number),
        6 => (Member::Strategy, Shape::Sized),
        7 => (Member::PreferredHolder, Shape::Sized),
        _ => return None,
    })
}

fn read_members<'a>(
    message: &'a [u8],
    members: &mut Members<'a>,
    named: fn(u64) -> Option<(Member, Shape)>,
) -> Result<(), Unread> {
    let mut reader = Reader { rest: message };
    let mut repeating: Option<(Member, usize)> = None;
    while !reader.rest.is_empty() {
        let start = message.len() - reader.rest.len();
        let field = reader.field()?;
        let end = message.len() - reader.rest.len();
        let (member, shape) = named(field.number).ok_or(Unread::UnknownMember)?;
        if (shape == Shape::Number) != (field.wire == VARINT) {
            return Err(Unread::Form);
        }
        match repeating {
            Some((open, from)) if open == member => {
                members.0[member as usize] = Some(&message[from..end]);
            }
            _ if shape == Shape::Repeated => {
                repeating = Some((member, start));
                members.put(member, &message[start..end])?;
            }
            _ => {
                repeating = None;
                members.put(member, field.value)?;
            }
        }
    }
    Ok(())
}

pub(super) fn time(timestamp: &[u8]) -> Option<MicroTime> {
    let mut reader = Reader { rest: timestamp };
    let mut parts = [0; 2];
    for (place, wanted) in parts.iter_mut().zip([1, 2]) {
        let field = reader.field().ok()?;
        (field.number == wanted && field.wire == VARINT).then_some(())?;
        *place = number(field.value)?;
    }
    let [seconds, nanos] = parts;
    MicroTime::from_parts(seconds, nanos).filter(|_time| reader.rest.is_empty())
}

pub(super) fn owner(owners: &[u8]) -> Option<Owner<'_>> {
    let mut outer = Reader { rest: owners };
    let only = outer.field().ok()?;
    outer.rest.is_empty().then_some(())?;
    let (mut name, mut uid, mut kind, mut version) = (None, None, None, None);
    let mut reader = Reader { rest: only.value };
    while !reader.rest.is_empty() {
        let field = reader.field().ok()?;
        let place = match field.number {
            1 => &mut kind,
            3 => &mut name,
            4 => &mut uid,
            5 => &mut version,
            // Whether it is a controller, and whether it blocks.
            6 | 7 => continue,
            _ => return None,
        };
        place
            .replace(field.message().ok()?)
            .is_none()
            .then_some(())?;
    }
    let is_node = kind? == b"Node" && version? == b"v1";
    is_node.then_some(Owner {
        name: name?,
        uid: Uid::parse(uid?)?,
    })
}

pub(super) fn same_fields(here: &[u8], there: &[u8]) -> bool {
    let (Some(here), Some(there)) = (without_times(here), without_times(there)) else {
        return false;
    };
    here == there
}

/// The fields of all entries but their times (number 4), with an empty one after each entry.
fn without_times(entries: &[u8]) -> Option<Vec<(u64, &[u8])>> {
    const TIME: u64 = 4;
    let mut fields = Vec::new();
    let mut outer = Reader { rest: entries };
    while !outer.rest.is_empty() {
        let mut reader = Reader {
            rest: outer.field().ok()?.message().ok()?,
        };
        while !reader.rest.is_empty() {
            let field = reader.field().ok()?;
            let value = field.message().ok()?;
            match field.number {
                TIME => drop(time(value)?),
                number => fields.push((number, value)),
            }
        }
        fields.push((0, &[]));
    }
    Some(fields)
}

pub(super) fn renewed(bytes: &[u8], renew_time: MicroTime) -> Vec<u8> {
    const KNOWN: &str = "the lease was read from the same bytes";
    let envelope = Envelope::read(bytes).expect(KNOWN);
    let (seconds, nanos) = renew_time.parts();
    let mut timestamp = vec![1 << 3];
    put_varint(&mut timestamp, seconds);
    timestamp.push(2 << 3);
    put_varint(&mut timestamp, nanos);

    let mut spec = Vec::with_capacity(envelope.spec.len() + 8);
    let mut reader = Reader {
        rest: envelope.spec,
    };
    while !reader.rest.is_empty() {
        let start = reader.rest;
        let field = reader.field().expect(KNOWN);
        if field.number == 4 {
            put_message(&mut spec, 4, &timestamp);
        } else {
            spec.extend_from_slice(&start[..start.len() - reader.rest.len()]);
        }
    }
    let mut lease = Vec::with_capacity(bytes.len() + 8);
    put_message(&mut lease, 1, envelope.metadata);
    put_message(&mut lease, 2, &spec);
    let mut renewed = Vec::with_capacity(bytes.len() + 16);
    renewed.extend_from_slice(MAGIC);
    renewed.extend_from_slice(envelope.before);
    put_message(&mut renewed, 2, &lease);
    renewed.extend_from_slice(envelope.after);
    renewed
}
