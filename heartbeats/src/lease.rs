//! A Lease as bytes: which renewals change nothing but `renewTime`, and the lease renewed.
//!
//! Owns the comparison of a PUT's body with the cached lease, member by member as they stand in the
//! bytes, and the splice of a new `renewTime` into the cached bytes. Nothing is decoded but uid,
//! resource version, duration, times and the owner. Refuses, by [`Unread`] or [`Differs`], whatever
//! it does not understand to the last byte: unknown or doubled members, other spellings of the
//! same value, trailing data. A refusal means "forward", which is always right; so a comparison may
//! fail too often and never too rarely.
//!
//! Two things may differ besides `renewTime`. The resource version may be older: all else is equal,
//! so the writer knows all there is to know. And the `time` of an entry of `managedFields`, which
//! the server moves at every write.

mod json;
mod protobuf;

use crate::MicroTime;

/// How the bytes of a lease are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// A JSON object, of one version and kind; white space around it is allowed.
    Json,
    /// Protobuf in its `k8s\0` envelope.
    Protobuf,
}

/// Why bytes cannot be used as a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// Not of the form that apiservers and their clients write, or cut off.
    #[error("bytes that are not understood")]
    Form,
    /// A member that leases of this version do not have.
    #[error("a member that is not known")]
    UnknownMember,
    /// A member twice.
    #[error("a member that is there twice")]
    Doubled,
    /// Another kind or version.
    #[error("another kind or version")]
    Kind,
    /// Without uid, resource version, duration or renewTime, or not in their usual form.
    #[error("without a usable uid, resource version, duration or renew time")]
    Incomplete,
}

/// Why a body is not a renewal of the cached lease and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Differs {
    /// The body is not understood.
    #[error(transparent)]
    Unread(#[from] Unread),
    /// It is another lease of the same name, or the body does not say which.
    #[error("another uid")]
    Uid,
    /// It changes something else.
    #[error("content besides renewTime")]
    Content,
    /// The writer has seen a newer lease than the cache.
    #[error("a resource version that the cache has not seen")]
    Newer,
}

/// The uid of an object, as its 128 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(u128);

impl Uid {
    /// Of 128 bits that are known to be a uid.
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// The 128 bits.
    pub const fn bits(self) -> u128 {
        self.0
    }

    /// Reads the canonical text: 32 lowercase hexadecimal digits in five groups.
    pub fn parse(text: &[u8]) -> Option<Self> {
        (text.len() == 36).then_some(())?;
        let mut bits = 0;
        for (at, &byte) in text.iter().enumerate() {
            let digit = match (at, byte) {
                (8 | 13 | 18 | 23, b'-') => continue,
                (8 | 13 | 18 | 23, _) => return None,
                (_, b'0'..=b'9') => byte - b'0',
                (_, b'a'..=b'f') => byte - b'a' + 10,
                _ => return None,
            };
            bits = bits << 4 | u128::from(digit);
        }
        Some(Self(bits))
    }
}

/// The Node that owns a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Its uid.
    pub uid: Uid,
}

/// A renewal that changes nothing but `renewTime`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// Of the lease.
    pub uid: Uid,
    /// Of the cached lease; not older than what the writer has seen.
    pub resource_version: u64,
    /// What the kubelet says.
    pub renew_time: MicroTime,
    /// Of the cached lease, seconds.
    pub duration: u32,
}

/// A lease whose bytes are understood.
#[derive(Clone, Debug)]
pub struct Lease<'a> {
    bytes: &'a [u8],
    encoding: Encoding,
    members: Members<'a>,
    uid: Uid,
    resource_version: u64,
    renew_time: MicroTime,
    duration: u32,
}

impl<'a> Lease<'a> {
    /// Reads a lease.
    ///
    /// # Errors
    ///
    /// If a byte of it is not understood, or it lacks what every renewed lease has.
    pub fn read(encoding: Encoding, bytes: &'a [u8]) -> Result<Self, Unread> {
        let members = match encoding {
            Encoding::Json => json::read(bytes)?,
            Encoding::Protobuf => protobuf::read(bytes)?,
        };
        let known = |member| members.value(member).ok_or(Unread::Incomplete);
        let uid = encoding.text(known(Member::Uid)?).and_then(Uid::parse);
        let version = encoding
            .text(known(Member::ResourceVersion)?)
            .and_then(decimal);
        let renew_time = encoding.time(known(Member::RenewTime)?);
        let duration = encoding.number(known(Member::Duration)?);
        Ok(Self {
            uid: uid.ok_or(Unread::Incomplete)?,
            resource_version: version.ok_or(Unread::Incomplete)?,
            renew_time: renew_time.ok_or(Unread::Incomplete)?,
            duration: duration
                .and_then(|seconds| u32::try_from(seconds).ok())
                .filter(|seconds| *seconds > 0)
                .ok_or(Unread::Incomplete)?,
            bytes,
            encoding,
            members,
        })
    }

    /// Which of all leases of this name.
    pub const fn uid(&self) -> Uid {
        self.uid
    }

    /// The upstream's own.
    pub const fn resource_version(&self) -> u64 {
        self.resource_version
    }

    /// What it says about when it was renewed.
    pub const fn renew_time(&self) -> MicroTime {
        self.renew_time
    }

    /// `leaseDurationSeconds`; a kubelet renews after a quarter of it.
    pub const fn duration(&self) -> u32 {
        self.duration
    }

    /// Whether it waits for finalizers.
    pub fn is_being_deleted(&self) -> bool {
        self.members.value(Member::DeletionTimestamp).is_some()
    }

    /// Its owner, if that is one Node and nothing else.
    pub fn owner(&self) -> Option<Owner<'a>> {
        let owners = self.members.value(Member::OwnerReferences)?;
        match self.encoding {
            Encoding::Json => json::owner(owners),
            Encoding::Protobuf => protobuf::owner(owners),
        }
    }

    /// Reads the body of a PUT to the path of this lease, which has to be in the same encoding.
    ///
    /// # Errors
    ///
    /// If it would change anything but `renewTime`, or that cannot be told.
    pub fn compare(&self, body: &[u8]) -> Result<Renewal, Differs> {
        let body = Lease::read(self.encoding, body)?;
        if body.uid != self.uid {
            return Err(Differs::Uid);
        }
        for member in Member::ALL {
            let (here, there) = (self.members.value(member), body.members.value(member));
            let equal = match member {
                Member::RenewTime | Member::ResourceVersion => true,
                Member::ManagedFields => here == there || self.encoding.same_fields(here, there),
                _ => here == there,
            };
            if !equal {
                return Err(Differs::Content);
            }
        }
        if body.resource_version > self.resource_version {
            return Err(Differs::Newer);
        }
        Ok(Renewal {
            uid: self.uid,
            resource_version: self.resource_version,
            renew_time: body.renew_time,
            duration: self.duration,
        })
    }

    /// The bytes of this lease with another `renewTime`: the answer to a renewal that is absorbed,
    /// and the body of one that is written. Resource version and uid are this lease's own.
    pub fn renewed(&self, renew_time: MicroTime) -> Vec<u8> {
        let old = self.members.value(Member::RenewTime);
        let old = old.expect("a lease is read only if it has been renewed");
        match self.encoding {
            Encoding::Json => json::renewed(self.bytes, old, renew_time),
            Encoding::Protobuf => protobuf::renewed(self.bytes, renew_time),
        }
    }
}

impl Encoding {
    /// What a text says, if it stands there as it is.
    fn text(self, value: &[u8]) -> Option<&[u8]> {
        match self {
            Self::Json => crate::json::text(value),
            Self::Protobuf => Some(value),
        }
    }

    fn time(self, value: &[u8]) -> Option<MicroTime> {
        match self {
            Self::Json => MicroTime::from_json(crate::json::text(value)?),
            Self::Protobuf => protobuf::time(value),
        }
    }

    fn number(self, value: &[u8]) -> Option<u64> {
        match self {
            Self::Json => decimal(value),
            Self::Protobuf => crate::protobuf::number(value),
        }
    }

    /// Whether two `managedFields` differ in nothing but when an entry was last written.
    fn same_fields(self, here: Option<&[u8]>, there: Option<&[u8]>) -> bool {
        let (Some(here), Some(there)) = (here, there) else {
            return false;
        };
        match self {
            Self::Json => json::same_fields(here, there),
            Self::Protobuf => protobuf::same_fields(here, there),
        }
    }
}

/// A number as apiservers write it: no sign, no leading zero.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits[0] == b'0' {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// The members that a lease may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Member {
    Name,
    GenerateName,
    Namespace,
    SelfLink,
    Uid,
    ResourceVersion,
    Generation,
    CreationTimestamp,
    DeletionTimestamp,
    DeletionGracePeriod,
    Labels,
    Annotations,
    OwnerReferences,
    Finalizers,
    ManagedFields,
    HolderIdentity,
    Duration,
    AcquireTime,
    RenewTime,
    Transitions,
    Strategy,
    PreferredHolder,
}

impl Member {
    const ALL: [Self; 22] = [
        Self::Name,
        Self::GenerateName,
        Self::Namespace,
        Self::SelfLink,
        Self::Uid,
        Self::ResourceVersion,
        Self::Generation,
        Self::CreationTimestamp,
        Self::DeletionTimestamp,
        Self::DeletionGracePeriod,
        Self::Labels,
        Self::Annotations,
        Self::OwnerReferences,
        Self::Finalizers,
        Self::ManagedFields,
        Self::HolderIdentity,
        Self::Duration,
        Self::AcquireTime,
        Self::RenewTime,
        Self::Transitions,
        Self::Strategy,
        Self::PreferredHolder,
    ];
}

/// The members of one lease, as they stand in its bytes.
#[derive(Clone, Debug, Default)]
struct Members<'a>([Option<&'a [u8]>; Member::ALL.len()]);

impl<'a> Members<'a> {
    const fn value(&self, member: Member) -> Option<&'a [u8]> {
        self.0[member as usize]
    }

    fn put(&mut self, member: Member, value: &'a [u8]) -> Result<(), Unread> {
        match self.0[member as usize].replace(value) {
            None => Ok(()),
            Some(_) => Err(Unread::Doubled),
        }
    }
}

#[cfg(test)]
mod tests;
