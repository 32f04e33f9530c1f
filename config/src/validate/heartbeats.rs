//! The rules for `heartbeats`: what the operator states must leave room for what is to be absorbed.

use std::net::SocketAddr;
use std::time::Duration;

use watershed_heartbeats::{Bounds, BoundsError, Settings};

use super::{Check, HOUR, MINUTE, SECOND};
use crate::file::HeartbeatMode;
use crate::{CacheSettings, Coalesce, Heartbeats, Subjects, file};

/// What has to be cached, as group, version, resource.
const NEEDED: [(&str, &str, &str); 2] =
    [("coordination.k8s.io", "v1", "leases"), ("", "v1", "nodes")];

/// The node lifecycle controller, with and without `--use-service-account-credentials`.
const CONTROLLER: [&str; 2] = [
    "system:kube-controller-manager",
    "system:serviceaccount:kube-system:node-controller",
];
/// Groups it is in.
const ITS_GROUPS: [&str; 3] = [
    "system:authenticated",
    "system:serviceaccounts",
    "system:serviceaccounts:kube-system",
];

impl Check<'_> {
    pub(super) fn heartbeats(
        &mut self,
        file: file::Heartbeats,
        cache: Option<&CacheSettings>,
        taken: [Option<SocketAddr>; 2],
    ) -> Option<Heartbeats> {
        let grace_period = self.time(
            "heartbeats.nodeMonitorGracePeriod",
            file.node_monitor_grace_period,
            10 * SECOND..=10 * MINUTE,
        );
        let tolerated_losses = self.losses(file.tolerated_losses);
        let latency_spread = self.time(
            "heartbeats.latencySpread",
            file.latency_spread,
            3 * SECOND..=MINUTE,
        );
        let flush_period = match file.flush_period {
            None => Some(None),
            Some(wanted) => {
                let range = SECOND..=10 * MINUTE;
                self.time("heartbeats.flushPeriod", wanted, range).map(Some)
            }
        };
        let node_status_period = self.time(
            "heartbeats.nodeStatusPeriod",
            file.node_status_period,
            Duration::ZERO..=HOUR,
        );
        let nodes = self.positive_nodes(file.nodes);
        let peers = self.peers(file.peers, taken)?;
        let settings = Settings {
            grace_period: grace_period?,
            tolerated_losses: tolerated_losses?,
            latency_spread: latency_spread?,
            flush_period: flush_period?,
            peers: peers.is_some(),
        };
        match file.mode {
            HeartbeatMode::Passthrough => Some(Heartbeats::Passthrough),
            HeartbeatMode::Coalesce => {
                self.needs_caches(cache);
                Some(Heartbeats::Coalesce(Coalesce {
                    bounds: self.bounds(settings)?,
                    node_status_period: node_status_period?,
                    nodes: nodes?,
                    peers: peers.map(Box::new),
                }))
            }
        }
    }

    /// For a node without a lease what its status says is all the node lifecycle controller has.
    pub(super) fn suppressed(&mut self, file: file::SuppressNodeEvents) -> Option<Subjects> {
        let before = self.mistakes.len();
        let lists = [
            ("users", &file.users, &CONTROLLER[..]),
            ("groups", &file.groups, &ITS_GROUPS),
        ];
        for (list, names, barred) in lists {
            for (index, name) in names.iter().enumerate() {
                let key = format!("heartbeats.suppressNodeEvents.{list}[{index}]");
                if barred.contains(&name.as_str()) {
                    let message = format!(
                        "`{name}` is or has among it the node lifecycle controller, which takes a \
                         node without a lease for dead by these events; name others"
                    );
                    self.note(&key, message);
                } else if name.is_empty() {
                    self.note(&key, "an empty name is nobody's; remove it".to_owned());
                }
            }
        }
        (self.mistakes.len() == before).then_some(Subjects {
            users: file.users,
            groups: file.groups,
        })
    }

    fn losses(&mut self, losses: u32) -> Option<u32> {
        if losses <= 50 {
            return Some(losses);
        }
        self.refuse(
            "heartbeats.toleratedLosses",
            "out of range; choose from 0 to 50",
        )
    }

    fn positive_nodes(&mut self, nodes: u32) -> Option<u32> {
        if nodes > 0 {
            return Some(nodes);
        }
        let advice = "0 would absorb nothing; write `mode: Passthrough`, or give at least 1";
        self.refuse("heartbeats.nodes", advice)
    }

    /// A renewal is compared with the cached lease, and its lease's owner with the cached Node.
    fn needs_caches(&mut self, cache: Option<&CacheSettings>) {
        let Some(cache) = cache else { return };
        for (group, version, resource) in NEEDED {
            if cache.settings(group, version, resource).is_none() {
                self.note(
                    "heartbeats.mode",
                    format!(
                        "`Coalesce` compares renewals with the cache of {resource}, which \
                         `cache.passthrough` turns off; remove it there, or write `Passthrough`"
                    ),
                );
            }
        }
    }

    fn bounds(&mut self, settings: Settings) -> Option<Bounds> {
        let error = match Bounds::new(settings) {
            Ok(bounds) => return Some(bounds),
            Err(error) => error,
        };
        let peers = Settings {
            peers: true,
            ..settings
        };
        let (key, advice) = match error {
            BoundsError::GraceTooShort { .. } if Bounds::new(peers).is_ok() => (
                "heartbeats.nodeMonitorGracePeriod",
                "add `heartbeats.peers`, raise `--node-monitor-grace-period` of \
                 kube-controller-manager, then this key, or write `mode: Passthrough`",
            ),
            BoundsError::FlushTooLong { .. } if Bounds::new(peers).is_ok() => (
                "heartbeats.flushPeriod",
                "shorten or remove it, or add `heartbeats.peers`",
            ),
            BoundsError::GraceTooShort { .. } => (
                "heartbeats.nodeMonitorGracePeriod",
                "raise `--node-monitor-grace-period` of kube-controller-manager, then this key, or \
                 write `mode: Passthrough`",
            ),
            BoundsError::FlushTooLong { .. } => ("heartbeats.flushPeriod", "shorten or remove it"),
            BoundsError::SpreadTooShort(_) => ("heartbeats.latencySpread", "raise it"),
        };
        self.refuse(key, &format!("{error}; {advice}"))
    }
}
