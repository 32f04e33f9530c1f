//! Facts are the same from JSON and from protobuf, and what a walk over the JSON finds by itself.

use proptest::prelude::*;
use serde_json::Value;
use watershed_authorizer::{Facts, FactsError, Source};

use crate::objects::{Place, Pod, Target};
use crate::parity::written;
use crate::random;
use crate::write;

/// Facts as text: kind, namespace and name of what is mentioned, sorted.
fn shown(facts: &Facts<'_>) -> Vec<String> {
    let mut lines = match facts {
        Facts::Pod(pod) => {
            let owner = format!("pod {}/{} on {}", pod.namespace, pod.name, pod.node);
            let mentions = pod.references.iter();
            let mentions = mentions.map(|it| format!("{:?} {}", it.kind, it.name));
            mentions.chain([owner]).collect()
        }
        Facts::PersistentVolume(volume) => {
            let owner = format!("volume {} for {:?}", volume.name, volume.claim);
            let secrets = volume.secrets.iter();
            let secrets = secrets.map(|(namespace, name)| format!("secret {namespace}/{name}"));
            secrets.chain([owner]).collect()
        }
        other => vec![format!("{other:?}")],
    };
    lines.sort();
    lines
}

/// Every object found under a path; `[]` stands for each item of a list.
fn at<'v>(value: &'v Value, path: &str) -> Vec<&'v Value> {
    path.split('.').fold(vec![value], |values, step| {
        let found = values
            .into_iter()
            .flat_map(|value| match step.strip_suffix("[]") {
                Some(list) => value[list]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .collect::<Vec<_>>(),
                None => vec![&value[step]],
            });
        found.filter(|value| !value.is_null()).collect()
    })
}

fn texts(value: &Value, path: &str) -> Vec<String> {
    let found = at(value, path).into_iter();
    found
        .filter_map(Value::as_str)
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
        .collect()
}

const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

const POD_PATHS: &[(&str, &str)] = &[
    ("ServiceAccount", "spec.serviceAccountName"),
    ("Secret", "spec.imagePullSecrets[].name"),
    ("Secret", "spec.volumes[].azureFile.secretName"),
    ("Secret", "spec.volumes[].cephfs.secretRef.name"),
    ("Secret", "spec.volumes[].cinder.secretRef.name"),
    ("Secret", "spec.volumes[].flexVolume.secretRef.name"),
    ("Secret", "spec.volumes[].projected.sources[].secret.name"),
    ("Secret", "spec.volumes[].rbd.secretRef.name"),
    ("Secret", "spec.volumes[].secret.secretName"),
    ("Secret", "spec.volumes[].scaleIO.secretRef.name"),
    ("Secret", "spec.volumes[].iscsi.secretRef.name"),
    ("Secret", "spec.volumes[].storageos.secretRef.name"),
    ("Secret", "spec.volumes[].csi.nodePublishSecretRef.name"),
    ("ConfigMap", "spec.volumes[].configMap.name"),
    (
        "ConfigMap",
        "spec.volumes[].projected.sources[].configMap.name",
    ),
    (
        "PersistentVolumeClaim",
        "spec.volumes[].persistentVolumeClaim.claimName",
    ),
    ("ResourceClaim", "spec.resourceClaims[].resourceClaimName"),
    (
        "ResourceClaim",
        "status.extendedResourceClaimStatus.resourceClaimName",
    ),
];

/// What a pod says, by walking its JSON.
fn walked_pod(pod: &Value) -> Vec<String> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    let mut lines = vec![format!("pod {namespace}/{name} on {node}")];
    if pod["metadata"]["annotations"]
        .get("kubernetes.io/config.mirror")
        .is_some()
    {
        return lines;
    }
    let mut add = |kind: &str, names: Vec<String>| {
        lines.extend(names.iter().map(|name| format!("{kind} {name}")));
    };
    for (kind, path) in POD_PATHS {
        add(kind, texts(pod, path));
    }
    for containers in CONTAINERS {
        for (kind, place) in [
            ("Secret", "env[].valueFrom.secretKeyRef.name"),
            ("Secret", "envFrom[].secretRef.name"),
            ("ConfigMap", "env[].valueFrom.configMapKeyRef.name"),
            ("ConfigMap", "envFrom[].configMapRef.name"),
        ] {
            add(kind, texts(pod, &format!("spec.{containers}[].{place}")));
        }
    }
    for volume in at(pod, "spec.volumes[]") {
        if !volume["ephemeral"].is_null() {
            let volume = volume["name"].as_str().unwrap_or_default();
            add("PersistentVolumeClaim", vec![format!("{name}-{volume}")]);
        }
    }
    for claim in at(pod, "spec.resourceClaims[]") {
        if claim["resourceClaimName"].is_null() && !claim["resourceClaimTemplateName"].is_null() {
            let statuses = at(pod, "status.resourceClaimStatuses[]");
            let status = statuses
                .into_iter()
                .find(|status| status["name"] == claim["name"]);
            add(
                "ResourceClaim",
                status.map_or(Vec::new(), |status| texts(status, "resourceClaimName")),
            );
        }
    }
    lines.sort();
    lines
}

/// Where a volume mentions secrets, and whether a reference without a namespace means the claim's.
const VOLUME_PATHS: &[(&str, &str, &str, bool)] = &[
    ("spec.azureFile", "secretNamespace", "secretName", true),
    ("spec.cephfs.secretRef", "namespace", "name", true),
    ("spec.cinder.secretRef", "namespace", "name", false),
    ("spec.flexVolume.secretRef", "namespace", "name", true),
    ("spec.rbd.secretRef", "namespace", "name", true),
    ("spec.scaleIO.secretRef", "namespace", "name", true),
    ("spec.iscsi.secretRef", "namespace", "name", true),
    ("spec.storageos.secretRef", "namespace", "name", false),
    ("spec.csi.nodePublishSecretRef", "namespace", "name", false),
    ("spec.csi.nodeStageSecretRef", "namespace", "name", false),
    ("spec.csi.nodeExpandSecretRef", "namespace", "name", false),
];

/// What a volume says, by walking its JSON.
fn walked_volume(volume: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = text(&volume["metadata"]["name"]);
    let claim = at(volume, "spec.claimRef");
    let claim = claim
        .first()
        .map(|claim| (text(&claim["namespace"]), text(&claim["name"])));
    let mut lines = vec![format!("volume {name} for {claim:?}")];
    let Some((claim_namespace, _)) = claim else {
        return lines;
    };
    for (path, namespace, name, defaulted) in VOLUME_PATHS {
        for reference in at(volume, path) {
            let own = text(&reference[*namespace]);
            let default = own.is_empty() && *defaulted;
            let namespace = if default { &claim_namespace } else { &own };
            let name = text(&reference[*name]);
            if !name.is_empty() {
                lines.push(format!("secret {namespace}/{name}"));
            }
        }
    }
    lines.sort();
    lines
}

#[test]
fn both_encodings_say_the_same() {
    random::check(
        1024,
        (random::object(), any::<u64>()),
        |(object, mut seed)| {
            let written = written(&object);
            let (source, ..) = object.key();
            let json = write::json(&written.json, &mut seed);
            let from_json = Facts::read(source, json.as_bytes()).expect("JSON is read");
            let from_protobuf = Facts::read(source, &written.protobuf).expect("protobuf is read");
            let lines = shown(&from_json);
            prop_assert_eq!(&lines, &shown(&from_protobuf), "{}", json);
            match source {
                Source::Pods => prop_assert_eq!(lines, walked_pod(&written.json), "{}", json),
                Source::PersistentVolumes => {
                    prop_assert_eq!(lines, walked_volume(&written.json), "{}", json);
                }
                _other => {}
            }
            Ok(())
        },
    );
}

/// What the objects of `k8s.io/api` say, in which every field is set, written by Kubernetes itself.
#[test]
#[ignore = "needs WATERSHED_API_TESTDATA, the folder testdata/HEAD of k8s.io/api"]
fn every_field_is_found_in_the_apis_own_objects() {
    let folder = std::env::var("WATERSHED_API_TESTDATA").expect("the folder");
    let table = [
        (Source::Pods, "core.v1.Pod"),
        (Source::PersistentVolumes, "core.v1.PersistentVolume"),
        (
            Source::VolumeAttachments,
            "storage.k8s.io.v1.VolumeAttachment",
        ),
        (Source::ResourceSlices, "resource.k8s.io.v1.ResourceSlice"),
        (
            Source::PodCertificateRequests,
            "certificates.k8s.io.v1beta1.PodCertificateRequest",
        ),
        (Source::Roles, "rbac.authorization.k8s.io.v1.Role"),
        (
            Source::ClusterRoles,
            "rbac.authorization.k8s.io.v1.ClusterRole",
        ),
        (
            Source::RoleBindings,
            "rbac.authorization.k8s.io.v1.RoleBinding",
        ),
        (
            Source::ClusterRoleBindings,
            "rbac.authorization.k8s.io.v1.ClusterRoleBinding",
        ),
    ];
    for (source, name) in table {
        let read = |end: &str| {
            let path = format!("{folder}/{name}.{end}");
            std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
        };
        let (json, protobuf) = (read("json"), read("pb"));
        let lines = shown(&Facts::read(source, &json).expect("JSON is read"));
        let other = shown(&Facts::read(source, &protobuf).expect("protobuf is read"));
        assert_eq!(lines, other, "{name}");
        let value: Value = serde_json::from_slice(&json).expect("JSON");
        match source {
            Source::Pods => assert_eq!(lines, walked_pod(&value)),
            Source::PersistentVolumes => assert_eq!(lines, walked_volume(&value)),
            _other => assert!(lines[0].contains("nameValue"), "{lines:?}"),
        }
    }
}

#[test]
fn damaged_bytes_are_refused_and_never_panic() {
    let pod = Pod {
        namespace: "ns".to_owned(),
        name: "pod".to_owned(),
        node: "n1".to_owned(),
        mirror: false,
        mentions: vec![(Place::Volume(Target::Secret), "it".to_owned())],
    };
    let written = write::pod(&pod);
    let json = written.json.to_string();
    for end in 1..json.len() {
        let read = Facts::read(Source::Pods, &json.as_bytes()[..end]);
        assert!(
            matches!(read, Err(FactsError::Json { .. })),
            "JSON cut at {end}"
        );
    }
    // What is left of protobuf may be a message, but only of what stood there.
    for end in 4..written.protobuf.len() {
        let read = Facts::read(Source::Pods, &written.protobuf[..end]);
        assert!(
            read.is_ok() || matches!(read, Err(FactsError::Protobuf(_) | FactsError::Nameless)),
            "cut at {end}"
        );
    }
    random::check(
        512,
        proptest::collection::vec((any::<usize>(), any::<u8>()), 1..4),
        |bytes| {
            let mut damaged = written.protobuf.clone();
            for (place, byte) in bytes {
                let place = place % damaged.len();
                damaged[place] = byte;
            }
            drop(Facts::read(Source::Pods, &damaged));
            Ok(())
        },
    );
}

#[test]
fn unexpected_objects_are_refused_without_quoting_them() {
    let table = [
        r#"{"metadata":{"name":7}}"#,
        r#"{"metadata":"hunter2"}"#,
        r#"{"metadata":{"name":{"hunter2":1}}}"#,
        r#"{"metadata":{"annotations":"hunter2"}}"#,
        r#"{"spec":{"volumes":["hunter2"]}}"#,
        r#"{"spec":true}"#,
    ];
    for json in table {
        let error = Facts::read(Source::Pods, json.as_bytes()).expect_err(json);
        assert!(
            matches!(error, FactsError::Mistyped { .. }),
            "{json}: {error:?}"
        );
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
    let nameless = [
        (Source::Pods, r#"{"metadata":{"name":"p"}}"#),
        (Source::Roles, r#"{"metadata":{"name":"r"}}"#),
        (Source::Pods, r#"{"metadata":{"namespace":"ns"}}"#),
        (Source::ClusterRoles, "{}"),
    ];
    for (source, json) in nameless {
        let error = Facts::read(source, json.as_bytes()).expect_err(json);
        assert_eq!(error, FactsError::Nameless, "{json}");
    }
    let error = Facts::read(Source::Pods, b"hunter2").expect_err("no JSON");
    assert_eq!(error.to_string(), "malformed JSON at line 1 column 1");
}
