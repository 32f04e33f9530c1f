//! The shape of a recording. Unknown keys are refused, so that a recording cannot ask for more than
//! the replay does.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use serde_json::Value;

/// One recorded scenario.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// `group/name`, as the file is called.
    #[serde(skip)]
    pub id: String,
    /// The file's name.
    pub name: String,
    /// The folder's name.
    pub group: String,
    /// What it shows, in one line.
    pub about: String,
    /// The cases it illustrates.
    pub spec: String,
    /// What it touches; `slow` marks those that last.
    pub tags: Vec<String>,
    /// The recorded release.
    pub kubernetes: String,
    /// The server profile: `default`, `restart`, `nowatchlist`, `slow` or `shutdown`.
    pub server: String,
    /// False for samples of a race or a fault.
    pub replayable: bool,
    /// The parts that differ from run to run.
    pub symbols: HashMap<String, Symbol>,
    /// What was done and seen.
    pub steps: Vec<Step>,
}

impl Scenario {
    /// Whether the scenario carries a tag.
    pub fn is_tagged(&self, tag: &str) -> bool {
        self.tags.iter().any(|own| own == tag)
    }
}

/// A value that differs from run to run.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Symbol {
    /// What may vary about it.
    pub kind: SymbolKind,
    /// The recorded value.
    pub value: String,
    /// The step it was first seen in.
    pub step: usize,
    /// For a list's resource version: the symbol it may not be below.
    #[serde(default)]
    pub min: Option<String>,
    /// For a continue token: the key it starts after.
    #[serde(default)]
    pub start: Option<String>,
    /// For a continue token: the symbol of its resource version.
    #[serde(default)]
    pub rv: Option<String>,
    /// For a continue token: its resource version, where that is no symbol.
    #[serde(default)]
    pub rv_literal: Option<i64>,
    /// For a continue token made by the test: its version field.
    #[serde(default)]
    pub v: Option<String>,
    /// Whether the test makes the token.
    #[serde(default)]
    pub minted: bool,
}

/// The kinds of symbols.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum SymbolKind {
    /// The resource version of one write: equal wherever it appears, ordered as recorded.
    Rv,
    /// The resource version of a list or bookmark: bounded below.
    Lrv,
    /// A UID.
    Uid,
    /// A bearer token.
    Jwt,
    /// A continue token.
    Tok,
}

/// One step.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// A request that changes something.
    Write(Exchange),
    /// A request that does not.
    Read(Exchange),
    /// A watch begins, or is refused.
    WatchOpen(Exchange),
    /// What a watch brought since the last look at it.
    WatchEvents(WatchEvents),
    /// The client hangs up.
    WatchClose {
        /// Which watch.
        id: String,
    },
    /// A path is asked for as admin until it answers 200.
    #[serde(rename = "poll_200")]
    Poll200 {
        /// The path.
        path: String,
    },
    /// History is discarded.
    EtcdCompact {
        /// Up to this recorded revision.
        revision: String,
        /// The same as a template.
        revision_t: String,
    },
    /// A new server process on the same storage.
    ServerRestart {
        /// What that means.
        note: String,
    },
    /// A signal to a process; in samples only.
    Signal(Value),
    /// Time passes.
    #[serde(untagged)]
    Sleep {
        /// For so long, in milliseconds.
        sleep_ms: u64,
        /// Why the recording waited.
        #[serde(default)]
        why: String,
    },
}

impl Step {
    /// The request and answer of a step that has one.
    pub fn exchange(&self) -> Option<&Exchange> {
        match self {
            Self::Write(exchange) | Self::Read(exchange) | Self::WatchOpen(exchange) => {
                Some(exchange)
            }
            Self::WatchEvents(_) | Self::WatchClose { .. } | Self::Poll200 { .. } => None,
            Self::EtcdCompact { .. } | Self::ServerRestart { .. } => None,
            Self::Signal(_) | Self::Sleep { .. } => None,
        }
    }

    /// The events of a step that has any.
    pub fn events(&self) -> &[Event] {
        if let Self::WatchEvents(events) = self {
            &events.events
        } else {
            &[]
        }
    }

    /// The watch whose events the step holds.
    pub fn watch(&self) -> Option<&str> {
        if let Self::WatchEvents(events) = self {
            Some(&events.id)
        } else {
            None
        }
    }
}

/// A request and its answer; for a watch that started, the head of the answer.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    /// What later steps call this watch.
    #[serde(default)]
    pub id: String,
    /// Only prepares state: the answer is not under test.
    #[serde(default)]
    pub setup: bool,
    /// The HTTP method.
    pub method: String,
    /// The path and query as recorded.
    pub path: String,
    /// The same as a template.
    #[serde(default)]
    pub path_t: Option<String>,
    /// The client certificate.
    pub as_user: String,
    /// The headers sent.
    pub headers: Vec<(String, String)>,
    /// The body's media type; also among the headers.
    #[serde(default)]
    pub content_type: Option<String>,
    /// The body, where it is text.
    #[serde(default)]
    pub body: Option<String>,
    /// The same as a template.
    #[serde(default)]
    pub body_t: Option<String>,
    /// The body, where it is bytes.
    #[serde(default)]
    pub body_base64: Option<String>,
    /// The answer.
    pub response: Response,
}

/// An answer.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Headers with their values, lower case; repeated ones joined by ` || `.
    pub headers: BTreeMap<String, String>,
    /// Names of further headers.
    pub present: Vec<String>,
    /// How long it took, where that is 900 ms or more.
    #[serde(default)]
    pub elapsed_ms: Option<u64>,
    /// The body, where it is text.
    #[serde(default)]
    pub body_text: Option<String>,
    /// The body, where it is protobuf.
    #[serde(default)]
    pub body_base64: Option<String>,
    /// Where the text varies.
    #[serde(default)]
    pub holes: Vec<Hole>,
    /// The parsed body of a successful write.
    #[serde(default)]
    pub body_json: Option<Value>,
    /// What a protobuf body says.
    #[serde(default)]
    pub pb: Option<Message>,
}

impl Response {
    /// Where the text varies, with what the recording leaves unmarked: ages in a table as YAML.
    pub fn text_holes(&self) -> Vec<Hole> {
        const AGE_CELL: &str = "\n  - 0s\n";
        let mut holes = self.holes.clone();
        let text = self.body_text.as_deref().unwrap_or_default();
        if text.starts_with("apiVersion: meta.k8s.io/") {
            let cells = text.match_indices(AGE_CELL);
            holes.extend(cells.map(|(at, _)| Hole(at + "\n  - ".len(), 2, "age".to_owned())));
            holes.sort_unstable_by_key(|Hole(offset, ..)| *offset);
        }
        holes
    }
}

/// A varying part of a text: byte offset, byte length, symbol or kind.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
pub struct Hole(pub usize, pub usize, pub String);

/// The summary of a protobuf body or frame.
#[derive(Clone, Debug, Deserialize)]
pub struct Message {
    /// The symbol of its resource version.
    #[serde(default)]
    pub rv_sym: Option<String>,
}

/// What a watch brought.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatchEvents {
    /// Which watch.
    pub id: String,
    /// The events, in order.
    pub events: Vec<Event>,
    /// `eof`, `reset`, or none while it goes on.
    pub ended: Option<String>,
    /// Since the watch was opened.
    pub elapsed_ms: u64,
    /// Nothing more came for so long.
    #[serde(default)]
    pub quiet_ms: Option<u64>,
    /// How the transport cut it; not under test.
    #[serde(default)]
    pub chunks_so_far: Option<u64>,
}

/// One event.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK` or `ERROR`.
    pub r#type: String,
    /// `namespace/name`.
    pub key: String,
    /// The recorded resource version.
    #[serde(default)]
    pub rv: Option<String>,
    /// Its symbol.
    #[serde(default)]
    pub rv_sym: Option<String>,
    /// The step in progress when it arrived.
    #[serde(default)]
    pub after_step: Option<usize>,
    /// Since the watch was opened.
    #[serde(default)]
    pub at_ms: Option<u64>,
    /// The frame in JSON.
    #[serde(default)]
    pub raw_text: Option<String>,
    /// The frame in protobuf.
    #[serde(default)]
    pub raw_base64: Option<String>,
    /// Where the text varies.
    #[serde(default)]
    pub holes: Vec<Hole>,
    /// What a protobuf frame says.
    #[serde(default)]
    pub pb: Option<Message>,
}
