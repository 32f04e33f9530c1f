//! The selectable fields of a resource: which labels a field selector may name, and where their
//! values stand.
//!
//! Owns the set of labels, the tree of paths the decoders walk ([`shape`]), and the apiserver's
//! wording for a label that is not in the set. It refuses to guess: a resource it does not know has
//! an incomplete set, and the caller forwards selectors that name anything else. Values are those
//! of the encoded object, which for every listed label equal the ones the apiserver compares.
//! Invariant: label `i` of the set is field `i` of every object decoded with it.

use std::sync::Arc;

use watershed_quote::quote;

mod builtin;
mod plain;
pub(crate) mod shape;

pub(crate) use builtin::Format;
use builtin::{Builtin, Refusal, Selectable};
use shape::{Capture, FIRST_FIELD, JsonStep, Shape, WireStep};

/// The field labels a resource accepts in selectors, and where their values come from.
#[derive(Debug, PartialEq, Eq)]
pub struct FieldSet {
    labels: Vec<Box<str>>,
    sources: Vec<Source>,
    trigger: Option<usize>,
    refusal: Refusal,
    api_version: Box<str>,
    json: Shape<JsonStep>,
    wire: Shape<WireStep>,
    slots: usize,
}

/// Where the value of one label comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// `metadata.name`
    Name,
    /// `metadata.namespace`
    Namespace,
    /// The first of these slots that is not empty.
    Slots(Vec<usize>, Format),
}

/// `spec.host` is accepted for pods as another name of `spec.nodeName`.
const POD_ALIAS: (&str, &str) = ("spec.host", "spec.nodeName");

impl FieldSet {
    /// The labels of a resource that ships with Kubernetes, as kube-apiserver 1.36 accepts them, or
    /// `None` when this cache does not know the resource.
    pub fn builtin(group: &str, version: &str, resource: &str) -> Option<Arc<Self>> {
        if let Some(row) = builtin::special(group, version, resource) {
            return Some(Arc::new(Self::special(row, version)));
        }
        let refusal = plain::refusal(group, version, resource)?;
        let mut set = Self::new(refusal);
        set.push("metadata.namespace", Source::Namespace);
        Some(Arc::new(set))
    }

    /// The labels of a custom resource: `metadata.name`, `metadata.namespace` if namespaced, and
    /// the `jsonPath`s of the version's `selectableFields`, with their leading dot. A path in
    /// bracket notation or with escapes is left out and makes the set incomplete.
    pub fn custom<'a>(namespaced: bool, paths: impl IntoIterator<Item = &'a str>) -> Arc<Self> {
        let mut set = Self::new(Refusal::NotSupported);
        if namespaced {
            set.push("metadata.namespace", Source::Namespace);
        }
        for path in paths {
            let label = path.strip_prefix('.').unwrap_or(path);
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '/');
            if !label
                .split('.')
                .all(|member| !member.is_empty() && member.chars().all(plain))
            {
                set.refusal = Refusal::Unsure;
                continue;
            }
            let slot = set.slot(json_steps(label));
            set.push(label, Source::Slots(vec![slot], Format::Any));
        }
        Arc::new(set)
    }

    /// For a resource whose labels are not known: `metadata.name` and `metadata.namespace` can be
    /// evaluated, everything else must be forwarded, since the set [is not
    /// complete](Self::is_complete).
    pub fn unknown() -> Arc<Self> {
        let mut set = Self::new(Refusal::Unsure);
        set.push("metadata.namespace", Source::Namespace);
        Arc::new(set)
    }

    /// Whether a label this set does not have is certainly refused by a kube-apiserver 1.36.
    pub fn is_complete(&self) -> bool {
        self.refusal != Refusal::Unsure
    }

    /// Position of a label's value in [`Object::field`](crate::object::Object::field). `spec.host`
    /// of pods is found as `spec.nodeName`.
    pub fn index_of(&self, label: &str) -> Option<usize> {
        let position = |wanted: &str| self.labels.iter().position(|known| **known == *wanted);
        let of_pods = || position("status.podIPs").is_some();
        if label == POD_ALIAS.0 && of_pods() {
            position(POD_ALIAS.1)
        } else {
            position(label)
        }
    }

    /// The labels, without aliases.
    pub fn labels(&self) -> impl ExactSizeIterator<Item = &str> {
        self.labels.iter().map(|label| &**label)
    }

    /// The field events are indexed by, as in the apiserver's cacher: `spec.nodeName` of pods and
    /// resourceslices.
    pub fn trigger(&self) -> Option<usize> {
        self.trigger
    }

    /// The message of the apiserver's 400 for a label that is not in this set; what an apiserver
    /// says is only known when the set [is complete](Self::is_complete).
    pub fn unsupported_text(&self, label: &str) -> String {
        match self.refusal {
            Refusal::NotSupported | Refusal::Unsure => {
                format!("field label not supported: {label}")
            }
            Refusal::NotSupportedFor(kind) => {
                format!("field label {} not supported for {kind}", quote(label))
            }
            Refusal::NotSupportedForKind(kind) => {
                format!(
                    "field label not supported for {}, Kind={kind}: {label}",
                    self.api_version
                )
            }
            Refusal::NotKnown => format!(
                "{} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
                quote(label)
            ),
        }
    }

    pub(crate) fn sources(&self) -> &[Source] {
        &self.sources
    }

    pub(crate) fn json(&self) -> &Shape<JsonStep> {
        &self.json
    }

    pub(crate) fn wire(&self) -> &Shape<WireStep> {
        &self.wire
    }

    /// Number of slots the shapes capture into.
    pub(crate) fn slots(&self) -> usize {
        self.slots
    }

    fn new(refusal: Refusal) -> Self {
        let mut set = Self {
            labels: Vec::new(),
            sources: Vec::new(),
            trigger: None,
            refusal,
            api_version: Box::default(),
            json: shape::json_metadata(),
            wire: shape::wire_metadata(),
            slots: FIRST_FIELD,
        };
        set.push("metadata.name", Source::Name);
        set
    }

    fn special(row: &Builtin, version: &str) -> Self {
        let mut set = Self::new(row.refusal);
        set.api_version = format!("{}/{version}", row.group).into();
        if row.namespace {
            set.push("metadata.namespace", Source::Namespace);
        }
        for field in row.fields {
            set.push_selectable(field);
        }
        set.trigger = row.trigger.and_then(|label| set.index_of(label));
        set
    }

    fn push_selectable(&mut self, field: &Selectable) {
        let mut slots = Vec::with_capacity(field.paths.len());
        for path in field.paths {
            let slot = self.slot(json_steps(path.json));
            self.wire
                .insert(wire_steps(path.wire), Capture::Value(slot));
            slots.push(slot);
        }
        self.push(field.label, Source::Slots(slots, field.format));
    }

    fn push(&mut self, label: &str, source: Source) {
        self.labels.push(label.into());
        self.sources.push(source);
    }

    /// The slot of this path; one path has one slot, however many labels read it.
    fn slot(&mut self, path: Vec<JsonStep>) -> usize {
        match self.json.insert(path, Capture::Value(self.slots)) {
            Capture::Value(slot) if slot < self.slots => slot,
            Capture::Value(_) | Capture::Nothing | Capture::Labels => {
                self.slots += 1;
                self.slots - 1
            }
        }
    }
}

fn json_steps(path: &str) -> Vec<JsonStep> {
    let mut steps = Vec::new();
    for member in path.split('.') {
        let (name, first) = match member.strip_suffix("[0]") {
            Some(name) => (name, true),
            None => (member, false),
        };
        steps.push(JsonStep::Member(name.into()));
        if first {
            steps.push(JsonStep::First);
        }
    }
    steps
}

fn wire_steps(path: &'static [i32]) -> impl Iterator<Item = WireStep> {
    path.iter().map(|&step| WireStep {
        number: step.unsigned_abs(),
        first: step < 0,
    })
}

#[cfg(test)]
mod tests;
