//! The naive model: all objects in lists, every question answered by looking at all of them.
//!
//! Shares no code with what it judges. The rules for nodes are a table that is interpreted, the
//! graph is a nest of `any`, RBAC evaluates every binding there is.

mod rules;

use std::collections::BTreeSet;

use watershed_authorizer::{Features, Source};

use crate::ask::Ask;
use crate::objects::{Binding, Bound, Place, Pod, Role, Rule, Volume};
use rules::{Certificates, Condition, RULES};

/// An object of any kind.
#[derive(Clone, Debug)]
pub(crate) enum Object {
    Pod(Pod),
    Volume(Volume),
    Attachment(Bound),
    Slice(Bound),
    CertificateRequest(Bound),
    Role(Role),
    Binding(Binding),
}

impl Object {
    pub(crate) fn key(&self) -> (Source, &str, &str) {
        match self {
            Self::Pod(pod) => (Source::Pods, &pod.namespace, &pod.name),
            Self::Volume(volume) => (Source::PersistentVolumes, "", &volume.name),
            Self::Attachment(it) => (Source::VolumeAttachments, &it.namespace, &it.name),
            Self::Slice(it) => (Source::ResourceSlices, &it.namespace, &it.name),
            Self::CertificateRequest(it) => {
                (Source::PodCertificateRequests, &it.namespace, &it.name)
            }
            Self::Role(role) if role.namespace.is_empty() => (Source::ClusterRoles, "", &role.name),
            Self::Role(role) => (Source::Roles, &role.namespace, &role.name),
            Self::Binding(it) if it.namespace.is_empty() => {
                (Source::ClusterRoleBindings, "", &it.name)
            }
            Self::Binding(it) => (Source::RoleBindings, &it.namespace, &it.name),
        }
    }
}

/// Everything there is.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) objects: Vec<Object>,
}

/// What the model says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Masters,
    Node,
    /// Every reason that RBAC may give.
    Rbac(BTreeSet<String>),
    /// What RBAC could not resolve.
    Refused(BTreeSet<String>),
}

impl World {
    pub(crate) fn upsert(&mut self, object: Object) {
        self.objects.retain(|old| old.key() != object.key());
        self.objects.push(object);
    }

    pub(crate) fn delete(&mut self, key: (Source, &str, &str)) {
        self.objects.retain(|old| old.key() != key);
    }

    pub(crate) fn decide(&self, ask: &Ask, features: Features) -> Verdict {
        if ask.groups.iter().any(|group| group == "system:masters") {
            return Verdict::Masters;
        }
        if self.node_may(ask, features) {
            return Verdict::Node;
        }
        let (allowed, errors) = self.rbac(ask);
        if allowed.is_empty() {
            Verdict::Refused(errors)
        } else {
            Verdict::Rbac(allowed)
        }
    }

    fn node_may(&self, ask: &Ask, features: Features) -> bool {
        let is_node = ask.groups.iter().any(|group| group == "system:nodes");
        let Some(node) = ask.user.strip_prefix("system:node:") else {
            return false;
        };
        if !is_node || node.is_empty() || !ask.is_resource {
            return false;
        }
        let target = format!("{}/{}@{}", ask.resource, ask.subresource, ask.group);
        let target = target.replace("/@", "@");
        let any_sub = format!("{}/*@{}", ask.resource, ask.group);
        RULES.iter().any(|(on, verbs, condition)| {
            (*on == target || *on == any_sub)
                && verbs.split(' ').any(|verb| verb == ask.verb)
                && self.holds(*condition, ask, node, features)
        })
    }

    fn holds(&self, condition: Condition, ask: &Ask, node: &str, features: Features) -> bool {
        let related = !ask.name.is_empty() && self.path(ask, node);
        let selects = ask
            .selector
            .contains(&("spec.nodeName".to_owned(), true, node.to_owned()));
        match condition {
            Condition::Always => true,
            Condition::Related => related,
            Condition::RelatedInNamespace => related && !ask.namespace.is_empty(),
            Condition::OwnName => ask.name == node,
            Condition::OwnLease => ask.name == node && ask.namespace == "kube-node-lease",
            Condition::LeaseNamespace => ask.namespace == "kube-node-lease",
            Condition::Selected => selects,
            Condition::SelectedOrRelated => selects || related,
            Condition::ServiceAccount => {
                (features.credential_provider_tokens || features.pod_certificate_requests)
                    && related
                    && !ask.namespace.is_empty()
            }
            Condition::Bundles => features.cluster_trust_bundles,
            Condition::CertificateRequests(what) => {
                features.pod_certificate_requests
                    && match what {
                        Certificates::Create => true,
                        Certificates::Get => related,
                        Certificates::Select => selects,
                    }
            }
        }
    }

    /// Whether the object has to do with the node.
    fn path(&self, ask: &Ask, node: &str) -> bool {
        let (namespace, name) = (&*ask.namespace, &*ask.name);
        let is = |it: &Bound| it.namespace == namespace && it.name == name && it.node == node;
        let mentioned = |resource| self.mentioned(resource, namespace, name, node);
        match &*ask.resource {
            "volumeattachments" => self
                .objects
                .iter()
                .any(|object| matches!(object, Object::Attachment(it) if is(it))),
            "resourceslices" => self
                .objects
                .iter()
                .any(|object| matches!(object, Object::Slice(it) if is(it))),
            "podcertificaterequests" => self
                .objects
                .iter()
                .any(|object| matches!(object, Object::CertificateRequest(it) if is(it))),
            "pods" => self
                .pods()
                .any(|pod| pod.namespace == namespace && pod.name == name && pod.node == node),
            "persistentvolumes" => self
                .mounted(node)
                .any(|volume| namespace.is_empty() && volume.name == name),
            "secrets" => {
                mentioned("secrets")
                    || self
                        .mounted(node)
                        .any(|volume| needs(volume, namespace, name))
            }
            other => mentioned(other),
        }
    }

    fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.objects.iter().filter_map(|object| match object {
            Object::Pod(pod) => Some(pod),
            _other => None,
        })
    }

    /// Whether a pod on the node mentions the object.
    fn mentioned(&self, resource: &str, namespace: &str, name: &str, node: &str) -> bool {
        self.pods().any(|pod| {
            pod.node == node
                && !pod.mirror
                && pod.namespace == namespace
                && pod
                    .mentions
                    .iter()
                    .filter_map(|(place, mentioned): &(Place, String)| {
                        place.gives(&pod.name, mentioned)
                    })
                    .any(|(kind, given)| kind == resource && given == name)
        })
    }

    /// The volumes whose claim a pod on the node mentions.
    fn mounted(&self, node: &str) -> impl Iterator<Item = &Volume> {
        self.objects.iter().filter_map(move |object| {
            let Object::Volume(volume) = object else {
                return None;
            };
            let (namespace, name) = volume.claim.as_ref()?;
            self.mentioned("persistentvolumeclaims", namespace, name, node)
                .then_some(volume)
        })
    }

    /// Every reason to allow, and everything that could not be resolved.
    pub(crate) fn rbac(&self, ask: &Ask) -> (BTreeSet<String>, BTreeSet<String>) {
        let (mut cluster_wide, mut local) = (BTreeSet::new(), BTreeSet::new());
        let mut errors = BTreeSet::new();
        for object in &self.objects {
            let Object::Binding(binding) = object else {
                continue;
            };
            if !binding.namespace.is_empty() && binding.namespace != ask.namespace {
                continue;
            }
            let mut subjects = binding.subjects.iter();
            let Some(subject) = subjects.find(|subject| is(subject, &binding.namespace, ask))
            else {
                continue;
            };
            let reasons = if binding.namespace.is_empty() {
                &mut cluster_wide
            } else {
                &mut local
            };
            match self.role(binding) {
                Err(error) => {
                    errors.insert(error);
                }
                Ok(role) if role.rules.iter().any(|rule| allows(rule, ask)) => {
                    reasons.insert(describe(binding, subject));
                }
                Ok(_) => {}
            }
        }
        // Whoever allows cluster-wide is asked first.
        let allowed = if cluster_wide.is_empty() {
            local
        } else {
            cluster_wide
        };
        (allowed, errors)
    }

    fn role(&self, binding: &Binding) -> Result<&Role, String> {
        let (kind, name) = &binding.role;
        let (namespace, resource) = match &**kind {
            "Role" if binding.namespace.is_empty() => {
                return Err(format!(
                    "role.rbac.authorization.k8s.io \"{name}\" not found"
                ));
            }
            "Role" => (&*binding.namespace, "role"),
            "ClusterRole" => ("", "clusterrole"),
            other => return Err(format!("unsupported role reference kind: \"{other}\"")),
        };
        self.objects
            .iter()
            .find_map(|object| match object {
                Object::Role(role) if role.namespace == namespace && role.name == *name => {
                    Some(role)
                }
                _other => None,
            })
            .ok_or_else(|| format!("{resource}.rbac.authorization.k8s.io \"{name}\" not found"))
    }
}

/// Whether a kubelet needs the secret to mount the volume.
fn needs(volume: &Volume, namespace: &str, name: &str) -> bool {
    let claim_namespace = volume.claim.as_ref().map(|(namespace, _)| namespace);
    volume.secrets.iter().any(|(place, own, secret)| {
        let own = own.as_ref().filter(|own| !own.is_empty());
        let default = claim_namespace.filter(|_| place.is_defaulted());
        let found = own.or(default).map_or("", |found| found);
        place.is_visible() && secret == name && found == namespace
    })
}

fn is((kind, namespace, name): &(String, String, String), binding: &str, ask: &Ask) -> bool {
    match &**kind {
        "User" => ask.user == *name,
        "Group" => ask.groups.contains(name),
        "ServiceAccount" => {
            let namespace = if namespace.is_empty() {
                binding
            } else {
                namespace
            };
            !namespace.is_empty() && ask.user == format!("system:serviceaccount:{namespace}:{name}")
        }
        _other => false,
    }
}

fn allows(rule: &Rule, ask: &Ask) -> bool {
    let star = |list: &[String], value: &str| {
        list.contains(&"*".to_owned()) || list.contains(&value.to_owned())
    };
    if !star(&rule.verbs, &ask.verb) {
        return false;
    }
    if !ask.is_resource {
        return rule.urls.iter().any(|url| match url.strip_suffix('*') {
            Some(_) => ask.path.starts_with(url.trim_end_matches('*')),
            None => *url == ask.path,
        });
    }
    let whole = match &*ask.subresource {
        "" => ask.resource.clone(),
        sub => format!("{}/{sub}", ask.resource),
    };
    let every = format!("*/{}", ask.subresource);
    let resource = star(&rule.resources, &whole)
        || (!ask.subresource.is_empty() && rule.resources.contains(&every));
    let name = rule.names.is_empty() || rule.names.contains(&ask.name);
    star(&rule.groups, &ask.group) && resource && name
}

fn describe(binding: &Binding, (kind, namespace, name): &(String, String, String)) -> String {
    let subject = match &**kind {
        "ServiceAccount" if namespace.is_empty() => format!("{name}/{}", binding.namespace),
        "ServiceAccount" => format!("{name}/{namespace}"),
        _other => name.clone(),
    };
    let what = if binding.namespace.is_empty() {
        format!("ClusterRoleBinding \"{}\"", binding.name)
    } else {
        format!("RoleBinding \"{}/{}\"", binding.name, binding.namespace)
    };
    let (role_kind, role) = &binding.role;
    format!("RBAC: allowed by {what} of {role_kind} \"{role}\" to {kind} \"{subject}\"")
}
