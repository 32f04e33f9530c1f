//! Pods: the node, and every object a pod mentions.
//!
//! Owns the list of places where a pod can mention a secret, a config map, a claim or a service
//! account (as `pkg/api/v1/pod/util.go` and `graph.go` of the node authorizer, 1.36). A volume has
//! one source, as validation demands; with two, the apiserver would read the first of its own list.

use std::borrow::Cow;

use super::schema::{Message, Sink, inlined, item, keys, message, text, walk};
use super::{FactsError, PodFacts, Reference, Referenced};

/// The annotation of a pod that stands for a static one of its node.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// What a pod says.
pub(super) fn read(object: &[u8]) -> Result<PodFacts<'_>, FactsError> {
    let mut pod = PodSink::default();
    walk(object, &POD, &mut pod)?;
    Ok(pod.finish())
}

#[derive(Clone, Copy, Debug)]
enum Text {
    Namespace,
    Name,
    Annotation,
    Node,
    Mention(Referenced),
    VolumeName,
    ClaimName,
    ClaimObject,
    ClaimTemplate,
    StatusName,
    StatusObject,
}

#[derive(Clone, Copy, Debug)]
enum Item {
    Volume,
    Ephemeral,
    Claim,
    Status,
}

type Shape = Message<Text, Item>;

const SECRET: Text = Text::Mention(Referenced::Secret);
const CONFIG_MAP: Text = Text::Mention(Referenced::ConfigMap);

static POD: Shape = Message(&[
    message("metadata", 1, &METADATA),
    message("spec", 2, &SPEC),
    message("status", 3, &STATUS),
]);

static METADATA: Shape = Message(&[
    text("name", 1, Text::Name),
    text("namespace", 3, Text::Namespace),
    keys("annotations", 12, Text::Annotation),
]);

static SPEC: Shape = Message(&[
    item("volumes", 1, Item::Volume, &VOLUME),
    message("containers", 2, &CONTAINER),
    text(
        "serviceAccountName",
        8,
        Text::Mention(Referenced::ServiceAccount),
    ),
    text("nodeName", 10, Text::Node),
    message("imagePullSecrets", 15, &SECRET_NAME),
    message("initContainers", 20, &CONTAINER),
    message("ephemeralContainers", 34, &EPHEMERAL_CONTAINER),
    item("resourceClaims", 39, Item::Claim, &CLAIM),
]);

static STATUS: Shape = Message(&[
    item("resourceClaimStatuses", 15, Item::Status, &CLAIM_STATUS),
    message("extendedResourceClaimStatus", 18, &EXTENDED_CLAIM_STATUS),
]);

static EPHEMERAL_CONTAINER: Shape = Message(&[inlined(1, &CONTAINER)]);

static CONTAINER: Shape = Message(&[message("env", 7, &ENV), message("envFrom", 19, &ENV_FROM)]);

static ENV: Shape = Message(&[message("valueFrom", 3, &ENV_SOURCE)]);

static ENV_SOURCE: Shape = Message(&[
    message("configMapKeyRef", 3, &IN_CONFIG_MAP),
    message("secretKeyRef", 4, &IN_SECRET),
]);

static ENV_FROM: Shape = Message(&[
    message("configMapRef", 2, &IN_CONFIG_MAP),
    message("secretRef", 3, &IN_SECRET),
]);

/// A `LocalObjectReference` to a secret.
static SECRET_NAME: Shape = Message(&[text("name", 1, SECRET)]);

/// A `LocalObjectReference` to a config map.
static CONFIG_MAP_NAME: Shape = Message(&[text("name", 1, CONFIG_MAP)]);

/// A message that begins with a reference to a secret.
static IN_SECRET: Shape = Message(&[inlined(1, &SECRET_NAME)]);

/// A message that begins with a reference to a config map.
static IN_CONFIG_MAP: Shape = Message(&[inlined(1, &CONFIG_MAP_NAME)]);

static VOLUME: Shape = Message(&[
    text("name", 1, Text::VolumeName),
    inlined(2, &VOLUME_SOURCE),
]);

static VOLUME_SOURCE: Shape = Message(&[
    message("secret", 6, &Message(&[text("secretName", 1, SECRET)])),
    message(
        "iscsi",
        8,
        &Message(&[message("secretRef", 10, &SECRET_NAME)]),
    ),
    message("persistentVolumeClaim", 10, &VOLUME_CLAIM),
    message(
        "rbd",
        11,
        &Message(&[message("secretRef", 7, &SECRET_NAME)]),
    ),
    message(
        "flexVolume",
        12,
        &Message(&[message("secretRef", 3, &SECRET_NAME)]),
    ),
    message(
        "cinder",
        13,
        &Message(&[message("secretRef", 4, &SECRET_NAME)]),
    ),
    message(
        "cephfs",
        14,
        &Message(&[message("secretRef", 5, &SECRET_NAME)]),
    ),
    message("azureFile", 18, &Message(&[text("secretName", 1, SECRET)])),
    message("configMap", 19, &IN_CONFIG_MAP),
    message(
        "scaleIO",
        25,
        &Message(&[message("secretRef", 3, &SECRET_NAME)]),
    ),
    message(
        "projected",
        26,
        &Message(&[message("sources", 1, &PROJECTION)]),
    ),
    message(
        "storageos",
        27,
        &Message(&[message("secretRef", 5, &SECRET_NAME)]),
    ),
    message(
        "csi",
        28,
        &Message(&[message("nodePublishSecretRef", 5, &SECRET_NAME)]),
    ),
    item("ephemeral", 29, Item::Ephemeral, &Message(&[])),
]);

static VOLUME_CLAIM: Shape = Message(&[text(
    "claimName",
    1,
    Text::Mention(Referenced::PersistentVolumeClaim),
)]);

static PROJECTION: Shape = Message(&[
    message("secret", 1, &IN_SECRET),
    message("configMap", 3, &IN_CONFIG_MAP),
]);

static CLAIM: Shape = Message(&[
    text("name", 1, Text::ClaimName),
    text("resourceClaimName", 3, Text::ClaimObject),
    text("resourceClaimTemplateName", 4, Text::ClaimTemplate),
]);

static CLAIM_STATUS: Shape = Message(&[
    text("name", 1, Text::StatusName),
    text("resourceClaimName", 2, Text::StatusObject),
]);

static EXTENDED_CLAIM_STATUS: Shape = Message(&[text(
    "resourceClaimName",
    2,
    Text::Mention(Referenced::ResourceClaim),
)]);

/// What was heard so far.
#[derive(Default)]
struct PodSink<'a> {
    facts: PodFacts<'a>,
    mirror: bool,
    volume: Volume<'a>,
    /// Names of ephemeral volumes; the name of the pod may come later.
    ephemeral: Vec<Cow<'a, str>>,
    claims: Vec<Claim<'a>>,
    statuses: Vec<Status<'a>>,
}

#[derive(Default)]
struct Volume<'a> {
    name: Cow<'a, str>,
    ephemeral: bool,
}

/// An entry of `spec.resourceClaims`.
#[derive(Default)]
struct Claim<'a> {
    name: Cow<'a, str>,
    object: Option<Cow<'a, str>>,
    from_template: bool,
}

/// An entry of `status.resourceClaimStatuses`. It has no object if none was needed.
#[derive(Default)]
struct Status<'a> {
    name: Cow<'a, str>,
    object: Option<Cow<'a, str>>,
}

impl<'a> Sink<'a> for PodSink<'a> {
    type Text = Text;
    type Item = Item;

    fn text(&mut self, which: Text, text: Cow<'a, str>) {
        match which {
            Text::Namespace => self.facts.namespace = text,
            Text::Name => self.facts.name = text,
            Text::Annotation => self.mirror |= text == MIRROR,
            Text::Node => self.facts.node = text,
            Text::Mention(kind) => self.mention(kind, text),
            Text::VolumeName => self.volume.name = text,
            Text::ClaimName => self.claim().name = text,
            Text::ClaimObject => self.claim().object = Some(text),
            Text::ClaimTemplate => self.claim().from_template = true,
            Text::StatusName => self.status().name = text,
            Text::StatusObject => self.status().object = Some(text),
        }
    }

    fn enter(&mut self, which: Item) {
        match which {
            Item::Volume => self.volume = Volume::default(),
            Item::Ephemeral => self.volume.ephemeral = true,
            Item::Claim => self.claims.push(Claim::default()),
            Item::Status => self.statuses.push(Status::default()),
        }
    }

    fn leave(&mut self, which: Item) {
        if matches!(which, Item::Volume) && self.volume.ephemeral {
            self.ephemeral.push(std::mem::take(&mut self.volume.name));
        }
    }
}

impl<'a> PodSink<'a> {
    /// Notes a mention. Nothing can be asked for without a name.
    fn mention(&mut self, kind: Referenced, name: Cow<'a, str>) {
        if !name.is_empty() {
            self.facts.references.push(Reference { kind, name });
        }
    }

    fn claim(&mut self) -> &mut Claim<'a> {
        self.claims.last_mut().expect("a claim was entered")
    }

    fn status(&mut self) -> &mut Status<'a> {
        self.statuses.last_mut().expect("a status was entered")
    }

    fn finish(mut self) -> PodFacts<'a> {
        if self.mirror {
            self.facts.references.clear();
            return self.facts;
        }
        for volume in std::mem::take(&mut self.ephemeral) {
            let name = format!("{}-{volume}", self.facts.name);
            self.mention(Referenced::PersistentVolumeClaim, Cow::Owned(name));
        }
        for claim in std::mem::take(&mut self.claims) {
            let object = match claim.object {
                Some(object) => Some(object),
                None if claim.from_template => self.made_for(&claim.name),
                None => None,
            };
            if let Some(object) = object {
                self.mention(Referenced::ResourceClaim, object);
            }
        }
        self.facts
    }

    /// The claim that was made for the one of this name.
    fn made_for(&self, claim: &str) -> Option<Cow<'a, str>> {
        let status = self.statuses.iter().find(|status| status.name == claim);
        status.and_then(|status| status.object.clone())
    }
}
