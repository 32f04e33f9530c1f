//! Objects of which only the node matters: volume attachments, resource slices, pod certificate
//! requests.

use std::borrow::Cow;
use std::convert::Infallible;

use super::schema::{Message, Sink, message, text, walk};
use super::{FactsError, NodeFacts};

/// What such an object says.
pub(super) fn read<'a>(
    object: &'a [u8],
    shape: &'static Shape,
) -> Result<NodeFacts<'a>, FactsError> {
    let mut facts = NodeFacts::default();
    walk(object, shape, &mut facts)?;
    Ok(facts)
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Text {
    Namespace,
    Name,
    Node,
}

pub(super) type Shape = Message<Text, Infallible>;

/// `storage.k8s.io`, v1
pub(super) static VOLUME_ATTACHMENT: Shape = Message(&[
    message("metadata", 1, &CLUSTER_METADATA),
    message("spec", 2, &Message(&[text("nodeName", 3, Text::Node)])),
]);

/// `resource.k8s.io`, v1beta1 to v1
pub(super) static RESOURCE_SLICE: Shape = Message(&[
    message("metadata", 1, &CLUSTER_METADATA),
    message("spec", 2, &Message(&[text("nodeName", 3, Text::Node)])),
]);

/// `certificates.k8s.io`, v1alpha1 and v1beta1
pub(super) static POD_CERTIFICATE_REQUEST: Shape = Message(&[
    message("metadata", 1, &METADATA),
    message("spec", 2, &Message(&[text("nodeName", 6, Text::Node)])),
]);

/// Of what has no namespace.
static CLUSTER_METADATA: Shape = Message(&[text("name", 1, Text::Name)]);

static METADATA: Shape = Message(&[
    text("name", 1, Text::Name),
    text("namespace", 3, Text::Namespace),
]);

impl<'a> Sink<'a> for NodeFacts<'a> {
    type Text = Text;
    type Item = Infallible;

    fn text(&mut self, which: Text, text: Cow<'a, str>) {
        match which {
            Text::Namespace => self.namespace = text,
            Text::Name => self.name = text,
            Text::Node => self.node = text,
        }
    }

    fn enter(&mut self, which: Infallible) {
        match which {}
    }

    fn leave(&mut self, which: Infallible) {
        match which {}
    }
}
