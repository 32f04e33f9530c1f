//! The table of built-in resources, as `kubectl api-resources -o wide` prints it for 1.36.

use super::Resource;

/// Verbs of an ordinary stored resource, in the order discovery prints them.
pub(super) const CRUD: &str = "create delete deletecollection get list patch update watch";

/// One line per resource: group, version, plural, singular, kind, scope (n/c), short names,
/// categories, subresources. The verbs are `CRUD` unless `verbs_of` says otherwise.
const TABLE: &str = "\
- v1 pods pod Pod n po all status,log,exec,attach,portforward,proxy,binding,eviction,ephemeralcontainers,resize
- v1 nodes node Node c no - status,proxy
- v1 namespaces namespace Namespace c ns - status,finalize
- v1 services service Service n svc all status,proxy
- v1 endpoints endpoints Endpoints n ep - -
- v1 configmaps configmap ConfigMap n cm - -
- v1 secrets secret Secret n - - -
- v1 serviceaccounts serviceaccount ServiceAccount n sa - token
- v1 persistentvolumes persistentvolume PersistentVolume c pv - status
- v1 persistentvolumeclaims persistentvolumeclaim PersistentVolumeClaim n pvc - status
- v1 replicationcontrollers replicationcontroller ReplicationController n rc all status,scale
- v1 resourcequotas resourcequota ResourceQuota n quota - status
- v1 limitranges limitrange LimitRange n limits - -
- v1 podtemplates podtemplate PodTemplate n - - -
- v1 events event Event n ev - -
- v1 componentstatuses componentstatus ComponentStatus c cs - -
- v1 bindings binding Binding n - - -
apps v1 deployments deployment Deployment n deploy all status,scale
apps v1 replicasets replicaset ReplicaSet n rs all status,scale
apps v1 daemonsets daemonset DaemonSet n ds all status
apps v1 statefulsets statefulset StatefulSet n sts all status,scale
apps v1 controllerrevisions controllerrevision ControllerRevision n - - -
batch v1 jobs job Job n - all status
batch v1 cronjobs cronjob CronJob n cj all status
autoscaling v1 horizontalpodautoscalers horizontalpodautoscaler HorizontalPodAutoscaler n hpa all status
autoscaling v2 horizontalpodautoscalers horizontalpodautoscaler HorizontalPodAutoscaler n hpa all status
policy v1 poddisruptionbudgets poddisruptionbudget PodDisruptionBudget n pdb - status
networking.k8s.io v1 ingresses ingress Ingress n ing - status
networking.k8s.io v1 ingressclasses ingressclass IngressClass c - - -
networking.k8s.io v1 networkpolicies networkpolicy NetworkPolicy n netpol - -
networking.k8s.io v1 ipaddresses ipaddress IPAddress c ip - -
networking.k8s.io v1 servicecidrs servicecidr ServiceCIDR c - - status
storage.k8s.io v1 storageclasses storageclass StorageClass c sc - -
storage.k8s.io v1 volumeattachments volumeattachment VolumeAttachment c - - status
storage.k8s.io v1 csidrivers csidriver CSIDriver c - - -
storage.k8s.io v1 csinodes csinode CSINode c - - -
storage.k8s.io v1 csistoragecapacities csistoragecapacity CSIStorageCapacity n - - -
storage.k8s.io v1 volumeattributesclasses volumeattributesclass VolumeAttributesClass c vac - -
rbac.authorization.k8s.io v1 roles role Role n - - -
rbac.authorization.k8s.io v1 rolebindings rolebinding RoleBinding n - - -
rbac.authorization.k8s.io v1 clusterroles clusterrole ClusterRole c - - -
rbac.authorization.k8s.io v1 clusterrolebindings clusterrolebinding ClusterRoleBinding c - - -
coordination.k8s.io v1 leases lease Lease n - - -
discovery.k8s.io v1 endpointslices endpointslice EndpointSlice n - - -
events.k8s.io v1 events event Event n ev - -
node.k8s.io v1 runtimeclasses runtimeclass RuntimeClass c - - -
scheduling.k8s.io v1 priorityclasses priorityclass PriorityClass c pc - -
certificates.k8s.io v1 certificatesigningrequests certificatesigningrequest CertificateSigningRequest c csr - approval,status
apiextensions.k8s.io v1 customresourcedefinitions customresourcedefinition CustomResourceDefinition c crd,crds api-extensions status
apiregistration.k8s.io v1 apiservices apiservice APIService c - api-extensions status
admissionregistration.k8s.io v1 mutatingwebhookconfigurations mutatingwebhookconfiguration MutatingWebhookConfiguration c - api-extensions -
admissionregistration.k8s.io v1 validatingwebhookconfigurations validatingwebhookconfiguration ValidatingWebhookConfiguration c - api-extensions -
admissionregistration.k8s.io v1 validatingadmissionpolicies validatingadmissionpolicy ValidatingAdmissionPolicy c - api-extensions status
admissionregistration.k8s.io v1 validatingadmissionpolicybindings validatingadmissionpolicybinding ValidatingAdmissionPolicyBinding c - api-extensions -
admissionregistration.k8s.io v1 mutatingadmissionpolicies mutatingadmissionpolicy MutatingAdmissionPolicy c - api-extensions -
admissionregistration.k8s.io v1 mutatingadmissionpolicybindings mutatingadmissionpolicybinding MutatingAdmissionPolicyBinding c - api-extensions -
flowcontrol.apiserver.k8s.io v1 flowschemas flowschema FlowSchema c - - status
flowcontrol.apiserver.k8s.io v1 prioritylevelconfigurations prioritylevelconfiguration PriorityLevelConfiguration c - - status
resource.k8s.io v1 deviceclasses deviceclass DeviceClass c - - -
resource.k8s.io v1 resourceclaims resourceclaim ResourceClaim n - - status
resource.k8s.io v1 resourceclaimtemplates resourceclaimtemplate ResourceClaimTemplate n - - -
resource.k8s.io v1 resourceslices resourceslice ResourceSlice c - - -
authentication.k8s.io v1 tokenreviews tokenreview TokenReview c - - -
authentication.k8s.io v1 selfsubjectreviews selfsubjectreview SelfSubjectReview c - - -
authorization.k8s.io v1 subjectaccessreviews subjectaccessreview SubjectAccessReview c - - -
authorization.k8s.io v1 selfsubjectaccessreviews selfsubjectaccessreview SelfSubjectAccessReview c - - -
authorization.k8s.io v1 selfsubjectrulesreviews selfsubjectrulesreview SelfSubjectRulesReview c - - -
authorization.k8s.io v1 localsubjectaccessreviews localsubjectaccessreview LocalSubjectAccessReview n - - -
";

/// Groups with built-in resources besides those of the table.
const MORE_GROUPS: [&str; 2] = ["internal.apiserver.k8s.io", "storagemigration.k8s.io"];

/// Every built-in resource.
pub(super) fn resources() -> Vec<Resource> {
    TABLE.lines().filter_map(resource).collect()
}

/// Whether the group is built in.
pub(super) fn is_group(group: &str) -> bool {
    let in_table = TABLE.lines().any(|line| group_of(line) == group);
    in_table || MORE_GROUPS.contains(&group)
}

fn group_of(line: &str) -> &str {
    line.split(' ')
        .next()
        .map(|g| if g == "-" { "" } else { g })
        .unwrap_or_default()
}

fn resource(line: &str) -> Option<Resource> {
    let columns: Vec<&str> = line.split(' ').collect();
    let [
        _,
        version,
        resource,
        singular,
        kind,
        scope,
        short,
        categories,
        subresources,
    ] = columns.as_slice()
    else {
        return None;
    };
    let words = |text: &str| -> Vec<String> {
        if text == "-" {
            Vec::new()
        } else {
            text.split(',').map(str::to_owned).collect()
        }
    };
    let group = group_of(line);
    Some(Resource {
        id: 0,
        group: group.to_owned(),
        version: (*version).to_owned(),
        resource: (*resource).to_owned(),
        kind: (*kind).to_owned(),
        singular: (*singular).to_owned(),
        short_names: words(short),
        categories: words(categories),
        namespaced: *scope == "n",
        verbs: verbs_of(group, resource)
            .split(' ')
            .map(str::to_owned)
            .collect(),
        subresources: words(subresources),
        custom: None,
        cached: *resource != "events",
        storage: storage_of(group, resource),
        warning: warning_of(group, resource).to_owned(),
    })
}

fn storage_of(group: &str, resource: &str) -> String {
    match (group, resource) {
        ("", _) | ("events.k8s.io", "events") => resource.to_owned(),
        (group, _) => format!("{resource}.{group}"),
    }
}

fn verbs_of(group: &str, resource: &str) -> &'static str {
    match (group, resource) {
        ("", "componentstatuses") => "get list",
        ("", "bindings") | ("authentication.k8s.io" | "authorization.k8s.io", _) => "create",
        ("", "namespaces") => "create delete get list patch update watch",
        _ => CRUD,
    }
}

fn warning_of(group: &str, resource: &str) -> &'static str {
    match (group, resource) {
        ("", "endpoints") => {
            "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"
        }
        ("", "componentstatuses") => "v1 ComponentStatus is deprecated in v1.19+",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_a_resource() {
        assert_eq!(resources().len(), TABLE.lines().count());
    }
}
