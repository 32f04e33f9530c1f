//! An object as it was written at one revision, with its encodings remembered.

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Value;

/// A way to write an object down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// The whole object in JSON, without a newline.
    Json,
    /// The object in JSON as an item of a typed list (no kind, no apiVersion).
    JsonItem,
    /// The whole object in protobuf, without its envelope.
    Protobuf,
    /// `PartialObjectMetadata` in JSON; `true` is v1, `false` v1beta1.
    PartialJson(bool),
    /// `PartialObjectMetadata` in protobuf, without its envelope.
    PartialProtobuf(bool),
}

/// Identifies an encoding of an object: as which served resource, in which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RenderKey {
    /// `Resource::id`.
    pub resource: u32,
    /// The form.
    pub form: Form,
}

/// An object as it was written at one revision; immutable, shared by readers, history and watchers.
#[derive(Debug)]
pub struct Stored {
    /// `namespace/name`, or `name`: the byte order of keys is the order of lists.
    pub key: String,
    /// Namespace, empty for cluster scope.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Revision of the write.
    pub resource_version: u64,
    /// The whole object in stored form, `metadata.resourceVersion` included.
    pub value: Value,
    renders: Mutex<Vec<(RenderKey, Bytes)>>,
}

impl Stored {
    /// An object written at a revision; the revision is put into its metadata.
    pub fn new(mut value: Value, resource_version: u64) -> Self {
        set_resource_version(&mut value, resource_version);
        Self {
            key: key_of_value(&value),
            namespace: metadata(&value, "namespace").to_owned(),
            name: metadata(&value, "name").to_owned(),
            resource_version,
            value,
            renders: Mutex::default(),
        }
    }

    /// The same content under another resource version.
    pub fn at(&self, resource_version: u64) -> Self {
        Self::new(self.value.clone(), resource_version)
    }

    /// An encoding, made once and then shared.
    pub fn rendered<E>(
        &self,
        key: RenderKey,
        render: impl FnOnce(&Value) -> Result<Vec<u8>, E>,
    ) -> Result<Bytes, E> {
        let mut renders = self.renders.lock();
        if let Some((_, bytes)) = renders.iter().find(|(known, _)| *known == key) {
            return Ok(bytes.clone());
        }
        let bytes = Bytes::from(render(&self.value)?);
        renders.push((key, bytes.clone()));
        Ok(bytes)
    }
}

/// The value that events and lists of a storage are indexed by: the node of pods and resource
/// slices.
pub fn trigger_value<'a>(storage: &str, value: &'a Value) -> Option<&'a str> {
    match storage {
        "pods" | "resourceslices.resource.k8s.io" => Some(
            value
                .pointer("/spec/nodeName")
                .and_then(Value::as_str)
                .unwrap_or(""),
        ),
        _ => None,
    }
}

pub(super) fn key_of(namespace: &str, name: &str) -> String {
    if namespace.is_empty() {
        name.to_owned()
    } else {
        format!("{namespace}/{name}")
    }
}

pub(super) fn key_of_value(value: &Value) -> String {
    key_of(metadata(value, "namespace"), metadata(value, "name"))
}

pub(super) fn set_resource_version(value: &mut Value, resource_version: u64) {
    let version = Value::String(resource_version.to_string());
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("resourceVersion".to_owned(), version);
    }
}

fn metadata<'a>(value: &'a Value, field: &str) -> &'a str {
    value["metadata"][field].as_str().unwrap_or("")
}
