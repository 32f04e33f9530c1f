//! The decision is that of the naive model, whatever was fed in whatever order.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample;
use watershed_authorizer::{
    Authorizer, Decision, Facts, Features, Grant, GraphSize, RbacSize, Source,
};

use crate::ask::Ask;
use crate::model::{Object, Verdict, World};
use crate::random::{self, Change, NAMES, NAMESPACES, NODES};
use crate::write::{self, Written};

pub(crate) fn written(object: &Object) -> Written {
    match object {
        Object::Pod(pod) => write::pod(pod),
        Object::Volume(volume) => write::volume(volume),
        Object::Attachment(bound) => write::attachment(bound),
        Object::Slice(bound) => write::slice(bound),
        Object::CertificateRequest(bound) => write::certificate_request(bound),
        Object::Role(role) => write::role(role),
        Object::Binding(binding) => write::binding(binding),
    }
}

pub(crate) fn feed(authorizer: &Authorizer, object: &Object) -> watershed_authorizer::Revoked {
    let json = written(object).json.to_string();
    let facts = Facts::read(object.key().0, json.as_bytes()).expect("an object is read");
    authorizer.upsert(facts)
}

pub(crate) fn apply(authorizer: &Authorizer, world: &mut World, change: &Change) {
    let (source, namespace, name) = change.object.key();
    if change.deleted {
        authorizer.delete(source, namespace, name);
        world.delete(change.object.key());
        return;
    }
    let written = written(&change.object);
    let json = written.json.to_string();
    let bytes = if change.protobuf {
        &written.protobuf
    } else {
        json.as_bytes()
    };
    let facts = Facts::read(source, bytes).expect("an object is read");
    authorizer.upsert(facts);
    world.upsert(change.object.clone());
}

fn judge(
    authorizer: &Authorizer,
    world: &World,
    ask: &Ask,
    features: Features,
) -> Result<&'static str, TestCaseError> {
    let verdict = world.decide(ask, features);
    let decision = ask.decide(authorizer);
    let agrees = match (&decision, &verdict) {
        (Decision::Allow(Grant::Masters), Verdict::Masters)
        | (Decision::Allow(Grant::NodeRule | Grant::NodeGraph), Verdict::Node) => true,
        (Decision::Allow(Grant::Rbac), Verdict::Rbac(reasons)) => {
            let reason = ask.with(|asks| authorizer.explain(asks));
            reason.is_some_and(|reason| reasons.contains(&reason))
        }
        (Decision::NoOpinion(denial), Verdict::Refused(errors)) => {
            let reason = &denial.reason;
            let rbac = reason.find("RBAC: ").map_or("", |at| &reason[at..]);
            let said = rbac.trim_start_matches("RBAC: ");
            let said = said.trim_start_matches('[').trim_end_matches(']');
            let said = said.split(", ").filter(|error| !error.is_empty());
            said.map(str::to_owned).collect::<BTreeSet<_>>() == *errors
        }
        _other => false,
    };
    let dangerous = matches!(
        (&decision, &verdict),
        (Decision::Allow(_), Verdict::Refused(_))
    );
    let word = if dangerous { "ALLOWED" } else { "disagree" };
    prop_assert!(
        agrees,
        "{word}: {ask:?}\nlocal: {decision:?}\nmodel: {verdict:?}"
    );
    Ok(match decision {
        Decision::Allow(Grant::Masters) => "masters",
        Decision::Allow(Grant::NodeRule) => "rule",
        Decision::Allow(Grant::NodeGraph) => "graph",
        Decision::Allow(Grant::Rbac) => "rbac",
        Decision::NoOpinion(_) => "no: ",
    })
}

/// Every question about the graph.
pub(crate) fn questions() -> Vec<Ask> {
    let resources = [
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "persistentvolumes",
        "serviceaccounts",
        "pods",
        "resourceclaims@resource.k8s.io",
        "resourceslices@resource.k8s.io",
        "volumeattachments@storage.k8s.io",
        "podcertificaterequests@certificates.k8s.io",
    ];
    let more = ["x-x", "x-y-made", "y-made-made", "z-z", "x-made", "y-y"];
    let mut asks = Vec::new();
    for resource in resources {
        for namespace in NAMESPACES.iter().chain(&[""]) {
            for name in NAMES.iter().chain(&more) {
                for node in NODES {
                    let ask = Ask::new(&format!("get {resource} {namespace}/{name}"));
                    asks.push(ask.by_node(node));
                }
            }
        }
    }
    asks
}

const FEATURES: Features = Features {
    credential_provider_tokens: true,
    pod_certificate_requests: true,
    cluster_trust_bundles: false,
};

#[test]
fn decisions_are_those_of_the_model() {
    let changes = vec(random::change(), 0..60);
    let asks = vec(random::ask(), 1..100);
    let graph = questions();
    let tally = RefCell::new(BTreeMap::new());
    random::check(64, (changes, asks), |(changes, asks)| {
        let authorizer = Authorizer::new(FEATURES);
        let mut world = World::default();
        for changes in changes.chunks(15) {
            for change in changes {
                apply(&authorizer, &mut world, change);
            }
            for ask in asks.iter().chain(&graph) {
                let kind = judge(&authorizer, &world, ask, FEATURES)?;
                *tally.borrow_mut().entry(kind).or_insert(0_usize) += 1;
            }
        }
        Ok(())
    });
    prove(&tally.borrow(), &["masters", "rule", "graph", "no: "]);
}

#[test]
fn rbac_decisions_are_those_of_the_model() {
    let case = (
        vec(random::policy_change(), 0..60),
        vec(random::policy_ask(), 1..100),
    );
    let tally = RefCell::new(BTreeMap::new());
    random::check(192, case, |(changes, asks)| {
        let authorizer = Authorizer::default();
        let mut world = World::default();
        for change in &changes {
            apply(&authorizer, &mut world, change);
        }
        for ask in &asks {
            let kind = judge(&authorizer, &world, ask, Features::default())?;
            *tally.borrow_mut().entry(kind).or_insert(0_usize) += 1;
        }
        Ok(())
    });
    prove(&tally.borrow(), &["rbac", "no: "]);
}

/// Agreeing about refusals alone would be easy.
fn prove(tally: &BTreeMap<&str, usize>, kinds: &[&str]) {
    for kind in kinds {
        let found = tally.get(kind).copied().unwrap_or_default();
        assert!(found >= 20, "{kind}: {found} times, {tally:?}");
    }
}

#[test]
fn feature_gates_decide_as_in_the_model() {
    let features = (any::<bool>(), any::<bool>(), any::<bool>());
    let features = features.prop_map(|(tokens, requests, bundles)| Features {
        credential_provider_tokens: tokens,
        pod_certificate_requests: requests,
        cluster_trust_bundles: bundles,
    });
    let case = (
        features,
        vec(random::change(), 0..30),
        vec(random::ask(), 0..100),
    );
    random::check(128, case, |(features, changes, asks)| {
        let authorizer = Authorizer::new(features);
        let mut world = World::default();
        for change in &changes {
            apply(&authorizer, &mut world, change);
        }
        for ask in &asks {
            judge(&authorizer, &world, ask, features)?;
        }
        Ok(())
    });
}

#[test]
fn clearing_a_source_is_deleting_all_of_it() {
    let case = (
        vec(random::change(), 0..60),
        sample::subsequence(Source::ALL.to_vec(), 1..4),
        vec(random::ask(), 1..60),
    );
    let graph = questions();
    random::check(48, case, |(changes, sources, asks)| {
        let authorizer = Authorizer::new(FEATURES);
        let mut world = World::default();
        for change in &changes {
            apply(&authorizer, &mut world, change);
        }
        for source in sources {
            authorizer.clear(source);
            world.objects.retain(|object| object.key().0 != source);
        }
        for ask in asks.iter().chain(graph.iter().step_by(5)) {
            judge(&authorizer, &world, ask, FEATURES)?;
        }
        for source in Source::ALL {
            authorizer.clear(source);
        }
        prop_assert_eq!(emptied(&authorizer), GraphSize::default());
        prop_assert_eq!(authorizer.rbac_size(), RbacSize::default());
        Ok(())
    });
}

#[test]
fn a_denial_names_every_source_that_could_change_it() {
    let case = (
        vec(random::change(), 0..40),
        vec(random::change(), 1..20),
        vec(random::ask(), 1..20),
    );
    let graph = questions();
    random::check(48, case, |(before, after, asks)| {
        let authorizer = Authorizer::new(FEATURES);
        let mut world = World::default();
        for change in &before {
            apply(&authorizer, &mut world, change);
        }
        let asks = asks.iter().chain(graph.iter().step_by(4));
        for change in &after {
            let denied: Vec<_> = asks
                .clone()
                .filter_map(|ask| match ask.decide(&authorizer) {
                    Decision::NoOpinion(denial) => Some((ask, denial)),
                    Decision::Allow(_) => None,
                })
                .collect();
            apply(&authorizer, &mut world, change);
            for (ask, denial) in denied {
                let named = denial
                    .sources()
                    .any(|source| source == change.object.key().0);
                let changed = ask.decide(&authorizer) != Decision::NoOpinion(denial);
                prop_assert!(named || !changed, "{ask:?} after {change:?}");
            }
        }
        Ok(())
    });
}

/// The size without the bytes: tables are kept.
fn emptied(authorizer: &Authorizer) -> GraphSize {
    GraphSize {
        bytes: 0,
        ..authorizer.graph_size()
    }
}

#[test]
fn what_is_deleted_leaves_nothing_behind() {
    random::check(128, vec(random::change(), 0..80), |changes| {
        let authorizer = Authorizer::default();
        let mut world = World::default();
        for change in &changes {
            apply(&authorizer, &mut world, change);
        }
        for change in &changes {
            let (source, namespace, name) = change.object.key();
            authorizer.delete(source, namespace, name);
        }
        prop_assert_eq!(emptied(&authorizer), GraphSize::default());
        prop_assert_eq!(authorizer.rbac_size(), RbacSize::default());
        Ok(())
    });
}
