//! Objects, lists and frames as bytes, in any format a client negotiated.
//!
//! Owns the choice between typed and custom encodings, partial metadata, and Tables around the
//! cells of `table`; the bytes of typed objects come from `schema`. Refuses to choose a format.
//! Invariant: an object is encoded once per (served resource, form) and the bytes are shared by
//! every list and watcher.

use bytes::Bytes;
use serde_json::{Value, json};

use super::convert;
use super::negotiate::{Format, Media, Transform};
use super::resources::Resource;
use super::schema::{self, ListMeta, Schema, SchemaError};
use super::status::Status;
use super::store::{Event, EventType, Form, FrameKey, RenderKey, Stored};
use super::{table, yaml};

mod tables;

pub use tables::{IncludeObject, TableFrames};

const META: &str = "meta.k8s.io/v1";

impl From<SchemaError> for Status {
    fn from(error: SchemaError) -> Self {
        Self::unknown(error.to_string())
    }
}

fn meta_version(v1: bool) -> &'static str {
    if v1 { META } else { "meta.k8s.io/v1beta1" }
}

/// An object's bytes in one form, made once.
pub fn form(resource: &Resource, object: &Stored, form: Form) -> Result<Bytes, Status> {
    let key = RenderKey {
        resource: resource.id,
        form,
    };
    let bytes = object.rendered(key, |value| encode(resource, value, form))?;
    Ok(bytes)
}

/// A value in one form, not remembered.
pub fn encode(resource: &Resource, value: &Value, form: Form) -> Result<Vec<u8>, SchemaError> {
    let schema = Schema::builtin();
    let (api_version, kind) = (resource.api_version(), resource.kind.as_str());
    match form {
        Form::PartialJson(v1) => {
            let partial = json!({"metadata": value["metadata"]});
            let kind = "PartialObjectMetadata";
            let bytes = schema.json(META, kind, &partial)?;
            Ok(if v1 { bytes } else { with_beta_version(&bytes) })
        }
        Form::PartialProtobuf(_) => {
            let partial = json!({"metadata": value["metadata"]});
            schema.protobuf(META, "PartialObjectMetadata", &partial)
        }
        Form::Json | Form::JsonItem if resource.custom.is_some() => {
            Ok(schema::sorted_json(&convert::to_served(resource, value)))
        }
        Form::Json => schema.json(&api_version, kind, &convert::to_served(resource, value)),
        Form::JsonItem => {
            schema.json_item(&api_version, kind, &convert::to_served(resource, value))
        }
        Form::Protobuf => schema.protobuf(&api_version, kind, &convert::to_served(resource, value)),
    }
}

fn with_beta_version(bytes: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(bytes);
    text.replacen("\"meta.k8s.io/v1\"", "\"meta.k8s.io/v1beta1\"", 1)
        .into_bytes()
}

/// The body of a single object.
pub fn object(
    resource: &Resource,
    object: &Stored,
    format: Format,
    include: IncludeObject,
) -> Result<Vec<u8>, Status> {
    match format.transform {
        Transform::None => match format.media {
            Media::Json | Media::Yaml => finish_json(&form(resource, object, Form::Json)?, format),
            Media::Protobuf => {
                let raw = form(resource, object, Form::Protobuf)?;
                Ok(schema::envelope(
                    &resource.api_version(),
                    &resource.kind,
                    &raw,
                ))
            }
        },
        Transform::Partial(v1) => match format.media {
            Media::Json | Media::Yaml => {
                finish_json(&form(resource, object, Form::PartialJson(v1))?, format)
            }
            Media::Protobuf => {
                let raw = form(resource, object, Form::PartialProtobuf(v1))?;
                Ok(schema::envelope(
                    meta_version(v1),
                    "PartialObjectMetadata",
                    &raw,
                ))
            }
        },
        Transform::PartialList(_) if resource.custom.is_some() => {
            Err(Status::unknown("content is not a list"))
        }
        Transform::PartialList(_) => Err(Status::not_acceptable(format!(
            "you requested PartialObjectMetadataList, but the requested object is not a list ({})",
            resource.go_type()
        ))),
        Transform::Table(v1) => {
            let meta = ListMeta {
                resource_version: object.resource_version.to_string(),
                ..ListMeta::default()
            };
            let json = tables::table(resource, &meta, &[object], (v1, include, true))?;
            finish_json(&json, format)
        }
    }
}

/// The body of a list.
pub fn list(
    resource: &Resource,
    meta: &ListMeta,
    objects: &[std::sync::Arc<Stored>],
    format: Format,
    include: IncludeObject,
) -> Result<Vec<u8>, Status> {
    let forms = |wanted: Form| -> Result<Vec<Bytes>, Status> {
        objects
            .iter()
            .map(|object| form(resource, object, wanted))
            .collect()
    };
    fn slices(items: &[Bytes]) -> impl Iterator<Item = &[u8]> {
        items.iter().map(|item| &item[..])
    }
    let (api_version, kind) = (resource.api_version(), resource.list_kind());
    let partial_kind = "PartialObjectMetadataList";
    match (format.transform, format.media) {
        (Transform::None, Media::Protobuf) => {
            let items = forms(Form::Protobuf)?;
            Ok(schema::list_protobuf(
                &api_version,
                &kind,
                meta,
                slices(&items),
            ))
        }
        (Transform::None, Media::Json | Media::Yaml) if resource.custom.is_some() => {
            let items = forms(Form::Json)?;
            let json = schema::custom_list_json(&api_version, &kind, meta, slices(&items));
            finish_json(&json, format)
        }
        (Transform::None, Media::Json | Media::Yaml) => {
            let items = forms(Form::JsonItem)?;
            let json = schema::list_json(&api_version, &kind, meta, slices(&items));
            finish_json(&json, format)
        }
        (Transform::PartialList(v1), Media::Protobuf) => {
            let items = forms(Form::PartialProtobuf(v1))?;
            Ok(schema::list_protobuf(
                meta_version(v1),
                partial_kind,
                meta,
                slices(&items),
            ))
        }
        (Transform::PartialList(v1), Media::Json | Media::Yaml) => {
            let items = forms(Form::PartialJson(v1))?;
            let json = schema::list_json(meta_version(v1), partial_kind, meta, slices(&items));
            finish_json(&json, format)
        }
        (Transform::Partial(_), _) => Err(Status::not_acceptable(format!(
            "you requested PartialObjectMetadata, but the requested object is a list ({})",
            resource.go_list_type()
        ))),
        (Transform::Table(v1), _) => {
            let objects: Vec<&Stored> = objects.iter().map(|object| &**object).collect();
            let json = tables::table(resource, meta, &objects, (v1, include, true))?;
            finish_json(&json, format)
        }
    }
}

/// The body of an object that is not stored: reviews, scales, discovery documents.
pub fn value(value: &Value, format: Format) -> Result<Vec<u8>, Status> {
    let text = |key: &str| value[key].as_str().unwrap_or("");
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let schema = Schema::builtin();
    let known = schema.knows(api_version, kind);
    match format.media {
        Media::Protobuf if known => {
            let raw = schema.protobuf(api_version, kind, value)?;
            Ok(schema::envelope(api_version, kind, &raw))
        }
        Media::Json | Media::Yaml | Media::Protobuf => {
            let json = if known {
                schema.json(api_version, kind, value)?
            } else {
                schema::sorted_json(value)
            };
            finish_json(&json, format)
        }
    }
}

/// The body of a Status; `None` is the indented JSON of a failed negotiation.
pub fn status(status: &Status, format: Option<Format>) -> (&'static str, Vec<u8>) {
    let Some(format) = format else {
        return (
            "application/json",
            super::status::indent(&status.json()).into_bytes(),
        );
    };
    let bytes = match format.media {
        Media::Protobuf => status.protobuf(),
        Media::Yaml => status.yaml().into_bytes(),
        Media::Json => finish_json(status.json().as_bytes(), format).unwrap_or_default(),
    };
    (format.media.content_type(), bytes)
}

/// JSON without its newline as the format wants it.
fn finish_json(json: &[u8], format: Format) -> Result<Vec<u8>, Status> {
    if format.media == Media::Yaml {
        let value: Value =
            serde_json::from_slice(json).map_err(|error| Status::unknown(error.to_string()))?;
        let text = yaml::render(&value).map_err(|error| Status::unknown(error.to_string()))?;
        return Ok(text.into_bytes());
    }
    if format.pretty {
        return Ok(super::status::indent(&String::from_utf8_lossy(json)).into_bytes());
    }
    let mut body = Vec::with_capacity(json.len() + 1);
    body.extend_from_slice(json);
    body.push(b'\n');
    Ok(body)
}

/// Frames of one watch: what differs between watchers of the same resource.
#[derive(Debug)]
pub struct Frames<'a> {
    /// The served resource.
    pub resource: &'a Resource,
    /// The negotiated format.
    pub format: Format,
    /// Bare messages for WebSockets.
    pub bare: bool,
}

impl Frames<'_> {
    /// An event's frame, shared by all watchers of the same format.
    pub fn event(
        &self,
        event: &Event,
        event_type: EventType,
        object: &Stored,
    ) -> Result<Bytes, Status> {
        let render = RenderKey {
            resource: self.resource.id,
            form: self.form(),
        };
        let key = FrameKey {
            render,
            event_type,
            bare: self.bare,
        };
        event.frame(key, || self.object(event_type, object))
    }

    /// A frame around one object.
    pub fn object(&self, event_type: EventType, object: &Stored) -> Result<Bytes, Status> {
        let bytes = form(self.resource, object, self.form())?;
        Ok(self.wrap(event_type, &bytes))
    }

    /// A frame around a value that is not stored (bookmarks).
    pub fn value(&self, event_type: EventType, value: &Value) -> Result<Bytes, Status> {
        let bytes = encode(self.resource, value, self.form())?;
        Ok(self.wrap(event_type, &bytes))
    }

    /// An ERROR frame.
    pub fn error(&self, status: &Status) -> Bytes {
        let word = EventType::Error.as_str();
        match self.format.media {
            Media::Protobuf => self.finish(schema::watch_event_protobuf(word, &status.protobuf())),
            Media::Json | Media::Yaml => {
                self.finish(schema::watch_event_json(word, status.json().as_bytes()))
            }
        }
    }

    /// The object of a bookmark: an empty instance of the kind with its resource version.
    pub fn bookmark(&self, resource_version: u64, end: bool) -> Result<Value, Status> {
        let resource = self.resource;
        let mut value = if resource.custom.is_some() {
            json!({"apiVersion": resource.api_version(), "kind": resource.kind, "metadata": {}})
        } else {
            Schema::builtin().empty(&resource.api_version(), &resource.kind)?
        };
        let mut metadata = json!({"resourceVersion": resource_version.to_string()});
        if end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        value["metadata"] = metadata;
        Ok(value)
    }

    fn form(&self) -> Form {
        match (self.format.transform, self.format.media) {
            (Transform::Partial(v1) | Transform::PartialList(v1), Media::Protobuf) => {
                Form::PartialProtobuf(v1)
            }
            (Transform::Partial(v1) | Transform::PartialList(v1), _) => Form::PartialJson(v1),
            (Transform::None | Transform::Table(_), Media::Protobuf) => Form::Protobuf,
            (Transform::None | Transform::Table(_), Media::Json | Media::Yaml) => Form::Json,
        }
    }

    fn wrap(&self, event_type: EventType, object: &[u8]) -> Bytes {
        let word = event_type.as_str();
        let (version, kind);
        (version, kind) = match self.form() {
            Form::PartialProtobuf(v1) => (meta_version(v1).to_owned(), "PartialObjectMetadata"),
            Form::Protobuf => (self.resource.api_version(), self.resource.kind.as_str()),
            Form::Json | Form::JsonItem | Form::PartialJson(_) => {
                return self.finish(schema::watch_event_json(word, object));
            }
        };
        let object = schema::envelope(&version, kind, object);
        self.finish(schema::watch_event_protobuf(word, &object))
    }

    fn finish(&self, frame: Vec<u8>) -> Bytes {
        let frame = Bytes::from(frame);
        if self.bare && self.format.media == Media::Protobuf {
            frame.slice(4..)
        } else {
            frame
        }
    }
}

fn row_cells(resource: &Resource, value: &Value) -> Vec<Value> {
    table::cells(resource, value, jiff::Timestamp::now())
}
