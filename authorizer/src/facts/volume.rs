//! Persistent volumes: the claim, and the secrets a kubelet needs to mount them.
//!
//! Owns the list of places where a volume can mention a secret, and the rule for its namespace (as
//! `pkg/api/v1/persistentvolume/util.go`, 1.36): where the reference may leave it out it is that of
//! the claim, where it may not an empty one stays empty and gives nobody anything. What only the
//! controllers need, to publish and to expand, is left out.

use std::borrow::Cow;

use super::schema::{Message, Sink, inlined, item, message, text, walk};
use super::{FactsError, PersistentVolumeFacts};

/// What a persistent volume says.
pub(super) fn read(object: &[u8]) -> Result<PersistentVolumeFacts<'_>, FactsError> {
    let mut volume = VolumeSink::default();
    walk(object, &PERSISTENT_VOLUME, &mut volume)?;
    Ok(volume.finish())
}

#[derive(Clone, Copy, Debug)]
enum Text {
    Name,
    ReferenceNamespace,
    ReferenceName,
}

#[derive(Clone, Copy, Debug)]
enum Item {
    Claim,
    /// A reference whose namespace is the claim's if it has none.
    Defaulted,
    /// A reference with its own namespace.
    Exact,
}

type Shape = Message<Text, Item>;

static PERSISTENT_VOLUME: Shape = Message(&[
    message("metadata", 1, &Message(&[text("name", 1, Text::Name)])),
    message("spec", 2, &SPEC),
]);

static SPEC: Shape = Message(&[
    inlined(2, &SOURCE),
    item("claimRef", 4, Item::Claim, &OBJECT_REFERENCE),
]);

static SOURCE: Shape = Message(&[
    message(
        "rbd",
        6,
        &Message(&[item("secretRef", 7, Item::Defaulted, &SECRET_REFERENCE)]),
    ),
    message(
        "iscsi",
        7,
        &Message(&[item("secretRef", 10, Item::Defaulted, &SECRET_REFERENCE)]),
    ),
    message(
        "cinder",
        8,
        &Message(&[item("secretRef", 4, Item::Exact, &SECRET_REFERENCE)]),
    ),
    message(
        "cephfs",
        9,
        &Message(&[item("secretRef", 5, Item::Defaulted, &SECRET_REFERENCE)]),
    ),
    message(
        "flexVolume",
        12,
        &Message(&[item("secretRef", 3, Item::Defaulted, &SECRET_REFERENCE)]),
    ),
    item("azureFile", 13, Item::Defaulted, &AZURE_FILE),
    message(
        "scaleIO",
        19,
        &Message(&[item("secretRef", 3, Item::Defaulted, &SECRET_REFERENCE)]),
    ),
    message(
        "storageos",
        21,
        &Message(&[item("secretRef", 5, Item::Exact, &OBJECT_REFERENCE)]),
    ),
    message("csi", 22, &CSI),
]);

static AZURE_FILE: Shape = Message(&[
    text("secretName", 1, Text::ReferenceName),
    text("secretNamespace", 4, Text::ReferenceNamespace),
]);

static CSI: Shape = Message(&[
    item("nodeStageSecretRef", 7, Item::Exact, &SECRET_REFERENCE),
    item("nodePublishSecretRef", 8, Item::Exact, &SECRET_REFERENCE),
    item("nodeExpandSecretRef", 10, Item::Exact, &SECRET_REFERENCE),
]);

static SECRET_REFERENCE: Shape = Message(&[
    text("name", 1, Text::ReferenceName),
    text("namespace", 2, Text::ReferenceNamespace),
]);

static OBJECT_REFERENCE: Shape = Message(&[
    text("namespace", 2, Text::ReferenceNamespace),
    text("name", 3, Text::ReferenceName),
]);

/// What was heard so far.
#[derive(Default)]
struct VolumeSink<'a> {
    name: Cow<'a, str>,
    claim: Option<Reference<'a>>,
    /// Each with whether its namespace is the claim's if it has none.
    secrets: Vec<(bool, Reference<'a>)>,
    reference: Reference<'a>,
}

#[derive(Default)]
struct Reference<'a> {
    namespace: Cow<'a, str>,
    name: Cow<'a, str>,
}

impl<'a> Sink<'a> for VolumeSink<'a> {
    type Text = Text;
    type Item = Item;

    fn text(&mut self, which: Text, text: Cow<'a, str>) {
        match which {
            Text::Name => self.name = text,
            Text::ReferenceNamespace => self.reference.namespace = text,
            Text::ReferenceName => self.reference.name = text,
        }
    }

    fn enter(&mut self, _which: Item) {
        self.reference = Reference::default();
    }

    fn leave(&mut self, which: Item) {
        let reference = std::mem::take(&mut self.reference);
        match which {
            Item::Claim => self.claim = Some(reference),
            Item::Defaulted => self.secrets.push((true, reference)),
            Item::Exact => self.secrets.push((false, reference)),
        }
    }
}

impl<'a> VolumeSink<'a> {
    fn finish(self) -> PersistentVolumeFacts<'a> {
        let name = self.name;
        let Some(claim) = self.claim else {
            let (claim, secrets) = (None, Vec::new());
            return PersistentVolumeFacts {
                name,
                claim,
                secrets,
            };
        };
        let named = |(_, secret): &(bool, Reference<'_>)| !secret.name.is_empty();
        let secrets = self.secrets.into_iter().filter(named);
        let secrets = secrets.map(|(defaulted, secret)| {
            let namespace = if defaulted && secret.namespace.is_empty() {
                claim.namespace.clone()
            } else {
                secret.namespace
            };
            (namespace, secret.name)
        });
        PersistentVolumeFacts {
            name,
            secrets: secrets.collect(),
            claim: Some((claim.namespace, claim.name)),
        }
    }
}
