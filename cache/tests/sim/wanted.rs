//! What clients ask for, every kind of selector, decided by a few naive comparisons.

use watershed_cache::selector::{FieldSelector, LabelSelector};
use watershed_cache::{Resource, Selection};

use crate::thing::{Form, Thing};

/// One selection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// Whether heartbeats are nothing to who asks.
    pub(crate) is_quiet: bool,
    namespace: Option<&'static str>,
    name: Option<&'static str>,
    fields: &'static [(Field, Is, &'static str)],
    labels: &'static [Term],
}

#[derive(Clone, Copy, Debug)]
enum Field {
    Node,
    Phase,
    Name,
    Namespace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    Equal,
    Other,
}

#[derive(Clone, Copy, Debug)]
enum Term {
    Equals(&'static str, &'static str),
    NotEquals(&'static str, &'static str),
    In(&'static str, &'static [&'static str]),
    NotIn(&'static str, &'static [&'static str]),
    Exists(&'static str),
    Absent(&'static str),
    Above(&'static str, i64),
    Below(&'static str, i64),
}

use Field::{Name, Namespace, Node, Phase};
use Is::{Equal, Other};
use Term::{Above, Absent, Below, Equals, Exists, In, NotEquals, NotIn};

const ALL: Wanted = Wanted {
    is_quiet: false,
    namespace: None,
    name: None,
    fields: &[],
    labels: &[],
};

const fn within(namespace: &'static str) -> Wanted {
    Wanted {
        namespace: Some(namespace),
        ..ALL
    }
}

const fn fields(fields: &'static [(Field, Is, &'static str)]) -> Wanted {
    Wanted { fields, ..ALL }
}

const fn labels(labels: &'static [Term]) -> Wanted {
    Wanted { labels, ..ALL }
}

/// Every kind: cluster-wide, namespace, name, the field events are indexed by, other fields, every
/// label operator, and combinations. The first selects everything.
pub(crate) const WANTED: [Wanted; 29] = [
    ALL,
    within("a"),
    within("a-b"),
    within("nowhere"),
    Wanted {
        name: Some("p3"),
        ..within("b")
    },
    Wanted {
        name: Some("p3"),
        ..ALL
    },
    fields(&[(Node, Equal, "n1")]),
    fields(&[(Node, Equal, "")]),
    fields(&[(Node, Other, "n1")]),
    fields(&[(Phase, Equal, "Running")]),
    fields(&[(Phase, Other, "Running")]),
    fields(&[(Name, Equal, "p2")]),
    fields(&[(Namespace, Equal, "a"), (Name, Other, "p2")]),
    fields(&[(Node, Equal, "n1"), (Phase, Equal, "Running")]),
    fields(&[(Node, Equal, "n1"), (Node, Equal, "n2")]),
    labels(&[Equals("app", "web")]),
    labels(&[NotEquals("app", "web")]),
    labels(&[In("app", &["web", "db"])]),
    labels(&[NotIn("app", &["web", "db"])]),
    labels(&[Exists("tier")]),
    labels(&[Absent("tier")]),
    labels(&[Above("weight", 2)]),
    labels(&[Below("weight", 3)]),
    labels(&[Exists("weight"), Equals("app", "db"), Absent("tier")]),
    Wanted {
        fields: &[(Node, Equal, "n2")],
        ..within("a")
    },
    Wanted {
        fields: &[(Node, Equal, "n2")],
        ..labels(&[Equals("app", "web")])
    },
    Wanted {
        namespace: Some("b"),
        fields: &[(Node, Equal, ""), (Phase, Other, "Failed")],
        ..labels(&[In("app", &["db"])])
    },
    Wanted {
        name: Some("p1"),
        fields: &[(Node, Equal, "n1")],
        ..within("a")
    },
    Wanted {
        name: Some("p4"),
        labels: &[NotIn("tier", &["front"])],
        ..within("a-b")
    },
];

impl Wanted {
    /// The same by somebody who may do without heartbeats.
    pub(crate) const fn or_quiet(self, is_quiet: bool) -> Self {
        Self { is_quiet, ..self }
    }

    pub(crate) fn selects(&self, thing: &Thing) -> bool {
        self.namespace
            .is_none_or(|wanted| wanted == thing.namespace)
            && self.name.is_none_or(|wanted| wanted == thing.name)
            && self.fields.iter().all(|(field, is, value)| {
                let found = match field {
                    Node => thing.node,
                    Phase => thing.phase,
                    Name => &thing.name,
                    Namespace => thing.namespace,
                };
                (found == *value) == (*is == Equal)
            })
            && self.labels.iter().all(|term| term.holds(thing))
    }

    /// Whether it narrows by anything that `remainingItemCount` is not counted under.
    pub(crate) const fn is_filtered(&self) -> bool {
        !self.fields.is_empty() || !self.labels.is_empty()
    }

    pub(crate) const fn is_one_object(&self) -> bool {
        self.name.is_some()
    }

    pub(crate) const fn namespace(&self) -> Option<&'static str> {
        self.namespace
    }

    /// The same as the cache takes it.
    pub(crate) fn selection(&self, form: Form, resource: &Resource) -> Selection {
        let fields: Vec<_> = self
            .fields
            .iter()
            .map(|(field, is, value)| {
                let label = match (field, form) {
                    (Node, Form::Custom) => "spec.node",
                    (Node, Form::Json | Form::Protobuf) => "spec.nodeName",
                    (Phase, _) => "status.phase",
                    (Name, _) => "metadata.name",
                    (Namespace, _) => "metadata.namespace",
                };
                let operator = if *is == Equal { "=" } else { "!=" };
                format!("{label}{operator}{value}")
            })
            .collect();
        let labels: Vec<_> = self.labels.iter().map(Term::text).collect();
        let fields = FieldSelector::parse(&fields.join(",")).expect("a field selector");
        Selection {
            namespace: self.namespace.map(Into::into),
            name: self.name.map(Into::into),
            labels: LabelSelector::parse(&labels.join(",")).expect("a label selector"),
            fields: fields.bind(&resource.fields).expect("known fields"),
        }
    }
}

impl Term {
    fn holds(&self, thing: &Thing) -> bool {
        let value = |key| thing.labels.get(key).copied();
        let number = |key| value(key).and_then(|value| value.parse::<i64>().ok());
        match *self {
            Equals(key, wanted) => value(key) == Some(wanted),
            NotEquals(key, wanted) => value(key) != Some(wanted),
            In(key, wanted) => value(key).is_some_and(|value| wanted.contains(&value)),
            NotIn(key, wanted) => value(key).is_none_or(|value| !wanted.contains(&value)),
            Exists(key) => value(key).is_some(),
            Absent(key) => value(key).is_none(),
            Above(key, bound) => number(key).is_some_and(|number| number > bound),
            Below(key, bound) => number(key).is_some_and(|number| number < bound),
        }
    }

    fn text(&self) -> String {
        match *self {
            Equals(key, value) => format!("{key}={value}"),
            NotEquals(key, value) => format!("{key}!={value}"),
            In(key, values) => format!("{key} in ({})", values.join(",")),
            NotIn(key, values) => format!("{key} notin ({})", values.join(",")),
            Exists(key) => key.to_owned(),
            Absent(key) => format!("!{key}"),
            Above(key, bound) => format!("{key}>{bound}"),
            Below(key, bound) => format!("{key}<{bound}"),
        }
    }
}
