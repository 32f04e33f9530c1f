//! The parsed form of `types.txt`: messages by index, so that encoding follows numbers, not names.
//!
//! Owns parsing and the lookup of a kind. Every reference between messages is resolved here, once;
//! a mistake in the file is a mistake of this package and panics with its line.

use std::collections::HashMap;

/// All messages and where kinds are among them.
#[derive(Debug)]
pub(super) struct Table {
    messages: Vec<Message>,
    /// kind → its (group and version, message) pairs; few kinds exist in two groups.
    kinds: HashMap<&'static str, Vec<(&'static str, usize)>>,
    schema_props: usize,
}

/// One message.
#[derive(Debug)]
pub(super) struct Message {
    /// Whether it carries `kind` and `apiVersion` in JSON.
    pub(super) is_kind: bool,
    /// In the order of the Go struct, which is the order of JSON.
    pub(super) fields: Vec<Field>,
    /// Indices into `fields`, by descending protobuf number (messages are written backwards).
    pub(super) descending: Vec<usize>,
    /// Protobuf number → index into `fields`.
    pub(super) by_number: Vec<Option<usize>>,
}

/// One field.
#[derive(Debug)]
pub(super) struct Field {
    /// The JSON name; empty when the field's own fields are inlined.
    pub(super) name: &'static str,
    /// The protobuf number; 0 when there is none.
    pub(super) number: u32,
    pub(super) shape: Shape,
    pub(super) scalar: Type,
    pub(super) omit: Omit,
}

/// How many values a field holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Shape {
    One,
    Pointer,
    List,
    Map,
}

/// When JSON leaves a field out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Omit {
    Never,
    /// Go's `omitempty`: never for structs.
    Empty,
    /// Go's `omitzero`.
    Zero,
}

/// What one value of a field is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Type {
    String,
    Bool,
    Int32,
    Int64,
    Double,
    Bytes,
    Time,
    MicroTime,
    Duration,
    Quantity,
    IntOrString,
    FieldsV1,
    RawExtension,
    /// A named list of strings: an array in JSON, a message around one in protobuf.
    Strings,
    /// Arbitrary JSON with a protobuf wrapper.
    Json,
    SchemaOrBool,
    SchemaOrArray,
    SchemaOrStrings,
    /// Arbitrary JSON without a protobuf form.
    Any,
    Message(usize),
}

impl Type {
    /// Whether Go holds it in a struct, which `omitempty` never leaves out.
    pub(super) fn is_struct(self) -> bool {
        match self {
            Self::String | Self::Bool | Self::Int32 | Self::Int64 | Self::Double => false,
            Self::Bytes | Self::Strings | Self::Any => false,
            Self::Time | Self::MicroTime | Self::Duration | Self::Quantity => true,
            Self::IntOrString | Self::FieldsV1 | Self::RawExtension | Self::Json => true,
            Self::SchemaOrBool | Self::SchemaOrArray | Self::SchemaOrStrings => true,
            Self::Message(_) => true,
        }
    }

    fn parse_scalar(name: &str) -> Option<Self> {
        Some(match name {
            "string" => Self::String,
            "bool" => Self::Bool,
            "int32" => Self::Int32,
            "int64" => Self::Int64,
            "double" => Self::Double,
            "bytes" => Self::Bytes,
            "Time" => Self::Time,
            "MicroTime" => Self::MicroTime,
            "Duration" => Self::Duration,
            "Quantity" => Self::Quantity,
            "IntOrString" => Self::IntOrString,
            "FieldsV1" => Self::FieldsV1,
            "RawExtension" => Self::RawExtension,
            "Strings" => Self::Strings,
            "Json" => Self::Json,
            "SchemaOrBool" => Self::SchemaOrBool,
            "SchemaOrArray" => Self::SchemaOrArray,
            "SchemaOrStrings" => Self::SchemaOrStrings,
            "any" => Self::Any,
            _ => return None,
        })
    }
}

impl Table {
    pub(super) fn parse(text: &'static str) -> Self {
        let names = message_names(text);
        let mut messages = Vec::with_capacity(names.len());
        let mut kinds: HashMap<_, Vec<_>> = HashMap::new();
        let (mut package, mut api_version) = ("", "");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let mut words = line.split_whitespace();
            if line.starts_with(' ') {
                let message: &mut Message = messages.last_mut().expect("a field follows a message");
                message
                    .fields
                    .extend(words.map(|word| Field::parse(word, package, &names)));
                continue;
            }
            match (words.next(), words.next()) {
                (Some("package"), Some(name)) => {
                    package = name;
                    api_version = words.next().expect("a package names its version");
                }
                (Some(word @ ("kind" | "type")), Some(name)) => {
                    let is_kind = word == "kind";
                    if is_kind {
                        kinds
                            .entry(name)
                            .or_default()
                            .push((api_version, messages.len()));
                    }
                    messages.push(Message::new(is_kind));
                }
                (None, _) => {}
                _ => panic!("types.txt: {line:?}"),
            }
        }
        messages.iter_mut().for_each(Message::index);
        let schema_props = names[&("apiextensions", "JSONSchemaProps")];
        Self {
            messages,
            kinds,
            schema_props,
        }
    }

    /// The message of a kind. Kinds of `meta.k8s.io` are served under every group and version.
    pub(super) fn kind(&self, api_version: &str, kind: &str) -> Option<usize> {
        let found = self.kinds.get(kind)?;
        let of = |version: &str| found.iter().find(|(known, _)| *known == version);
        of(api_version)
            .or_else(|| of("meta.k8s.io/v1"))
            .map(|(_, message)| *message)
    }

    pub(super) fn message(&self, index: usize) -> &Message {
        &self.messages[index]
    }

    /// The message behind the union types of CRD schemas.
    pub(super) fn schema_props(&self) -> usize {
        self.schema_props
    }
}

impl Message {
    fn new(is_kind: bool) -> Self {
        Self {
            is_kind,
            fields: Vec::new(),
            descending: Vec::new(),
            by_number: Vec::new(),
        }
    }

    fn index(&mut self) {
        let mut descending: Vec<usize> = (0..self.fields.len())
            .filter(|index| self.fields[*index].number > 0)
            .collect();
        descending.sort_by_key(|index| std::cmp::Reverse(self.fields[*index].number));
        let highest = descending
            .first()
            .map_or(0, |index| self.fields[*index].number);
        self.by_number = vec![None; highest as usize + 1];
        for index in &descending {
            self.by_number[self.fields[*index].number as usize] = Some(*index);
        }
        self.descending = descending;
    }
}

impl Field {
    fn parse(
        word: &'static str,
        package: &'static str,
        names: &HashMap<(&'static str, &'static str), usize>,
    ) -> Self {
        let (name, rest) = word.split_once('=').expect("a field has a number");
        let (number, rest) = rest.split_once(':').expect("a field has a type");
        let (rest, omit) = match (rest.strip_suffix("??"), rest.strip_suffix('?')) {
            (Some(rest), _) => (rest, Omit::Zero),
            (None, Some(rest)) => (rest, Omit::Empty),
            (None, None) => (rest, Omit::Never),
        };
        let (shape, rest) = [
            ("*", Shape::Pointer),
            ("[]", Shape::List),
            ("{}", Shape::Map),
        ]
        .into_iter()
        .find_map(|(prefix, shape)| Some((shape, rest.strip_prefix(prefix)?)))
        .unwrap_or((Shape::One, rest));
        let scalar = Type::parse_scalar(rest).unwrap_or_else(|| {
            let (package, message) = rest.split_once('.').unwrap_or((package, rest));
            let found = names.get(&(package, message));
            Type::Message(*found.unwrap_or_else(|| panic!("types.txt: no {rest} in {package}")))
        });
        Self {
            name: if name == "+" { "" } else { name },
            number: number.parse().expect("a field number is a number"),
            shape,
            scalar,
            omit,
        }
    }
}

/// Where each message will be, by package and name.
fn message_names(text: &'static str) -> HashMap<(&'static str, &'static str), usize> {
    let mut names = HashMap::new();
    let mut package = "";
    for line in text.lines() {
        match line.split_once(' ') {
            Some(("package", rest)) => package = rest.split(' ').next().unwrap_or_default(),
            Some(("kind" | "type", name)) => {
                names.insert((package, name), names.len());
            }
            _ => {}
        }
    }
    names
}
