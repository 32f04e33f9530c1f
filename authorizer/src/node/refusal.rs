//! Why the Node authorizer has no opinion, in the words of `node_authorizer.go` (1.36). They end up
//! in the message of a 403.

use std::fmt;

use crate::facts::Source;

/// A reason. Printed only if nobody else allows the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal<'a> {
    /// There is none to be told: no node asks, or no rule is about what it asks for.
    Silent,
    /// A fixed text.
    Text(&'static str),
    /// A node without a name.
    UnknownNode,
    /// No way through the graph.
    Unrelated {
        /// Who asks.
        node: &'a str,
        /// Whose objects could be the way.
        sources: &'static [Source],
    },
    /// A node asked for all nodes.
    AllNodes {
        /// Who asks.
        node: &'a str,
    },
    /// A node asked for another node.
    OtherNode {
        /// Who asks.
        node: &'a str,
        /// For whom.
        other: &'a str,
    },
    /// A verb that no rule about pod certificate requests knows.
    CertificateRequestVerb {
        /// The verb.
        verb: &'a str,
    },
}

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => Ok(()),
            Self::Text(text) => out.write_str(text),
            Self::UnknownNode => out.write_str(r#"unknown node for user "system:node:""#),
            Self::Unrelated { node, .. } => write!(
                out,
                "no relationship found between node '{node}' and this object"
            ),
            Self::AllNodes { node } => write!(
                out,
                "node '{node}' cannot read all nodes, only its own Node object"
            ),
            Self::OtherNode { node, other } => write!(
                out,
                "node '{node}' cannot read '{other}', only its own Node object"
            ),
            Self::CertificateRequestVerb { verb } => {
                write!(out, "nodes may not {verb} podcertificaterequests")
            }
        }
    }
}
