//! The verdict: views against a fresh list, events against the ledger of writes.
//!
//! Owns the two comparisons and the words for what they find. Refuses timing: a view may lag, so it
//! is compared until it agrees or the time to settle is over.
//! Invariant: an event that was lost, doubled or changed on its way cannot pass both comparisons.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use crate::churn::Ledger;
use crate::kubelet::Kubelet;
use crate::kubelet::client::{Call, Client};
use crate::kubelet::decode::List;
use crate::kubelet::reflector::Subject;
use crate::kubelet::stats::Stats;
use crate::kubelet::view::{Entry, Rule, View};

/// Differences that are told in words; more are only counted.
const TOLD_MAX: usize = 20;
const LIST_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(250);

/// What a run is judged by.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether nothing below is wrong.
    pub passed: bool,
    /// Events lost: rules broken in a stream, and views that never agreed with a list.
    pub lost: u64,
    /// Events that came twice.
    pub doubled: u64,
    /// Events out of order, bookmarks ahead, versions that went back.
    pub reordered: u64,
    /// Answers a healthy server would not give.
    pub errors: u64,
    /// Watches compared.
    pub compared: u64,
    /// The first findings in words.
    pub findings: Vec<String>,
}

impl Verdict {
    /// The verdict of what kubelets noted by themselves.
    #[must_use]
    pub fn of(stats: &Stats) -> Self {
        let of = |rule| stats.violations_of(rule);
        let mut findings = stats.violations.lines();
        findings.extend(stats.errors.lines());
        let mut verdict = Self {
            lost: of(Rule::Lost),
            doubled: of(Rule::Doubled),
            reordered: of(Rule::Reordered) + of(Rule::BookmarkAhead) + of(Rule::Backwards),
            errors: stats.errors.count(),
            findings,
            ..Self::default()
        };
        verdict.conclude();
        verdict
    }

    /// Adds a finding that is none of the counted kinds.
    pub fn fail(&mut self, finding: String) {
        self.errors += 1;
        self.findings.push(finding);
        self.conclude();
    }

    fn lose(&mut self, finding: String) {
        self.lost += 1;
        if self.findings.len() < TOLD_MAX {
            self.findings.push(finding);
        }
    }

    /// Concludes from the counts.
    pub(crate) fn conclude(&mut self) {
        self.passed = self.lost + self.doubled + self.reordered + self.errors == 0;
    }
}

/// Judges a fleet whose churn has ended: waits until every view agrees with a fresh list, at most
/// `settle`, then compares the events of complete watches with the ledger.
///
/// # Errors
/// When the lists cannot be read.
pub async fn judge(
    kubelets: &[Arc<Kubelet>],
    stats: &Stats,
    admin: &Client,
    ledger: &Ledger,
    settle: Duration,
) -> Result<Verdict> {
    let deadline = Instant::now() + settle;
    let differences = loop {
        let world = World::read(kubelets, admin).await?;
        let differences = world.compare(kubelets);
        if differences.is_empty() || Instant::now() >= deadline {
            break differences;
        }
        sleep(POLL).await;
    };
    let mut verdict = Verdict::of(stats);
    for difference in differences {
        verdict.lose(difference);
    }
    for kubelet in kubelets {
        for (subject, view) in kubelet.views() {
            verdict.compared += 1;
            let view = view.lock();
            if let Some(text) = ledger_difference(&subject, &view, ledger) {
                verdict.lose(format!("{}: {text}", kubelet.name()));
            }
        }
    }
    verdict.conclude();
    Ok(verdict)
}

/// Compares the events of a watch that selects nothing away with the writes of the churn.
fn ledger_difference(subject: &Subject, view: &View, ledger: &Ledger) -> Option<String> {
    if !ledger.is_complete(subject.resource) {
        return None;
    }
    let (seen, after, up_to) = view.digest();
    let written = ledger.digest(subject.resource, after, up_to);
    (seen != written).then(|| {
        let (path, seen, written) = (&subject.path, seen.count, written.count);
        format!("{path}: {seen} events of {written} writes after {after} up to {up_to}")
    })
}

/// Fresh lists, split the way kubelets watch.
#[derive(Debug, Default)]
struct World {
    /// Per resource: what a watch of a selector sees, by that selector (and namespace).
    parts: HashMap<(&'static str, String), HashMap<Box<str>, Entry>>,
    versions: HashMap<&'static str, u64>,
}

impl World {
    async fn read(kubelets: &[Arc<Kubelet>], admin: &Client) -> Result<Self> {
        let subjects: BTreeSet<(&'static str, String)> = kubelets
            .iter()
            .flat_map(|kubelet| kubelet.views())
            .map(|(subject, _)| (subject.resource, collection(&subject)))
            .collect();
        let mut world = Self::default();
        for (resource, path) in subjects {
            world.list(resource, &path, admin).await?;
        }
        Ok(world)
    }

    async fn list(&mut self, resource: &'static str, path: &str, admin: &Client) -> Result<()> {
        let answer = admin.call(&Call::read(path), LIST_TIMEOUT).await;
        let answer = answer.with_context(|| format!("list {path}"))?;
        ensure!(
            answer.status == StatusCode::OK,
            "list {path}: {}",
            answer.status
        );
        let list = List::decode(&answer.body).with_context(|| format!("read {path}"))?;
        self.versions.insert(resource, list.resource_version);
        for object in &list.items {
            let selector = match resource {
                "pods" => format!("spec.nodeName={}", object.node_name()?),
                "services" if object.cluster_ip()? == "None" => continue,
                "services" => "spec.clusterIP!=None".to_owned(),
                "nodes" => format!("metadata.name={}", object.metadata.name),
                "configmaps" | "secrets" => {
                    let metadata = object.metadata;
                    format!("{}/metadata.name={}", metadata.namespace, metadata.name)
                }
                _ => String::new(),
            };
            let part = self.parts.entry((resource, selector)).or_default();
            part.insert(object.key().into_boxed_str(), Entry::of(object));
        }
        Ok(())
    }

    fn compare(&self, kubelets: &[Arc<Kubelet>]) -> Vec<String> {
        let mut differences = Vec::new();
        for kubelet in kubelets {
            for (subject, view) in kubelet.views() {
                if let Some(text) = self.difference(&subject, &view.lock()) {
                    differences.push(format!("{}: {text}", kubelet.name()));
                }
            }
        }
        differences
    }

    fn difference(&self, subject: &Subject, view: &View) -> Option<String> {
        let (path, selector) = (&subject.path, &subject.field_selector);
        if !view.is_synced() {
            return Some(format!("{path} {selector}: never in sync"));
        }
        let nothing = HashMap::new();
        let part = (subject.resource, part_of(subject));
        let listed = self.parts.get(&part).unwrap_or(&nothing);
        let at = self.versions.get(subject.resource).copied().unwrap_or(0);
        let text = difference(view.entries(), listed, at)?;
        Some(format!("{path} {selector}: {text}"))
    }
}

/// The first difference between a view and a list at `at`. What is newer than the list is none.
fn difference(
    view: &HashMap<Box<str>, Entry>,
    listed: &HashMap<Box<str>, Entry>,
    at: u64,
) -> Option<String> {
    let missing = listed.iter().find(|(key, entry)| match view.get(*key) {
        None => true,
        Some(seen) => seen.resource_version < entry.resource_version,
    });
    if let Some((key, entry)) = missing {
        let seen = view.get(key).map_or(0, |seen| seen.resource_version);
        return Some(format!(
            "{key} is at {}, seen at {seen}",
            entry.resource_version
        ));
    }
    let extra = view.iter().find(|(key, seen)| match listed.get(*key) {
        None => seen.resource_version <= at,
        Some(entry) => seen.resource_version == entry.resource_version && !same(seen, entry),
    });
    extra.map(|(key, seen)| {
        let fault = if listed.contains_key(key) {
            "has other bytes"
        } else {
            "is gone"
        };
        format!(
            "{key} seen at {} {fault} in the list at {at}",
            seen.resource_version
        )
    })
}

fn same(seen: &Entry, listed: &Entry) -> bool {
    seen.hash == listed.hash
}

fn part_of(subject: &Subject) -> String {
    match subject.resource {
        "configmaps" | "secrets" => {
            let namespace = subject.path.split('/').nth(4).unwrap_or_default();
            format!("{namespace}/{}", subject.field_selector)
        }
        _ => subject.field_selector.clone(),
    }
}

/// The cluster-wide collection that a subject is part of.
fn collection(subject: &Subject) -> String {
    match subject.resource {
        "configmaps" | "secrets" => format!("/api/v1/{}", subject.resource),
        _ => subject.path.clone(),
    }
}

/// Watches by resource, for tables.
#[must_use]
pub fn watches_by_resource(kubelets: &[Arc<Kubelet>]) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    for (subject, _) in kubelets.iter().flat_map(|kubelet| kubelet.views()) {
        *counts.entry(subject.resource).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::churn::Write;
    use crate::kubelet::decode::{Change, Object};
    use crate::kubelet::protobuf::Message;

    fn object(name: &str, version: u64, phase: &str) -> Vec<u8> {
        let metadata = Message::default()
            .string(1, name)
            .string(6, &version.to_string());
        let status = Message::default().string(1, phase);
        Message::default()
            .message(1, &metadata)
            .message(3, &status)
            .0
    }

    fn entries(objects: &[(&str, u64, &str)]) -> HashMap<Box<str>, Entry> {
        let entry = |(name, version, phase): &(&str, u64, &str)| {
            let message = object(name, *version, phase);
            (
                (*name).into(),
                Entry::of(&Object::decode(&message).unwrap()),
            )
        };
        objects.iter().map(entry).collect()
    }

    #[test]
    fn equal_views_agree_and_newer_ones_do_too() {
        let listed = entries(&[("a", 3, "x"), ("b", 5, "x")]);
        assert_eq!(difference(&listed, &listed, 9), None);
        let newer = entries(&[("a", 11, "y"), ("b", 5, "x"), ("c", 12, "x")]);
        assert_eq!(difference(&newer, &listed, 9), None);
    }

    #[test]
    fn a_lost_event_makes_a_view_differ() {
        let listed = entries(&[("a", 3, "x"), ("b", 5, "x")]);
        for view in [
            entries(&[("a", 3, "x")]),                               // b never came
            entries(&[("a", 2, "x"), ("b", 5, "x")]),                // a change of a was lost
            entries(&[("a", 3, "x"), ("b", 5, "x"), ("c", 4, "x")]), // c was deleted
        ] {
            assert!(difference(&view, &listed, 9).is_some(), "{view:?}");
        }
    }

    #[test]
    fn changed_bytes_make_a_view_differ() {
        let (view, listed) = (entries(&[("a", 3, "y")]), entries(&[("a", 3, "x")]));
        assert!(difference(&view, &listed, 9).is_some_and(|text| text.contains("other bytes")));
    }

    /// A view of services filled at 10 that saw events at `versions`, and writes at 11, 12 and 13.
    fn against_ledger(versions: &[u64]) -> Option<String> {
        let (mut view, ledger) = (View::default(), Ledger::default());
        ledger.complete("services");
        for version in [9, 11, 12, 13] {
            ledger.note(Write {
                resource: "services",
                key: "s".into(),
                resource_version: version,
            });
        }
        view.replace(entries(&[("s", 9, "x")]), 10).unwrap();
        for version in versions {
            let message = object("s", *version, "x");
            let _ = view.apply(Change::Modified, &Object::decode(&message).unwrap());
        }
        let subject = Subject {
            resource: "services",
            path: "/api/v1/services".into(),
            field_selector: String::new(),
        };
        ledger_difference(&subject, &view, &ledger)
    }

    #[test]
    fn events_equal_to_the_writes_agree_with_the_ledger() {
        assert_eq!(against_ledger(&[11, 12, 13]), None);
    }

    #[test]
    fn a_lost_or_doubled_event_in_the_middle_is_told_by_the_ledger() {
        assert!(against_ledger(&[11, 13]).is_some());
        assert!(against_ledger(&[11, 12, 12, 13]).is_some());
    }

    #[test]
    fn a_verdict_with_any_finding_does_not_pass() {
        let stats = Stats::default();
        assert!(Verdict::of(&stats).passed);
        for rule in [
            Rule::Lost,
            Rule::Doubled,
            Rule::Reordered,
            Rule::BookmarkAhead,
        ] {
            let stats = Stats::default();
            stats.violation(rule, "text".into());
            assert!(!Verdict::of(&stats).passed, "{rule}");
        }
        stats.errors.add("text".into());
        assert!(!Verdict::of(&stats).passed);
    }
}
