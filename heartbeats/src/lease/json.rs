//! Leases in JSON.
//!
//! Owns which members a lease has. Values that nobody reads are not checked: they only count if
//! they equal those of the cached lease, which an apiserver wrote.

use super::{Member, Members, Owner, Uid, Unread};
use crate::MicroTime;
use crate::json::{Scanner, each_element, each_member, text};
use crate::micro_time::is_json_time;

pub(super) fn read(bytes: &[u8]) -> Result<Members<'_>, Unread> {
    let mut scanner = Scanner::new(bytes);
    let whole = scanner.value()?;
    scanner.end()?;
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
