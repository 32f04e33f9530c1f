//! The node lifecycle controller, as far as it looks at leases (as `node_lifecycle_controller.go`,
//! 1.36): by its own clock, and only by whether a `renewTime` is later than the one before.

use std::collections::BTreeMap;

use crate::store::Store;

/// `--node-monitor-grace-period`, milliseconds.
pub(crate) const GRACE: u64 = 50_000;
/// `--node-monitor-period`, milliseconds.
pub(crate) const PERIOD: u64 = 5_000;

#[derive(Debug, Default)]
pub(crate) struct Controller {
    looked_at: u64,
    health: BTreeMap<String, Health>,
}

#[derive(Debug)]
struct Health {
    renewed: i64,
    probed_at: u64,
    unknown_since: Option<u64>,
}

impl Controller {
    /// Looks at all leases, if it is time.
    pub(crate) fn monitor(&mut self, now: u64, store: &Store) {
        if now - self.looked_at < PERIOD {
            return;
        }
        self.looked_at = now;
        for (name, lease) in &store.leases {
            let health = self.health.entry(name.clone()).or_insert(Health {
                renewed: i64::MIN,
                probed_at: now,
                unknown_since: None,
            });
            if health.renewed < lease.renewed {
                health.renewed = lease.renewed;
                health.probed_at = now;
                health.unknown_since = None;
            }
            if now > health.probed_at + GRACE {
                health.unknown_since.get_or_insert(now);
            }
        }
    }

    /// Since when it takes a node for dead.
    pub(crate) fn unknown_since(&self, name: &str) -> Option<u64> {
        self.health.get(name)?.unknown_since
    }
}
