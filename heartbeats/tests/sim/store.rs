//! The upstream: leases and nodes with versions, and what it would say to a PUT.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use watershed_heartbeats::{MicroTime, Uid};

/// 2026-01-01T00:00:00Z; times in this simulation count from there, in microseconds.
const START: i64 = 1_767_225_600_000_000;

pub(crate) fn since_start(time: MicroTime) -> i64 {
    time.micros() - START
}

pub(crate) fn uid(bits: u128) -> Uid {
    Uid::parse(uid_text(bits).as_bytes()).expect("well formed")
}

fn uid_text(bits: u128) -> String {
    let hex = format!("{bits:032x}");
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    parts.join("-")
}

/// A lease, as the model has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) name: String,
    pub(crate) uid: u128,
    pub(crate) owner: u128,
    pub(crate) version: u64,
    pub(crate) renewed: i64,
    /// Somebody else's edits.
    pub(crate) edits: u64,
}

impl Stored {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let Self {
            name,
            version,
            renewed,
            edits,
            ..
        } = self;
        let (uid, owner) = (uid_text(self.uid), uid_text(self.owner));
        let second = version % 60;
        let micros = renewed % 1_000_000;
        let renewed = renewed / 1_000_000;
        let (minute, hour) = (renewed / 60 % 60, renewed / 3_600);
        let renewed = renewed % 60;
        format!(
            r#"{{"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{{"name":"{name}","namespace":"kube-node-lease","uid":"{uid}","resourceVersion":"{version}","creationTimestamp":"2026-01-01T00:00:00Z","annotations":{{"edits":"{edits}"}},"ownerReferences":[{{"apiVersion":"v1","kind":"Node","name":"{name}","uid":"{owner}"}}],"managedFields":[{{"manager":"kubelet","operation":"Update","apiVersion":"coordination.k8s.io/v1","time":"2026-01-01T00:00:{second:02}Z","fieldsType":"FieldsV1","fieldsV1":{{}}}}]}},"spec":{{"holderIdentity":"{name}","leaseDurationSeconds":40,"renewTime":"2026-01-01T{hour:02}:{minute:02}:{renewed:02}.{micros:06}Z"}}}}"#
        )
        .into_bytes()
    }

    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let value: Value = serde_json::from_slice(bytes).expect("well formed");
        let text = |path: &str| {
            value
                .pointer(path)
                .expect("well formed")
                .as_str()
                .expect("well formed")
                .to_owned()
        };
        let bits = |path: &str| {
            u128::from_str_radix(&text(path).replace('-', ""), 16).expect("well formed")
        };
        let time = text("/spec/renewTime");
        let part = |from: usize, to: usize| time[from..to].parse::<i64>().expect("well formed");
        let seconds = part(11, 13) * 3_600 + part(14, 16) * 60 + part(17, 19);
        Self {
            name: text("/metadata/name"),
            uid: bits("/metadata/uid"),
            owner: bits("/metadata/ownerReferences/0/uid"),
            version: text("/metadata/resourceVersion")
                .parse()
                .expect("well formed"),
            renewed: seconds * 1_000_000 + part(20, 26),
            edits: text("/metadata/annotations/edits")
                .parse()
                .expect("well formed"),
        }
    }
}

/// What the upstream says to a PUT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Written(u64),
    Conflict,
}

#[derive(Debug, Default)]
pub(crate) struct Store {
    version: u64,
    next_uid: u128,
    pub(crate) leases: BTreeMap<String, Stored>,
    pub(crate) nodes: BTreeMap<String, u128>,
    /// What watches tell, in order.
    pub(crate) lease_events: Vec<(String, Option<Stored>)>,
    pub(crate) node_events: Vec<(String, Option<u128>)>,
    /// Versions that each lease really had.
    pub(crate) versions: BTreeMap<u128, BTreeSet<u64>>,
    /// The latest time that each lease ever had.
    pub(crate) latest: BTreeMap<u128, i64>,
}

impl Store {
    fn keep(&mut self, mut lease: Stored) -> Stored {
        self.version += 1;
        lease.version = self.version;
        self.versions
            .entry(lease.uid)
            .or_default()
            .insert(lease.version);
        let latest = self.latest.entry(lease.uid).or_default();
        *latest = lease.renewed.max(*latest);
        self.lease_events
            .push((lease.name.clone(), Some(lease.clone())));
        self.leases.insert(lease.name.clone(), lease.clone());
        lease
    }

    fn fresh_uid(&mut self) -> u128 {
        self.next_uid += 1;
        self.next_uid
    }

    pub(crate) fn put(&mut self, body: &Stored) -> Answer {
        match self.leases.get(&body.name) {
            Some(lease) if lease.uid == body.uid && lease.version == body.version => {
                Answer::Written(self.keep(body.clone()).version)
            }
            _ => Answer::Conflict,
        }
    }

    /// `None` if the Node is not there: a kubelet creates no lease then.
    pub(crate) fn create(&mut self, name: &str, renewed: i64) -> Option<Stored> {
        let owner = *self.nodes.get(name)?;
        let uid = self.fresh_uid();
        Some(self.keep(Stored {
            name: name.to_owned(),
            uid,
            owner,
            version: 0,
            renewed,
            edits: 0,
        }))
    }

    pub(crate) fn edit(&mut self, name: &str) {
        if let Some(mut lease) = self.leases.get(name).cloned() {
            lease.edits += 1;
            self.keep(lease);
        }
    }

    pub(crate) fn delete_lease(&mut self, name: &str) {
        if self.leases.remove(name).is_some() {
            self.version += 1;
            self.lease_events.push((name.to_owned(), None));
        }
    }

    pub(crate) fn set_node(&mut self, name: &str, there: bool) {
        let uid = there.then(|| self.fresh_uid());
        match uid {
            Some(uid) => self.nodes.insert(name.to_owned(), uid),
            None => self.nodes.remove(name),
        };
        self.node_events.push((name.to_owned(), uid));
    }

    /// Deletes leases whose owner is gone.
    pub(crate) fn collect_garbage(&mut self) {
        let nodes = &self.nodes;
        let orphans = self
            .leases
            .values()
            .filter(|lease| nodes.get(&lease.name) != Some(&lease.owner));
        let orphans: Vec<_> = orphans.map(|lease| lease.name.clone()).collect();
        orphans.iter().for_each(|name| self.delete_lease(name));
    }
}
