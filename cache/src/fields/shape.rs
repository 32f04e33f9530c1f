//! What to look for in an object: a small tree of paths.
//!
//! Owns the tree and the meaning of its slots. The JSON scanner and the protobuf reader walk an
//! object once and descend only where the tree does; everything else is skipped. It refuses to know
//! what a value means. Rejected: a list of paths, each looked up on its own, which reads the object
//! once per path.

/// Slots every resource has; the selectable fields follow from [`FIRST_FIELD`].
pub(crate) const NAME: usize = 0;
pub(crate) const NAMESPACE: usize = 1;
pub(crate) const UID: usize = 2;
pub(crate) const RESOURCE_VERSION: usize = 3;
pub(crate) const KIND: usize = 4;
pub(crate) const API_VERSION: usize = 5;
pub(crate) const FIRST_FIELD: usize = 6;

/// What to do with the value a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Capture {
    /// Nothing; the path goes on.
    Nothing,
    /// Keep where it stands, in this slot.
    Value(usize),
    /// It is the map of labels.
    Labels,
}

/// One step from a value to a value inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum JsonStep {
    /// The member of an object.
    Member(Box<str>),
    /// The first element of an array.
    First,
}

/// One step from a protobuf message to a field of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WireStep {
    pub(crate) number: u32,
    /// Whether only the first of a repeated field counts.
    pub(crate) first: bool,
}

/// A node of a [`Shape`].
pub(crate) type NodeId = usize;

/// The node every walk starts from.
pub(crate) const ROOT: NodeId = 0;

/// A tree of paths with steps of type `S`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape<S> {
    nodes: Vec<Node<S>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Node<S> {
    steps: Vec<(S, NodeId)>,
    capture: Capture,
}

impl<S: PartialEq> Shape<S> {
    pub(crate) fn new() -> Self {
        Self {
            nodes: vec![Node {
                steps: Vec::new(),
                capture: Capture::Nothing,
            }],
        }
    }

    /// Captures what `path` leads to, and returns what it is captured as: a path can be captured
    /// only once, so an earlier capture stays.
    pub(crate) fn insert(
        &mut self,
        path: impl IntoIterator<Item = S>,
        capture: Capture,
    ) -> Capture {
        let mut at = ROOT;
        for step in path {
            at = match self.steps(at).iter().find(|(known, _)| *known == step) {
                Some(&(_, next)) => next,
                None => {
                    let next = self.nodes.len();
                    self.nodes.push(Node {
                        steps: Vec::new(),
                        capture: Capture::Nothing,
                    });
                    self.nodes[at].steps.push((step, next));
                    next
                }
            };
        }
        if self.nodes[at].capture == Capture::Nothing {
            self.nodes[at].capture = capture;
        }
        self.nodes[at].capture
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn steps(&self, node: NodeId) -> &[(S, NodeId)] {
        &self.nodes[node].steps
    }

    pub(crate) fn capture(&self, node: NodeId) -> Capture {
        self.nodes[node].capture
    }
}

/// The paths of metadata in JSON.
pub(crate) fn json_metadata() -> Shape<JsonStep> {
    let mut shape = Shape::new();
    let member = |name: &str| JsonStep::Member(name.into());
    shape.insert([member("kind")], Capture::Value(KIND));
    shape.insert([member("apiVersion")], Capture::Value(API_VERSION));
    let metadata = [
        ("name", Capture::Value(NAME)),
        ("namespace", Capture::Value(NAMESPACE)),
        ("uid", Capture::Value(UID)),
        ("resourceVersion", Capture::Value(RESOURCE_VERSION)),
        ("labels", Capture::Labels),
    ];
    for (name, capture) in metadata {
        shape.insert([member("metadata"), member(name)], capture);
    }
    shape
}

/// The paths of metadata in protobuf: `ObjectMeta` is field 1 of every kind.
pub(crate) fn wire_metadata() -> Shape<WireStep> {
    let mut shape = Shape::new();
    let field = |number| WireStep {
        number,
        first: false,
    };
    let metadata = [
        (1, Capture::Value(NAME)),
        (3, Capture::Value(NAMESPACE)),
        (5, Capture::Value(UID)),
        (6, Capture::Value(RESOURCE_VERSION)),
        (11, Capture::Labels),
    ];
    for (number, capture) in metadata {
        shape.insert([field(1), field(number)], capture);
    }
    shape
}
