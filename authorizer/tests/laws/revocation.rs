//! Who may have lost a right is told, and seen by its generation; who has not is left alone.

use proptest::collection::vec;
use proptest::prelude::*;
use watershed_authorizer::{Authorizer, Revoked, Source, User};

use crate::ask::Ask;
use crate::model::{Object, World};
use crate::objects::{Binding, Bound, CsiSecret, Place, Pod, Role, Rule, Volume, VolumePlace};
use crate::parity::{feed, questions};
use crate::random;

fn pod(name: &str, node: &str, mentions: &[(Place, &str)]) -> Object {
    Object::Pod(Pod {
        namespace: "ns".to_owned(),
        name: name.to_owned(),
        node: node.to_owned(),
        mirror: false,
        mentions: mentions
            .iter()
            .map(|&(place, name)| (place, name.to_owned()))
            .collect(),
    })
}

fn volume(claim: Option<&str>, secret: &str) -> Object {
    Object::Volume(Volume {
        name: "volume".to_owned(),
        claim: claim.map(|claim| ("ns".to_owned(), claim.to_owned())),
        secrets: vec![(
            VolumePlace::Csi(CsiSecret::NodeStage),
            Some("ns".to_owned()),
            secret.to_owned(),
        )],
    })
}

fn node(name: &str) -> Revoked {
    Revoked::Node(name.into())
}

fn generation(authorizer: &Authorizer, user: &str) -> watershed_authorizer::Generation {
    let groups = ["system:nodes".to_owned()];
    authorizer.generation(&User {
        name: user,
        groups: &groups,
    })
}

#[test]
fn a_pod_that_loses_a_mention_or_goes_revokes_from_its_node() {
    let authorizer = Authorizer::default();
    let (secret, other) = ((Place::Csi, "s"), (Place::Iscsi, "o"));
    let steps = [
        (pod("p", "n1", &[secret]), Revoked::Nothing),
        (pod("p", "n1", &[secret]), Revoked::Nothing),
        (pod("p", "n1", &[secret, other]), Revoked::Nothing),
        (pod("p", "n1", &[secret]), node("n1")),
        (pod("p", "n2", &[secret]), node("n1")),
        (pod("q", "", &[secret]), Revoked::Nothing),
        (pod("p", "", &[secret]), node("n2")),
        (pod("p", "n1", &[secret]), Revoked::Nothing),
    ];
    for (step, (object, revoked)) in steps.iter().enumerate() {
        assert_eq!(feed(&authorizer, object), *revoked, "step {step}");
    }
    assert_eq!(authorizer.delete(Source::Pods, "ns", "p"), node("n1"));
    assert_eq!(authorizer.delete(Source::Pods, "ns", "p"), Revoked::Nothing);
}

#[test]
fn a_volume_revokes_only_while_a_pod_uses_its_claim() {
    let authorizer = Authorizer::default();
    feed(&authorizer, &volume(Some("c"), "s"));
    assert_eq!(feed(&authorizer, &volume(Some("d"), "s")), Revoked::Nothing);
    feed(
        &authorizer,
        &pod("p", "n1", &[(Place::PersistentVolumeClaim, "d")]),
    );
    assert_eq!(feed(&authorizer, &volume(Some("d"), "s")), Revoked::Nothing);
    assert_eq!(feed(&authorizer, &volume(Some("d"), "t")), Revoked::AnyNode);
    assert_eq!(feed(&authorizer, &volume(None, "t")), Revoked::AnyNode);
    feed(&authorizer, &volume(Some("d"), "t"));
    let deleted = authorizer.delete(Source::PersistentVolumes, "", "volume");
    assert_eq!(deleted, Revoked::AnyNode);
}

#[test]
fn volumes_of_a_claim_that_no_pod_uses_revoke_nothing() {
    let authorizer = Authorizer::default();
    for name in ["first", "second"] {
        feed(
            &authorizer,
            &Object::Volume(Volume {
                name: name.to_owned(),
                claim: Some(("ns".to_owned(), "c".to_owned())),
                secrets: Vec::new(),
            }),
        );
    }
    for name in ["first", "second"] {
        let deleted = authorizer.delete(Source::PersistentVolumes, "", name);
        assert_eq!(deleted, Revoked::Nothing, "{name}");
    }
}

#[test]
fn an_attachment_revokes_from_the_node_it_leaves() {
    let authorizer = Authorizer::default();
    let attachment = |node: &str| {
        Object::Attachment(Bound {
            name: "a".to_owned(),
            node: node.to_owned(),
            ..Bound::default()
        })
    };
    assert_eq!(feed(&authorizer, &attachment("n1")), Revoked::Nothing);
    assert_eq!(feed(&authorizer, &attachment("n1")), Revoked::Nothing);
    assert_eq!(feed(&authorizer, &attachment("n2")), node("n1"));
    let deleted = authorizer.delete(Source::VolumeAttachments, "", "a");
    assert_eq!(deleted, node("n2"));
}

#[test]
fn roles_and_bindings_revoke_when_they_give_less() {
    let authorizer = Authorizer::default();
    let role = |verbs: &[&str]| {
        let rules = verbs.iter().map(|&verb| Rule {
            verbs: vec![verb.to_owned()],
            ..Rule::default()
        });
        Object::Role(Role {
            name: "r".to_owned(),
            rules: rules.collect(),
            ..Role::default()
        })
    };
    let binding = |role: &str, users: &[&str]| {
        let users = users.iter();
        Object::Binding(Binding {
            name: "b".to_owned(),
            role: ("ClusterRole".to_owned(), role.to_owned()),
            subjects: users
                .map(|&user| ("User".to_owned(), String::new(), user.to_owned()))
                .collect(),
            ..Binding::default()
        })
    };
    let steps = [
        (role(&["get"]), Revoked::Nothing),
        (role(&["list", "get"]), Revoked::Nothing),
        (role(&["get"]), Revoked::AnyUser),
        (binding("r", &["alice"]), Revoked::Nothing),
        (binding("r", &["bob", "alice"]), Revoked::Nothing),
        (binding("r", &["bob"]), Revoked::AnyUser),
        (binding("q", &["bob"]), Revoked::AnyUser),
    ];
    for (step, (object, revoked)) in steps.iter().enumerate() {
        let before = generation(&authorizer, "alice");
        assert_eq!(feed(&authorizer, object), *revoked, "step {step}");
        let changed = generation(&authorizer, "alice") != before;
        assert_eq!(changed, *revoked == Revoked::AnyUser, "step {step}");
    }
    let deleted = authorizer.delete(Source::ClusterRoleBindings, "", "b");
    assert_eq!(deleted, Revoked::AnyUser);
    assert_eq!(
        authorizer.delete(Source::ClusterRoles, "", "r"),
        Revoked::AnyUser
    );
    assert_eq!(
        authorizer.delete(Source::ClusterRoles, "", "r"),
        Revoked::Nothing
    );
}

#[test]
fn a_generation_stays_while_others_lose() {
    let authorizer = Authorizer::default();
    feed(&authorizer, &pod("p", "n1", &[]));
    feed(&authorizer, &pod("q", "n2", &[]));
    let of = |node: &str| generation(&authorizer, &format!("system:node:{node}"));
    let before = of("n1");
    authorizer.delete(Source::Pods, "ns", "q");
    assert_eq!(of("n1"), before);
    authorizer.delete(Source::Pods, "ns", "p");
    assert_ne!(of("n1"), before);
}

#[test]
fn a_generation_never_comes_back_when_its_node_does() {
    let authorizer = Authorizer::default();
    let mut seen = Vec::new();
    for _round in 0..5 {
        feed(&authorizer, &pod("p", "n1", &[]));
        let generation = generation(&authorizer, "system:node:n1");
        assert!(!seen.contains(&generation), "{generation:?} again");
        seen.push(generation);
        authorizer.delete(Source::Pods, "ns", "p");
    }
}

/// Whoever could do something before a change and cannot after it has another generation.
#[test]
fn no_right_is_lost_unnoticed() {
    let graph = questions();
    let case = (vec(random::change(), 1..40), vec(random::ask(), 20));
    random::check(48, case, |(changes, asks)| {
        let authorizer = Authorizer::default();
        let mut world = World::default();
        let asks: Vec<&Ask> = asks.iter().chain(graph.iter().step_by(7)).collect();
        for change in &changes {
            let rights = |ask: &&Ask| {
                (
                    ask.allowed(&authorizer),
                    ask.with(|asks| authorizer.generation(&asks.user)),
                )
            };
            let before: Vec<_> = asks.iter().map(rights).collect();
            crate::parity::apply(&authorizer, &mut world, change);
            for (ask, (could, generation)) in asks.iter().zip(before) {
                let (can, now) = rights(ask);
                prop_assert!(
                    !could || can || now != generation,
                    "{ask:?} after {change:?}"
                );
            }
        }
        Ok(())
    });
}
