//! Persistent volumes.

use serde_json::json;

use super::{Message, Written, metadata, named};
use crate::objects::{CsiSecret, Volume, VolumePlace};

pub(crate) fn volume(volume: &Volume) -> Written {
    let (metadata_json, metadata) = metadata("", &volume.name, &[]);
    let mut spec = json!({"accessModes": ["ReadWriteOnce"], "volumeMode": "Block"});
    let mut source = Message::new().noise();
    let mut csi = Message::new().text(1, "driver").text(2, "handle");
    for (place, namespace, name) in &volume.secrets {
        let json = match namespace {
            Some(namespace) => json!({"name": name, "namespace": namespace}),
            None => json!({"name": name}),
        };
        let namespace = namespace.as_deref().unwrap_or_default();
        let reference = named(name).text(2, namespace);
        let by_reference = |number| Message::new().message(number, reference.clone());
        let (key, number, message) = match place {
            VolumePlace::AzureFile => {
                let mut azure = json!({"secretName": name, "shareName": "share"});
                let mut message = named(name).text(2, "share");
                azure["secretNamespace"] = json["namespace"].clone(); // null, if there is none
                if !json["namespace"].is_null() {
                    message = message.text(4, namespace);
                }
                spec["azureFile"] = azure;
                source = source.message(13, message);
                continue;
            }
            VolumePlace::Csi(which) => {
                let (key, number) = csi_secret(*which);
                spec["csi"][key] = json;
                csi = csi.message(number, reference);
                continue;
            }
            VolumePlace::CephFs => ("cephfs", 9, by_reference(5)),
            VolumePlace::Cinder => ("cinder", 8, by_reference(4)),
            VolumePlace::FlexVolume => ("flexVolume", 12, by_reference(3)),
            VolumePlace::Rbd => ("rbd", 6, by_reference(7)),
            VolumePlace::ScaleIo => ("scaleIO", 19, by_reference(3)),
            VolumePlace::Iscsi => ("iscsi", 7, by_reference(10)),
            VolumePlace::StorageOs => {
                let reference = Message::new().text(1, "Secret").text(2, namespace);
                let message = Message::new().message(5, reference.text(3, name));
                ("storageos", 21, message)
            }
        };
        spec[key] = json!({"secretRef": json});
        source = source.message(number, message);
    }
    if spec.get("csi").is_some() {
        source = source.message(22, csi);
    }
    let mut spec_message = Message::new().message(2, source).text(3, "ReadWriteOnce");
    if let Some((namespace, name)) = &volume.claim {
        spec["claimRef"] =
            json!({"kind": "PersistentVolumeClaim", "namespace": namespace, "name": name});
        let claim = Message::new().text(1, "PersistentVolumeClaim");
        spec_message = spec_message.message(4, claim.text(2, namespace).text(3, name));
    }
    let json = json!({"metadata": metadata_json, "spec": spec});
    let message = Message::new().message(1, metadata).message(2, spec_message);
    Written::new("PersistentVolume", "v1", json, message)
}

fn csi_secret(which: CsiSecret) -> (&'static str, u32) {
    match which {
        CsiSecret::ControllerPublish => ("controllerPublishSecretRef", 6),
        CsiSecret::NodeStage => ("nodeStageSecretRef", 7),
        CsiSecret::NodePublish => ("nodePublishSecretRef", 8),
        CsiSecret::ControllerExpand => ("controllerExpandSecretRef", 9),
        CsiSecret::NodeExpand => ("nodeExpandSecretRef", 10),
    }
}
