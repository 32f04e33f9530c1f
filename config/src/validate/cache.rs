//! The rules for `cache`: budgets, histories, and which resources are named.

use std::time::Duration;

use super::{Check, HOUR, SECOND};
use crate::duration::Time;
use crate::file;
use crate::quantity::{MI, Quantity};
use crate::{CacheSettings, CachedResource, Encoding, GroupResource, ResourceSettings};

/// What the apiserver's own watch cache keeps at least (`watch_cache.go`, 1.36): a client that may
/// stay away that long there may do so here.
const HISTORY_AGE_MIN: Duration = Duration::from_secs(75);
const HISTORY_AGE_MAX: Duration = HOUR.saturating_mul(24);

/// Below it, a cache would be opened and closed between two polls of one client.
const IDLE_TIMEOUT_MIN: Duration = SECOND.saturating_mul(10);

impl Check<'_> {
    pub(super) fn cache(&mut self, file: file::Cache) -> Option<CacheSettings> {
        let defaults = self.settings("cache.defaults", &file.defaults);
        let mut resources: Vec<Option<CachedResource>> = Vec::new();
        for (index, entry) in file.resources.into_iter().enumerate() {
            let key = format!("cache.resources[{index}]");
            let resource = self.resource(&key, entry, &file.defaults);
            let same = |other: &&CachedResource| {
                resource.as_ref().is_some_and(|resource| {
                    (&resource.group, &resource.version, &resource.resource)
                        == (&other.group, &other.version, &other.resource)
                })
            };
            if let Some(name) = resources
                .iter()
                .flatten()
                .find(same)
                .map(|r| r.resource.clone())
            {
                self.note(
                    &format!("{key}.resource"),
                    format!("`{name}` of this group and version is named twice; join the entries"),
                );
            }
            resources.push(resource);
        }
        let mut passthrough: Vec<Option<GroupResource>> = Vec::new();
        for (index, entry) in file.passthrough.into_iter().enumerate() {
            let key = format!("cache.passthrough[{index}]");
            let named = self.group_resource(&key, entry.group, entry.resource);
            if let Some(named) = &named {
                let resource = &named.resource;
                let cached = resources
                    .iter()
                    .flatten()
                    .any(|cached| cached.group == named.group && cached.resource == named.resource);
                if cached {
                    self.note(
                        &format!("{key}.resource"),
                        format!("`{resource}` is also in `cache.resources`; remove one of the two"),
                    );
                }
                if passthrough.iter().flatten().any(|other| other == named) {
                    self.note(
                        &format!("{key}.resource"),
                        format!("`{resource}` of this group is named twice; remove one"),
                    );
                }
            }
            passthrough.push(named);
        }
        Some(CacheSettings {
            defaults: defaults?,
            resources: resources.into_iter().collect::<Option<_>>()?,
            passthrough: passthrough.into_iter().collect::<Option<_>>()?,
        })
    }

    /// One entry of `cache.resources`. Values taken from the defaults are not checked here: what
    /// is wrong with them is said once, at the place they are written.
    fn resource(
        &mut self,
        key: &str,
        entry: file::CachedResource,
        defaults: &file::CacheDefaults,
    ) -> Option<CachedResource> {
        let named = self.group_resource(key, entry.group, entry.resource);
        if let Some(version) = &entry.version
            && (version.is_empty() || version.contains('/'))
        {
            self.note(
                &format!("{key}.version"),
                format!("`{version}` is not a version; write for example `v1`, or leave it out"),
            );
        }
        let preload_needs = entry.preload && entry.encodings.is_none();
        if preload_needs {
            self.note(
                &format!("{key}.preload"),
                "needs `encodings` in the same entry: each one is a watch and memory of its own"
                    .into(),
            );
        }
        let merged = file::CacheDefaults {
            objects: entry.objects.unwrap_or(defaults.objects),
            history: file::HistoryDefaults {
                bytes: entry.history.bytes.unwrap_or(defaults.history.bytes),
                age: entry.history.age.unwrap_or(defaults.history.age),
            },
            idle_timeout: entry.idle_timeout.unwrap_or(defaults.idle_timeout),
            encodings: entry
                .encodings
                .clone()
                .unwrap_or_else(|| defaults.encodings.clone()),
        };
        let own = file::CacheDefaults {
            objects: entry.objects.unwrap_or(Quantity(MI)),
            history: file::HistoryDefaults {
                bytes: entry.history.bytes.unwrap_or(Quantity(MI)),
                age: entry.history.age.unwrap_or(Time(HISTORY_AGE_MIN)),
            },
            idle_timeout: entry.idle_timeout.unwrap_or(Time(Duration::ZERO)),
            encodings: entry
                .encodings
                .unwrap_or_else(|| vec![file::Encoding::Json]),
        };
        self.settings(key, &own)?;
        let GroupResource { group, resource } = named?;
        let (version, preload) = (entry.version, entry.preload);
        Some(CachedResource {
            group,
            version,
            resource,
            preload,
            settings: settings(&merged),
        })
    }

    fn settings(&mut self, key: &str, file: &file::CacheDefaults) -> Option<ResourceSettings> {
        let objects = self.bytes(&format!("{key}.objects"), file.objects, MI..=u64::MAX);
        let bytes = self.bytes(
            &format!("{key}.history.bytes"),
            file.history.bytes,
            MI..=u64::MAX,
        );
        let age = self.history_age(&format!("{key}.history.age"), file.history.age);
        let idle = self.idle_timeout(&format!("{key}.idleTimeout"), file.idle_timeout);
        let encodings = self.encodings(&format!("{key}.encodings"), &file.encodings);
        (objects.is_some() && bytes.is_some() && age && idle && encodings).then(|| settings(file))
    }

    fn history_age(&mut self, key: &str, age: Time) -> bool {
        if age.0 < HISTORY_AGE_MIN {
            self.note(
                key,
                format!(
                    "{age} is shorter than the 75s the apiserver keeps, so clients that resume \
                     there would have to list again here; choose at least 75s"
                ),
            );
            return false;
        }
        self.time(key, age, HISTORY_AGE_MIN..=HISTORY_AGE_MAX)
            .is_some()
    }

    fn idle_timeout(&mut self, key: &str, timeout: Time) -> bool {
        if timeout.0.is_zero() || timeout.0 >= IDLE_TIMEOUT_MIN {
            return true;
        }
        self.note(
            key,
            format!("{timeout} would close caches between two requests; choose 0 or at least 10s"),
        );
        false
    }

    fn encodings(&mut self, key: &str, encodings: &[file::Encoding]) -> bool {
        if encodings.is_empty() {
            self.note(
                key,
                "no encoding is named; to cache nothing, use `cache.passthrough` instead".into(),
            );
            return false;
        }
        let repeated = encodings
            .iter()
            .enumerate()
            .any(|(i, e)| encodings[..i].contains(e));
        if repeated {
            self.note(key, "an encoding is named twice; remove one".into());
        }
        !repeated
    }

    fn group_resource(
        &mut self,
        key: &str,
        group: Option<String>,
        resource: Option<String>,
    ) -> Option<GroupResource> {
        let group_key = format!("{key}.group");
        let group = self.required(&group_key, group, "empty for the core group: `group: \"\"`");
        if let Some(group) = &group {
            self.group(&group_key, group);
        }
        let resource_key = format!("{key}.resource");
        let resource = self.required(&resource_key, resource, "as the plural name `pods`");
        if let Some(resource) = &resource {
            self.resource_name(&resource_key, resource);
        }
        Some(GroupResource {
            group: group?,
            resource: resource?,
        })
    }

    fn group(&mut self, key: &str, group: &str) {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
        if group == "core" || group == "v1" {
            self.note(
                key,
                "the core group has an empty name; write `group: \"\"`".into(),
            );
        } else if group.contains('/') {
            self.note(
                key,
                format!("`{group}` holds a version; write the part after `/` as `version`"),
            );
        } else if !group.chars().all(plain) {
            self.note(
                key,
                format!("`{group}` is not a group; write for example `apps`"),
            );
        }
    }

    fn resource_name(&mut self, key: &str, resource: &str) {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
        if resource.contains('/') {
            self.note(
                key,
                format!("`{resource}` is a subresource, and those are never cached; remove it"),
            );
        } else if resource.is_empty() || !resource.chars().all(plain) {
            self.note(
                key,
                format!("`{resource}` is not a resource; write the plural name, as `pods`"),
            );
        }
    }
}

fn settings(file: &file::CacheDefaults) -> ResourceSettings {
    let encoding = |encoding: &file::Encoding| match encoding {
        file::Encoding::Protobuf => Encoding::Protobuf,
        file::Encoding::Json => Encoding::Json,
    };
    ResourceSettings {
        objects: file.objects.0,
        history_bytes: file.history.bytes.0,
        history_age: file.history.age.0,
        idle_timeout: file.idle_timeout.0,
        encodings: file.encodings.iter().map(encoding).collect(),
    }
}
