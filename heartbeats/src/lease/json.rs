//! Leases in JSON.
//!
//! Owns the search for where a value ends. Values that nobody reads are not checked: they only
//! count if they equal those of the cached lease, which an apiserver wrote. Escapes in what is
//! read are not understood.

use super::{Member, Members, Owner, Uid, Unread};
use crate::MicroTime;
use crate::micro_time::is_json_time;

/// Deeper values are not looked into.
const DEPTH: usize = 64;

pub(super) fn read(bytes: &[u8]) -> Result<Members<'_>, Unread> {
    let mut scanner = Scanner { rest: bytes };
    let whole = scanner.value()?;
    scanner.skip_space();
    if !scanner.rest.is_empty() {
        return Err(Unread::Form);
    }
    let (mut kind, mut version, mut metadata, mut spec) = (None, None, None, None);
    each_member(whole, |key, value| {
        let place = match key {
            b"kind" => &mut kind,
            b"apiVersion" => &mut version,
            b"metadata" => &mut metadata,
            b"spec" => &mut spec,
            _ => return Err(Unread::UnknownMember),
        };
        place
            .replace(value)
            .map_or(Ok(()), |_twice| Err(Unread::Doubled))
    })?;
    let expected: [Option<&[u8]>; 2] = [Some(br#""Lease""#), Some(br#""coordination.k8s.io/v1""#)];
    if [kind, version] != expected {
        return Err(Unread::Kind);
    }
    let mut members = Members::default();
    let (Some(metadata), Some(spec)) = (metadata, spec) else {
        return Err(Unread::Incomplete);
    };
    each_member(metadata, |key, value| {
        members.put(of_metadata(key).ok_or(Unread::UnknownMember)?, value)
    })?;
    each_member(spec, |key, value| {
        members.put(of_spec(key).ok_or(Unread::UnknownMember)?, value)
    })?;
    Ok(members)
}

const fn of_metadata(key: &[u8]) -> Option<Member> {
    Some(match key {
        b"name" => Member::Name,
        b"generateName" => Member::GenerateName,
        b"namespace" => Member::Namespace,
        b"selfLink" => Member::SelfLink,
        b"uid" => Member::Uid,
        b"resourceVersion" => Member::ResourceVersion,
        b"generation" => Member::Generation,
        b"creationTimestamp" => Member::CreationTimestamp,
        b"deletionTimestamp" => Member::DeletionTimestamp,
        b"deletionGracePeriodSeconds" => Member::DeletionGracePeriod,
        b"labels" => Member::Labels,
        b"annotations" => Member::Annotations,
        b"ownerReferences" => Member::OwnerReferences,
        b"finalizers" => Member::Finalizers,
        b"managedFields" => Member::ManagedFields,
        _ => return None,
    })
}

const fn of_spec(key: &[u8]) -> Option<Member> {
    Some(match key {
        b"holderIdentity" => Member::HolderIdentity,
        b"leaseDurationSeconds" => Member::Duration,
        b"acquireTime" => Member::AcquireTime,
        b"renewTime" => Member::RenewTime,
        b"leaseTransitions" => Member::Transitions,
        b"strategy" => Member::Strategy,
        b"preferredHolder" => Member::PreferredHolder,
        _ => return None,
    })
}

/// The characters of a string, if each stands for itself.
pub(super) fn text(value: &[u8]) -> Option<&[u8]> {
    let [b'"', text @ .., b'"'] = value else {
        return None;
    };
    let plain = |byte: &u8| (0x20..0x7f).contains(byte) && !matches!(byte, b'"' | b'\\');
    text.iter().all(plain).then_some(text)
}

pub(super) fn owner(owners: &[u8]) -> Option<Owner<'_>> {
    let mut only = None;
    let mut count = 0;
    each_element(owners, |owner| {
        count += 1;
        only = Some(owner);
        Ok(())
    })
    .ok()?;
    let (mut name, mut uid, mut kind, mut version) = (None, None, None, None);
    each_member(only.filter(|_| count == 1)?, |key, value| {
        let place = match key {
            b"name" => &mut name,
            b"uid" => &mut uid,
            b"kind" => &mut kind,
            b"apiVersion" => &mut version,
            b"controller" | b"blockOwnerDeletion" => return Ok(()),
            _ => return Err(Unread::UnknownMember),
        };
        place
            .replace(value)
            .map_or(Ok(()), |_twice| Err(Unread::Doubled))
    })
    .ok()?;
    let is_node = kind? == br#""Node""# && version? == br#""v1""#;
    is_node.then_some(Owner {
        name: text(name?)?,
        uid: Uid::parse(text(uid?)?)?,
    })
}

pub(super) fn same_fields(here: &[u8], there: &[u8]) -> bool {
    let (Some(here), Some(there)) = (without_times(here), without_times(there)) else {
        return false;
    };
    here == there
}

/// The members of all entries but their times, with an empty one after each entry.
fn without_times(entries: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut members = Vec::new();
    each_element(entries, |entry| {
        each_member(entry, |key, value| {
            if key != b"time" {
                members.push((key, value));
            } else if !text(value).is_some_and(is_json_time) {
                return Err(Unread::Form);
            }
            Ok(())
        })?;
        members.push((&[], &[]));
        Ok(())
    })
    .ok()?;
    Some(members)
}

pub(super) fn renewed(bytes: &[u8], old: &[u8], renew_time: MicroTime) -> Vec<u8> {
    let start = old.as_ptr().addr() - bytes.as_ptr().addr();
    let new = renew_time.to_json();
    let mut renewed = bytes.to_vec();
    // Without the quotes; both are of one length.
    renewed[start + 1..start + 1 + new.len()].copy_from_slice(new.as_bytes());
    renewed
}

/// Visits the members of an object with their keys as they stand between the quotes.
fn each_member<'a>(
    object: &'a [u8],
    mut visit: impl FnMut(&'a [u8], &'a [u8]) -> Result<(), Unread>,
) -> Result<(), Unread> {
    let mut scanner = Scanner { rest: object };
    scanner.expect(b'{')?;
    if scanner.takes(b'}') {
        return Ok(());
    }
    loop {
        let [b'"', key @ .., b'"'] = scanner.string()? else {
            return Err(Unread::Form);
        };
        scanner.expect(b':')?;
        visit(key, scanner.value()?)?;
        if !scanner.takes(b',') {
            return scanner.expect(b'}');
        }
    }
}

/// Visits the elements of an array.
fn each_element<'a>(
    array: &'a [u8],
    mut visit: impl FnMut(&'a [u8]) -> Result<(), Unread>,
) -> Result<(), Unread> {
    let mut scanner = Scanner { rest: array };
    scanner.expect(b'[')?;
    if scanner.takes(b']') {
        return Ok(());
    }
    loop {
        visit(scanner.value()?)?;
        if !scanner.takes(b',') {
            return scanner.expect(b']');
        }
    }
}

struct Scanner<'a> {
    rest: &'a [u8],
}

impl<'a> Scanner<'a> {
    fn skip_space(&mut self) {
        while let [b' ' | b'\t' | b'\r' | b'\n', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    fn takes(&mut self, wanted: u8) -> bool {
        self.skip_space();
        match self.rest.split_first() {
            Some((&first, rest)) if first == wanted => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn expect(&mut self, wanted: u8) -> Result<(), Unread> {
        self.takes(wanted).then_some(()).ok_or(Unread::Form)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Unread> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Unread::Form)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A string with its quotes.
    fn string(&mut self) -> Result<&'a [u8], Unread> {
        self.skip_space();
        let length = string_length(self.rest).ok_or(Unread::Form)?;
        self.take(length)
    }

    /// Any value, by where it must end.
    fn value(&mut self) -> Result<&'a [u8], Unread> {
        self.skip_space();
        let length = match self.rest.first().ok_or(Unread::Form)? {
            b'"' => string_length(self.rest).ok_or(Unread::Form)?,
            b'{' | b'[' => nested_length(self.rest).ok_or(Unread::Form)?,
            _ => {
                let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
                self.rest.iter().take_while(|byte| plain(byte)).count()
            }
        };
        if length == 0 {
            return Err(Unread::Form);
        }
        self.take(length)
    }
}

/// The length of the string that these bytes begin with.
fn string_length(bytes: &[u8]) -> Option<usize> {
    if bytes.first() != Some(&b'"') {
        return None;
    }
    let mut at = 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            0..0x20 => return None,
            _ => at += 1,
        }
    }
}

/// The length of the object or array that these bytes begin with.
fn nested_length(bytes: &[u8]) -> Option<usize> {
    let mut closers = [0; DEPTH];
    let (mut depth, mut at) = (0, 0);
    loop {
        match bytes.get(at)? {
            b'"' => {
                at += string_length(&bytes[at..])?;
                continue;
            }
            open @ (b'{' | b'[') => {
                // The bracket that closes is two after the one that opens.
                *closers.get_mut(depth)? = open + 2;
                depth += 1;
            }
            close @ (b'}' | b']') => {
                depth -= 1;
                if closers[depth] != *close {
                    return None;
                }
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
}
