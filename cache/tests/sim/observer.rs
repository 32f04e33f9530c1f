//! Who is told of every change before readers are, and remembers it.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use watershed_cache::{Object, Observer};

/// Versions by key, as told.
#[derive(Debug, Default)]
pub(crate) struct Told(Mutex<BTreeMap<String, u64>>);

impl Told {
    /// What was told, in the order of keys.
    pub(crate) fn all(&self) -> Vec<(String, u64)> {
        let told = self.0.lock();
        told.iter()
            .map(|(key, version)| (key.clone(), *version))
            .collect()
    }
}

impl Observer for Told {
    fn upserted(&self, object: &Object) {
        let version = object.resource_version().get();
        let before = self.0.lock().insert(object.key().to_owned(), version);
        assert!(before < Some(version), "each change is told once, in order");
    }

    fn removed(&self, object: &Object) {
        let before = self.0.lock().remove(object.key());
        let version = object.resource_version().get();
        assert_eq!(before, Some(version), "what goes was told before");
    }

    fn closed(&self) {
        self.0.lock().clear();
    }
}
