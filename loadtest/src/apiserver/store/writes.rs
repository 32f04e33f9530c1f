//! Writes: each takes the next revision, under the one lock.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::object::{key_of, key_of_value, set_resource_version};
use super::{Deleted, Inner, Profile, Resource, Store, StoreError, Stored, Updated, lifecycle};

impl Store {
    /// Stores a new object; name and namespace are read from its metadata. `ttl` is for events.
    pub fn create(
        &self,
        resource: &Resource,
        value: Value,
        ttl: Option<Duration>,
    ) -> Result<Arc<Stored>, StoreError> {
        let mut inner = self.inner.lock();
        let key = key_of_value(&value);
        let table = inner.table(resource, &self.profile);
        if table.latest(&key).is_some() {
            return Err(StoreError::AlreadyExists);
        }
        let ttl = ttl.or_else(|| self.ttl(resource));
        if let Some(ttl) = ttl {
            table.leases.attach(&key, ttl);
        }
        Ok(inner.put(resource, value, &self.profile))
    }

    /// Replaces an object that is still at `expected`. The caller prepares the value (uid,
    /// managedFields, …); finalizers and `deletionTimestamp` are honoured as `Updated` says.
    pub fn update(
        &self,
        resource: &Resource,
        mut value: Value,
        expected: u64,
    ) -> Result<Updated, StoreError> {
        let mut inner = self.inner.lock();
        let key = key_of_value(&value);
        let table = inner.table(resource, &self.profile);
        let current = table.expect(&key, Some(expected))?;
        set_resource_version(&mut value, current.resource_version);
        if value == current.value {
            return Ok(Updated::Unchanged(current));
        }
        if lifecycle::ends(&resource.storage, &current.value, &value) {
            return Ok(Updated::Removed(inner.remove(
                resource,
                &current,
                &self.profile,
            )));
        }
        if let Some(ttl) = self.ttl(resource) {
            table.leases.attach(&key, ttl);
        }
        Ok(Updated::Written(inner.put(resource, value, &self.profile)))
    }

    /// Deletes an object that is still at `expected` (`None`: whatever it is at). With finalizers
    /// (metadata, or `spec.finalizers` of a namespace), or a grace period above 0, it only becomes
    /// pending.
    pub fn delete(
        &self,
        resource: &Resource,
        (namespace, name): (&str, &str),
        expected: Option<u64>,
        grace_seconds: Option<i64>,
    ) -> Result<Deleted, StoreError> {
        let mut inner = self.inner.lock();
        let key = key_of(namespace, name);
        let current = inner
            .table(resource, &self.profile)
            .expect(&key, expected)?;
        match lifecycle::delete(&resource.storage, &current.value, grace_seconds) {
            lifecycle::Deletion::Now => Ok(Deleted::Gone(inner.remove(
                resource,
                &current,
                &self.profile,
            ))),
            lifecycle::Deletion::AlreadyPending => Ok(Deleted::Pending(current)),
            lifecycle::Deletion::Marked(value) => {
                let marked = inner.put(resource, value, &self.profile);
                Ok(Deleted::Gone(inner.remove(
                    resource,
                    &marked,
                    &self.profile,
                )))
            }
            lifecycle::Deletion::Pending(value) => {
                Ok(Deleted::Pending(inner.put(resource, value, &self.profile)))
            }
        }
    }

    /// Stores a recorded object as it is, replacing any of the same name; only the resource version
    /// is new.
    pub fn load(&self, resource: &Resource, value: Value) -> Arc<Stored> {
        let mut inner = self.inner.lock();
        let key = key_of_value(&value);
        if let Some(ttl) = self.ttl(resource) {
            inner
                .table(resource, &self.profile)
                .leases
                .attach(&key, ttl);
        }
        inner.put(resource, value, &self.profile)
    }
}

impl Inner {
    fn put(&mut self, resource: &Resource, value: Value, profile: &Profile) -> Arc<Stored> {
        self.revision += 1;
        let (revision, frozen) = (self.revision, self.frozen);
        let object = Arc::new(Stored::new(value, revision));
        self.table(resource, profile).put(&object, frozen, profile);
        let observed = Some(&object.value);
        (self.observer)(&resource.storage, &object.namespace, &object.name, observed);
        object
    }

    fn remove(
        &mut self,
        resource: &Resource,
        current: &Arc<Stored>,
        profile: &Profile,
    ) -> Arc<Stored> {
        self.revision += 1;
        let (revision, frozen) = (self.revision, self.frozen);
        let last = self
            .table(resource, profile)
            .remove(current, revision, frozen, profile);
        (self.observer)(&resource.storage, &current.namespace, &current.name, None);
        last
    }
}
