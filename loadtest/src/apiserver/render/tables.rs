//! Tables: what `kubectl get` asks for, as one body or one row per watch event.

use bytes::Bytes;
use serde_json::Value;

use super::{Frames, encode, form, meta_version, row_cells};
use crate::apiserver::request::{Query, go_quote};
use crate::apiserver::resources::Resource;
use crate::apiserver::schema::{self, ListMeta};
use crate::apiserver::status::Status;
use crate::apiserver::store::{EventType, Form, Stored};
use crate::apiserver::table;

/// What each row carries besides its cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// The metadata.
    #[default]
    Metadata,
    /// The whole object.
    Object,
}

impl IncludeObject {
    /// Reads `includeObject`.
    pub fn parse(query: &Query) -> Result<Self, Status> {
        match query.first("includeObject").unwrap_or("") {
            "" | "Metadata" => Ok(Self::Metadata),
            "None" => Ok(Self::None),
            "Object" => Ok(Self::Object),
            other => Err(Status::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {}: must be 'Metadata', 'Object', 'None', or empty",
                go_quote(other)
            ))),
        }
    }
}

/// A Table in JSON without a newline; `columns` false prints `null` for them.
pub(super) fn table(
    resource: &Resource,
    meta: &ListMeta,
    objects: &[&Stored],
    (v1, include, columns): (bool, IncludeObject, bool),
) -> Result<Vec<u8>, Status> {
    let mut rows = Vec::with_capacity(objects.len());
    for object in objects {
        let bytes = match include {
            IncludeObject::None => Bytes::from_static(b"null"),
            IncludeObject::Metadata => form(resource, object, Form::PartialJson(v1))?,
            IncludeObject::Object => form(resource, object, Form::Json)?,
        };
        rows.push((row_cells(resource, &object.value), bytes));
    }
    Ok(assemble(resource, meta, &rows, (v1, columns)))
}

fn assemble(
    resource: &Resource,
    meta: &ListMeta,
    rows: &[(Vec<Value>, Bytes)],
    (v1, columns): (bool, bool),
) -> Vec<u8> {
    let mut out = Vec::new();
    let text = |out: &mut Vec<u8>, key: &str, value: &str| {
        out.extend_from_slice(key.as_bytes());
        schema::write_json_string(out, value);
    };
    text(
        &mut out,
        "{\"kind\":\"Table\",\"apiVersion\":",
        meta_version(v1),
    );
    text(
        &mut out,
        ",\"metadata\":{\"resourceVersion\":",
        &meta.resource_version,
    );
    if !meta.continue_token.is_empty() {
        text(&mut out, ",\"continue\":", &meta.continue_token);
    }
    if let Some(remaining) = meta.remaining {
        out.extend_from_slice(format!(",\"remainingItemCount\":{remaining}").as_bytes());
    }
    out.extend_from_slice(b"},\"columnDefinitions\":");
    if columns {
        out.extend_from_slice(&table::column_definitions(resource));
    } else {
        out.extend_from_slice(b"null");
    }
    out.extend_from_slice(b",\"rows\":[");
    for (index, (cells, object)) in rows.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"cells\":");
        out.extend_from_slice(&schema::sorted_json(&Value::Array(cells.clone())));
        out.extend_from_slice(b",\"object\":");
        out.extend_from_slice(object);
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    out
}

/// The frames of a Table watch: only the first carries the columns.
#[derive(Debug)]
pub struct TableFrames {
    v1: bool,
    include: IncludeObject,
    started: bool,
}

impl TableFrames {
    /// Frames that have not begun.
    pub fn new(v1: bool, include: IncludeObject) -> Self {
        Self {
            v1,
            include,
            started: false,
        }
    }

    /// An event's frame.
    pub fn event(
        &mut self,
        frames: &Frames<'_>,
        event_type: EventType,
        object: &Stored,
    ) -> Result<Bytes, Status> {
        let meta = ListMeta {
            resource_version: object.resource_version.to_string(),
            ..ListMeta::default()
        };
        let columns = !std::mem::replace(&mut self.started, true);
        let json = table(
            frames.resource,
            &meta,
            &[object],
            (self.v1, self.include, columns),
        )?;
        Ok(schema::watch_event_json(event_type.as_str(), &json).into())
    }

    /// A bookmark's frame: its row has an object even when rows have none, for the annotation.
    pub fn bookmark(
        &mut self,
        frames: &Frames<'_>,
        resource_version: u64,
        end: bool,
    ) -> Result<Bytes, Status> {
        let value = frames.bookmark(resource_version, end)?;
        let wanted = match self.include {
            IncludeObject::Object => Form::Json,
            IncludeObject::None | IncludeObject::Metadata => Form::PartialJson(self.v1),
        };
        let bytes = if self.include == IncludeObject::None && !end {
            Bytes::from_static(b"null")
        } else {
            Bytes::from(encode(frames.resource, &value, wanted)?)
        };
        let meta = ListMeta {
            resource_version: resource_version.to_string(),
            ..ListMeta::default()
        };
        let columns = !std::mem::replace(&mut self.started, true);
        let rows = [(row_cells(frames.resource, &value), bytes)];
        let json = assemble(frames.resource, &meta, &rows, (self.v1, columns));
        Ok(schema::watch_event_json(EventType::Bookmark.as_str(), &json).into())
    }
}
