//! placeholder until the body lands
use super::resources::Resource;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

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
}

/// Why the store refused a write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No such object.
    #[error("not found")]
    NotFound,
    /// An object of that name exists.
    #[error("already exists")]
    AlreadyExists,
    /// The object is at another revision than expected.
    #[error("the object has been modified; it is at {current}")]
    Conflict {
        /// The revision it is at.
        current: u64,
    },
}

/// What an update did.
#[derive(Debug, Clone)]
pub enum Updated {
    /// The object was written at a new revision.
    Written(Arc<Stored>),
    /// The content was the same: nothing happened, the old object stands.
    Unchanged(Arc<Stored>),
    /// The last finalizer of an object in deletion went away: it is deleted. Holds the last stored object with the
    /// revision of the deletion.
    Removed(Arc<Stored>),
}

/// What a delete did.
#[derive(Debug, Clone)]
pub enum Deleted {
    /// The object is gone; its last content with the revision of the deletion.
    Gone(Arc<Stored>),
    /// Finalizers or a grace period hold it: `deletionTimestamp` is set.
    Pending(Arc<Stored>),
}

/// All objects, all watch caches, one revision.
#[derive(Debug)]
pub struct Store {}

#[expect(unused_variables, clippy::todo, reason = "signatures first")]
impl Store {
    /// The revision of the last write.
    pub fn revision(&self) -> u64 {
        todo!()
    }
    /// The current object (as etcd has it).
    pub fn read(&self, resource: &Resource, namespace: &str, name: &str) -> Option<Arc<Stored>> {
        todo!()
    }
    /// All current objects of a resource, of one namespace when given, in key order.
    pub fn read_all(&self, resource: &Resource, namespace: Option<&str>) -> Vec<Arc<Stored>> {
        todo!()
    }
    /// Stores a new object; name and namespace are read from its metadata. `ttl` is for events.
    pub fn create(
        &self,
        resource: &Resource,
        value: Value,
        ttl: Option<Duration>,
    ) -> Result<Arc<Stored>, StoreError> {
        todo!()
    }
    /// Replaces an object that is still at `expected`. The caller prepares the value (uid, managedFields, …);
    /// finalizers and `deletionTimestamp` are honoured as `Updated` says.
    pub fn update(
        &self,
        resource: &Resource,
        value: Value,
        expected: u64,
    ) -> Result<Updated, StoreError> {
        todo!()
    }
    /// Deletes an object that is still at `expected` (`None`: whatever it is at). With finalizers (metadata, or
    /// `spec.finalizers` of a namespace), or a grace period above 0, it only becomes pending.
    pub fn delete(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        expected: Option<u64>,
        grace_seconds: Option<i64>,
    ) -> Result<Deleted, StoreError> {
        todo!()
    }
    /// Stores a recorded object as it is, replacing any of the same name; only the resource version is new.
    pub fn load(&self, resource: &Resource, value: Value) -> Arc<Stored> {
        todo!()
    }
}
