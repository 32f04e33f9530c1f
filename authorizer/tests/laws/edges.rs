//! Every way through the graph, by itself.

use watershed_authorizer::{Authorizer, Facts, Source};

use crate::ask::Ask;
use crate::model::Object;
use crate::objects::{Bound, Container, CsiSecret, Made, Place, Pod, Target, Volume, VolumePlace};
use crate::parity::feed;
use crate::write;

fn pod(node: &str, mentions: &[(Place, &str)]) -> Pod {
    Pod {
        namespace: "ns".to_owned(),
        name: "pod".to_owned(),
        node: node.to_owned(),
        mirror: false,
        mentions: mentions
            .iter()
            .map(|&(place, name)| (place, name.to_owned()))
            .collect(),
    }
}

fn volume(secrets: &[(VolumePlace, Option<&str>, &str)]) -> Volume {
    Volume {
        name: "volume".to_owned(),
        claim: Some(("ns".to_owned(), "claim".to_owned())),
        secrets: secrets
            .iter()
            .map(|&(place, namespace, name)| (place, namespace.map(str::to_owned), name.to_owned()))
            .collect(),
    }
}

fn may(authorizer: &Authorizer, node: &str, request: &str) -> bool {
    Ask::new(request).by_node(node).allowed(authorizer)
}

fn target(resource: &str) -> String {
    match resource {
        "resourceclaims" => "resourceclaims@resource.k8s.io".to_owned(),
        other => other.to_owned(),
    }
}

#[test]
fn each_place_gives_what_it_mentions_and_nothing_else() {
    let resources = [
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "serviceaccounts",
        "resourceclaims",
    ];
    for &place in Place::ALL {
        let authorizer = Authorizer::default();
        feed(&authorizer, &Object::Pod(pod("n1", &[(place, "it")])));
        let given = place.gives("pod", "it");
        for resource in resources {
            for name in ["it", "pod-it", "it-made"] {
                let request = format!("get {} ns/{name}", target(resource));
                let expected = given == Some((resource, name.to_owned()));
                assert_eq!(
                    may(&authorizer, "n1", &request),
                    expected,
                    "{place:?}: {request}"
                );
                assert!(
                    !may(&authorizer, "n2", &request),
                    "{place:?}: {request} by n2"
                );
                let elsewhere = request.replace("ns/", "other/");
                assert!(
                    !may(&authorizer, "n1", &elsewhere),
                    "{place:?}: {elsewhere}"
                );
            }
        }
    }
}

#[test]
fn an_ephemeral_container_added_later_gives_its_secret() {
    let authorizer = Authorizer::default();
    let request = "watch secrets ns/late";
    feed(&authorizer, &Object::Pod(pod("n1", &[])));
    assert!(!may(&authorizer, "n1", request));
    let place = Place::EnvFrom(Container::Ephemeral, Target::Secret);
    feed(&authorizer, &Object::Pod(pod("n1", &[(place, "late")])));
    assert!(may(&authorizer, "n1", request));
}

#[test]
fn a_claim_from_a_template_is_given_once_its_status_names_it() {
    let authorizer = Authorizer::default();
    let request = "get resourceclaims@resource.k8s.io ns/gpu-made";
    for (made, given) in [
        (Made::NotYet, false),
        (Made::NotNeeded, false),
        (Made::Object, true),
    ] {
        let pod = pod("n1", &[(Place::FromTemplate(made), "gpu")]);
        feed(&authorizer, &Object::Pod(pod));
        assert_eq!(may(&authorizer, "n1", request), given, "{made:?}");
    }
}

#[test]
fn a_claim_of_a_kind_nobody_knows_gives_nothing() {
    let authorizer = Authorizer::default();
    let mut pod = write::pod(&pod("n1", &[(Place::FromTemplate(Made::Object), "gpu")])).json;
    pod["spec"]["resourceClaims"][0] = serde_json::json!({"name": "gpu", "fromTheFuture": "x"});
    let pod = pod.to_string();
    authorizer.upsert(Facts::read(Source::Pods, pod.as_bytes()).expect("a pod"));
    let request = "get resourceclaims@resource.k8s.io ns/gpu-made";
    assert!(!may(&authorizer, "n1", request));
}

#[test]
fn a_mirror_pod_gives_itself_and_nothing_else() {
    let authorizer = Authorizer::default();
    let mut pod = pod("n1", &[(Place::Volume(Target::Secret), "it")]);
    pod.mirror = true;
    feed(&authorizer, &Object::Pod(pod));
    assert!(may(&authorizer, "n1", "get pods ns/pod"));
    assert!(!may(&authorizer, "n1", "get secrets ns/it"));
}

#[test]
fn a_pod_gives_from_binding_to_deletion() {
    let authorizer = Authorizer::default();
    let request = "get secrets ns/it";
    let mention = [(Place::ImagePullSecret, "it")];
    feed(&authorizer, &Object::Pod(pod("", &mention)));
    assert!(!may(&authorizer, "n1", request));
    feed(&authorizer, &Object::Pod(pod("n1", &mention)));
    assert!(may(&authorizer, "n1", request));
    // Completed.
    let mut done = write::pod(&pod("n1", &mention)).json;
    done["status"]["phase"] = serde_json::json!("Succeeded");
    let done = done.to_string();
    authorizer.upsert(Facts::read(Source::Pods, done.as_bytes()).expect("a pod"));
    assert!(may(&authorizer, "n1", request));
    authorizer.delete(Source::Pods, "ns", "pod");
    assert!(!may(&authorizer, "n1", request));
}

#[test]
fn a_pod_of_the_same_name_on_another_node_takes_everything_along() {
    let authorizer = Authorizer::default();
    let mention = [(Place::ImagePullSecret, "it")];
    feed(&authorizer, &Object::Pod(pod("n1", &mention)));
    feed(&authorizer, &Object::Pod(pod("n2", &mention)));
    assert!(!may(&authorizer, "n1", "get secrets ns/it"));
    assert!(may(&authorizer, "n2", "get secrets ns/it"));
    feed(&authorizer, &Object::Pod(pod("", &mention)));
    assert!(!may(&authorizer, "n2", "get secrets ns/it"));
    assert!(!may(&authorizer, "n2", "get pods ns/pod"));
}

#[test]
fn what_two_pods_mention_is_given_until_both_are_gone() {
    let authorizer = Authorizer::default();
    let mention = [(Place::ImagePullSecret, "it"), (Place::Csi, "it")];
    let mut second = pod("n1", &mention);
    second.name = "second".to_owned();
    feed(&authorizer, &Object::Pod(pod("n1", &mention)));
    feed(&authorizer, &Object::Pod(second));
    authorizer.delete(Source::Pods, "ns", "pod");
    assert!(may(&authorizer, "n1", "get secrets ns/it"));
    authorizer.delete(Source::Pods, "ns", "second");
    assert!(!may(&authorizer, "n1", "get secrets ns/it"));
}

#[test]
fn a_claim_is_given_before_its_volume_exists() {
    let authorizer = Authorizer::default();
    let mention = [(Place::PersistentVolumeClaim, "claim")];
    feed(&authorizer, &Object::Pod(pod("n1", &mention)));
    assert!(may(
        &authorizer,
        "n1",
        "get persistentvolumeclaims ns/claim"
    ));
    assert!(!may(&authorizer, "n1", "get persistentvolumes volume"));
    feed(&authorizer, &Object::Volume(volume(&[])));
    assert!(may(&authorizer, "n1", "get persistentvolumes volume"));
    assert!(!may(&authorizer, "n2", "get persistentvolumes volume"));
}

#[test]
fn each_secret_of_a_volume_is_given_as_the_kubelet_needs_it() {
    let places = VolumePlace::ALONE.iter().chain(VolumePlace::CSI);
    for &place in places {
        for own in [None, Some(""), Some("vault")] {
            let authorizer = Authorizer::default();
            let mention = [(Place::PersistentVolumeClaim, "claim")];
            feed(&authorizer, &Object::Pod(pod("n1", &mention)));
            feed(&authorizer, &Object::Volume(volume(&[(place, own, "it")])));
            for namespace in ["ns", "vault"] {
                let request = format!("get secrets {namespace}/it");
                let expected = place.is_visible()
                    && match own {
                        Some("vault") => namespace == "vault",
                        _other => place.is_defaulted() && namespace == "ns",
                    };
                let case = format!("{place:?} in {own:?}: {request}");
                assert_eq!(may(&authorizer, "n1", &request), expected, "{case}");
                assert!(!may(&authorizer, "n2", &request), "{case} by n2");
            }
        }
    }
}

#[test]
fn a_volume_without_its_claim_gives_nothing() {
    let authorizer = Authorizer::default();
    let mention = [(Place::PersistentVolumeClaim, "claim")];
    let stage = VolumePlace::Csi(CsiSecret::NodeStage);
    let with = volume(&[(stage, Some("ns"), "it")]);
    feed(&authorizer, &Object::Pod(pod("n1", &mention)));
    feed(&authorizer, &Object::Volume(with.clone()));
    assert!(may(&authorizer, "n1", "get secrets ns/it"));
    let without = Volume {
        claim: None,
        ..with
    };
    feed(&authorizer, &Object::Volume(without));
    assert!(!may(&authorizer, "n1", "get secrets ns/it"));
    assert!(!may(&authorizer, "n1", "get persistentvolumes volume"));
}

#[test]
fn volumes_of_one_claim_give_what_each_needs() {
    let authorizer = Authorizer::default();
    let mention = [(Place::PersistentVolumeClaim, "claim")];
    let stage = VolumePlace::Csi(CsiSecret::NodeStage);
    feed(&authorizer, &Object::Pod(pod("n1", &mention)));
    let names = ["first", "second", "third"];
    for name in names {
        let mut volume = volume(&[(stage, Some("ns"), name)]);
        volume.name = name.to_owned();
        feed(&authorizer, &Object::Volume(volume));
    }
    let given = || names.map(|name| may(&authorizer, "n1", &format!("get secrets ns/{name}")));
    assert_eq!(given(), [true, true, true]);
    authorizer.delete(Source::PersistentVolumes, "", "second");
    assert_eq!(given(), [true, false, true]);
    authorizer.delete(Source::PersistentVolumes, "", "first");
    assert_eq!(given(), [false, false, true]);
    authorizer.delete(Source::PersistentVolumes, "", "third");
    assert_eq!(given(), [false, false, false]);
}

#[test]
fn what_belongs_to_a_node_moves_with_it() {
    type Wrap = fn(Bound) -> Object;
    let table: [(Wrap, Source, &str, &str); 2] = [
        (
            Object::Attachment,
            Source::VolumeAttachments,
            "volumeattachments@storage.k8s.io",
            "",
        ),
        (
            Object::Slice,
            Source::ResourceSlices,
            "resourceslices@resource.k8s.io",
            "",
        ),
    ];
    for (wrap, source, resource, namespace) in table {
        let authorizer = Authorizer::default();
        let bound = |node: &str| {
            wrap(Bound {
                namespace: namespace.to_owned(),
                name: "it".to_owned(),
                node: node.to_owned(),
            })
        };
        let request = format!("get {resource} it");
        let given = || {
            [
                may(&authorizer, "n1", &request),
                may(&authorizer, "n2", &request),
            ]
        };
        feed(&authorizer, &bound("n1"));
        assert_eq!(given(), [true, false], "{resource}");
        feed(&authorizer, &bound("n2"));
        assert_eq!(given(), [false, true], "{resource}");
        feed(&authorizer, &bound(""));
        assert_eq!(given(), [false, false], "{resource}");
        feed(&authorizer, &bound("n2"));
        authorizer.delete(source, namespace, "it");
        assert_eq!(given(), [false, false], "{resource}");
    }
}

#[test]
fn a_change_never_takes_away_what_it_keeps() {
    let authorizer = Authorizer::default();
    let kept = (Place::ImagePullSecret, "kept");
    feed(&authorizer, &Object::Pod(pod("n1", &[kept])));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 0..300 {
                let other = format!("other-{round}");
                let mentions = [kept, (Place::Csi, &other)];
                let pod = pod("n1", &mentions[..1 + round % 2]);
                feed(&authorizer, &Object::Pod(pod));
            }
        });
        while !writer.is_finished() {
            assert!(may(&authorizer, "n1", "get secrets ns/kept"));
            assert!(!may(&authorizer, "n2", "get secrets ns/kept"));
        }
    });
}
