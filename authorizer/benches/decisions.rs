//! What a decision costs, and what feeding a pod costs.
//!
//! ```text
//! cargo bench -p watershed-authorizer                  everything
//! cargo bench -p watershed-authorizer -- decide        what has "decide" in its name
//! ```
//!
//! In a cluster of 1,000 nodes with 100 pods each, 300 namespaces, a volume for every fifth pod and a
//! role binding for every namespace: large enough that the tables do not fit the caches.

use std::borrow::Cow;
use std::hint::black_box;
use std::time::Duration;

use criterion::Criterion;
use watershed_authorizer::{
    Attributes, Authorizer, BindingFacts, Decision, Facts, Grant, PersistentVolumeFacts, PodFacts,
    PolicyRule, Reference, Referenced, RoleFacts, Source, Subject, User,
};

/// What the proxy allocates with.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const NODES: usize = 1_000;
const PODS: usize = 100_000;

fn namespace(number: usize) -> String {
    format!("team-{:04}", number % 300)
}

fn node(number: usize) -> String {
    format!("node-{:05}.example.internal", number % NODES)
}

fn pod(number: usize) -> PodFacts<'static> {
    let mention = |kind, name: String| Reference {
        kind,
        name: Cow::Owned(name),
    };
    PodFacts {
        namespace: namespace(number).into(),
        name: format!("backend-7d4b9c5f6d-{number:07}").into(),
        node: node(number).into(),
        references: vec![
            mention(Referenced::ServiceAccount, "default".to_owned()),
            mention(Referenced::ConfigMap, "kube-root-ca.crt".to_owned()),
            mention(Referenced::Secret, "registry-credentials".to_owned()),
            mention(Referenced::ConfigMap, format!("config-{}", number % 5_000)),
            mention(
                Referenced::PersistentVolumeClaim,
                format!("data-{number:07}"),
            ),
            mention(Referenced::Secret, format!("tls-{number:07}")),
        ],
    }
}

fn volume(number: usize) -> PersistentVolumeFacts<'static> {
    PersistentVolumeFacts {
        name: format!("pvc-{number:07}").into(),
        claim: Some((namespace(number).into(), format!("data-{number:07}").into())),
        secrets: vec![("storage".into(), "csi-node-stage".into())],
    }
}

fn texts(list: &[&str]) -> Vec<Box<str>> {
    list.iter().map(|&text| text.into()).collect()
}

fn role(name: &str, resources: &[&str]) -> RoleFacts {
    let rule = PolicyRule {
        verbs: texts(&["get", "list", "watch"]),
        api_groups: texts(&[""]),
        resources: texts(resources),
        ..PolicyRule::default()
    };
    RoleFacts {
        name: name.into(),
        rules: vec![PolicyRule::default(), rule],
        ..RoleFacts::default()
    }
}

fn binding(key: (&str, &str), role: &str, subject: (&str, &str, &str)) -> BindingFacts {
    BindingFacts {
        namespace: key.0.into(),
        name: key.1.into(),
        role_kind: "ClusterRole".into(),
        role_name: role.into(),
        subjects: vec![Subject {
            kind: subject.0.into(),
            namespace: subject.1.into(),
            name: subject.2.into(),
        }],
    }
}

fn cluster() -> Authorizer {
    let authorizer = Authorizer::default();
    for number in 0..PODS {
        authorizer.upsert(Facts::Pod(pod(number)));
        if number % 5 == 0 {
            authorizer.upsert(Facts::PersistentVolume(volume(number)));
        }
    }
    let everybody = ("Group", "", "system:authenticated");
    for name in ["discovery", "basic-user", "public-info-viewer"] {
        authorizer.upsert(Facts::ClusterRole(role(name, &["nothing"])));
        authorizer.upsert(Facts::ClusterRoleBinding(binding(
            ("", name),
            name,
            everybody,
        )));
    }
    authorizer.upsert(Facts::ClusterRole(role(
        "cni",
        &["pods", "nodes", "namespaces"],
    )));
    let agent = ("ServiceAccount", "kube-system", "cni");
    authorizer.upsert(Facts::ClusterRoleBinding(binding(
        ("", "cni"),
        "cni",
        agent,
    )));
    for number in 0..300 {
        let user = format!("tenant-{number}");
        let key = (&*namespace(number), "tenant");
        let binding = binding(key, "cni", ("User", "", &user));
        authorizer.upsert(Facts::RoleBinding(binding));
    }
    authorizer
}

/// A request, without its user.
struct Ask {
    name: &'static str,
    verb: &'static str,
    resource: &'static str,
    key: (String, String),
    /// `spec.nodeName` in the field selector.
    selects: String,
    expected: Option<Grant>,
}

fn asks() -> Vec<Ask> {
    let nothing = || (String::new(), String::new());
    let ask = |name, verb, resource, key, expected| Ask {
        name,
        verb,
        resource,
        key,
        selects: node(5),
        expected,
    };
    let graph = Some(Grant::NodeGraph);
    let secret = (namespace(5), "tls-0000005".to_owned());
    let config = (namespace(5), "kube-root-ca.crt".to_owned());
    let volume = (String::new(), "pvc-0000005".to_owned());
    let stage = ("storage".to_owned(), "csi-node-stage".to_owned());
    let other = (namespace(6), "tls-0000006".to_owned());
    vec![
        ask(
            "node: pods by selector",
            "watch",
            "pods",
            nothing(),
            Some(Grant::NodeRule),
        ),
        ask("node: secret of a pod", "get", "secrets", secret, graph),
        ask(
            "node: config map of many pods",
            "watch",
            "configmaps",
            config,
            graph,
        ),
        ask(
            "node: persistent volume",
            "get",
            "persistentvolumes",
            volume,
            graph,
        ),
        ask("node: secret of a volume", "get", "secrets", stage, graph),
        ask("node: refused secret", "get", "secrets", other, None),
    ]
}

fn decide(criterion: &mut Criterion, authorizer: &Authorizer) {
    let groups = ["system:nodes", "system:authenticated"].map(str::to_owned);
    let user = format!("system:node:{}", node(5));
    let user = User {
        name: &user,
        groups: &groups,
    };
    for ask in asks() {
        time(criterion, authorizer, user, &ask);
    }
    let groups = [
        "system:serviceaccounts",
        "system:serviceaccounts:kube-system",
        "system:authenticated",
    ];
    let groups = groups.map(str::to_owned);
    let user = User {
        name: "system:serviceaccount:kube-system:cni",
        groups: &groups,
    };
    let ask = Ask {
        name: "service account: pods by role",
        verb: "watch",
        resource: "pods",
        key: (String::new(), String::new()),
        selects: String::new(),
        expected: Some(Grant::Rbac),
    };
    time(criterion, authorizer, user, &ask);
}

fn time(criterion: &mut Criterion, authorizer: &Authorizer, user: User<'_>, ask: &Ask) {
    let selects = |field: &str, value: &str| field == "spec.nodeName" && value == ask.selects;
    let attributes = Attributes {
        user,
        verb: ask.verb,
        is_resource: true,
        group: "",
        resource: ask.resource,
        subresource: "",
        namespace: &ask.key.0,
        name: &ask.key.1,
        path: "",
        selects: &selects,
    };
    let found = match authorizer.decide(&attributes) {
        Decision::Allow(grant) => Some(grant),
        Decision::NoOpinion(_) => None,
    };
    assert_eq!(found, ask.expected, "{}", ask.name);
    criterion.bench_function(&format!("decide/{}", ask.name), |bencher| {
        bencher.iter(|| authorizer.decide(black_box(&attributes)));
    });
}

/// A pod of about 4 KB with what kubelets and controllers write into it.
fn json() -> String {
    let mount = r#"{"name":"data","mountPath":"/var/lib/data"},{"name":"kube-api-access","readOnly":true,"mountPath":"/var/run/secrets/kubernetes.io/serviceaccount"}"#;
    let container = format!(
        r#"{{"name":"main","image":"registry.example.com/team/backend@sha256:0123456789abcdef0123456789abcdef","args":["--port=8080","--verbose"],"env":[{{"name":"TOKEN","valueFrom":{{"secretKeyRef":{{"name":"tls-0000005","key":"token"}}}}}},{{"name":"MODE","value":"production"}}],"envFrom":[{{"configMapRef":{{"name":"config-5"}}}}],"resources":{{"limits":{{"cpu":"1","memory":"1Gi"}},"requests":{{"cpu":"100m","memory":"256Mi"}}}},"volumeMounts":[{mount}],"livenessProbe":{{"httpGet":{{"path":"/healthz","port":8080,"scheme":"HTTP"}},"timeoutSeconds":1,"periodSeconds":10,"successThreshold":1,"failureThreshold":3}},"terminationMessagePath":"/dev/termination-log","imagePullPolicy":"IfNotPresent"}}"#
    );
    let managed = r#"{"manager":"kube-controller-manager","operation":"Update","apiVersion":"v1","time":"2026-01-01T00:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{"f:labels":{".":{},"f:app":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"main\"}":{".":{},"f:image":{},"f:name":{},"f:resources":{}}}}}}"#;
    let status = r#"{"phase":"Running","conditions":[{"type":"Ready","status":"True","lastProbeTime":null,"lastTransitionTime":"2026-01-01T00:00:00Z"}],"hostIP":"10.0.0.1","podIP":"10.1.2.3","podIPs":[{"ip":"10.1.2.3"}],"startTime":"2026-01-01T00:00:00Z","containerStatuses":[{"name":"main","state":{"running":{"startedAt":"2026-01-01T00:00:00Z"}},"ready":true,"restartCount":0,"image":"registry.example.com/team/backend","imageID":"registry.example.com/team/backend@sha256:0123456789abcdef","containerID":"containerd://0123456789abcdef","started":true}]}"#;
    format!(
        r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"backend-7d4b9c5f6d-0000005","namespace":"team-0005","uid":"6d7a1c0e-6f0b-4e5a-9c1e-000000000005","resourceVersion":"123456","labels":{{"app":"backend","pod-template-hash":"7d4b9c5f6d"}},"managedFields":[{managed},{managed}]}},"spec":{{"volumes":[{{"name":"data","persistentVolumeClaim":{{"claimName":"data-0000005"}}}},{{"name":"kube-api-access","projected":{{"sources":[{{"serviceAccountToken":{{"expirationSeconds":3607,"path":"token"}}}},{{"configMap":{{"name":"kube-root-ca.crt","items":[{{"key":"ca.crt","path":"ca.crt"}}]}}}}],"defaultMode":420}}}}],"containers":[{container}],"restartPolicy":"Always","dnsPolicy":"ClusterFirst","serviceAccountName":"default","serviceAccount":"default","nodeName":"node-00005.example.internal","imagePullSecrets":[{{"name":"registry-credentials"}}],"tolerations":[{{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}}]}},"status":{status}}}"#
    )
}

/// The same pod in protobuf, what nobody reads as one text.
fn protobuf() -> Vec<u8> {
    let field = |number: u32, value: &[u8]| {
        let mut field = Vec::new();
        for mut part in [
            number << 3 | 2,
            u32::try_from(value.len()).expect("a small value"),
        ] {
            while part >= 0x80 {
                field.push((part & 0x7f) as u8 | 0x80);
                part >>= 7;
            }
            field.push(part as u8);
        }
        [field, value.to_vec()].concat()
    };
    let name = |name: &str| field(1, name.as_bytes());
    let local = |text: &str| field(1, &name(text));
    let volume = |title: &str, number, source: &[u8]| {
        let source = field(2, &field(number, source));
        field(1, &[name(title), source].concat())
    };
    let metadata = [
        name("backend-7d4b9c5f6d-0000005"),
        field(3, b"team-0005"),
        field(11, &[name("app"), field(2, b"backend")].concat()),
        field(17, &[b'x'; 400]),
    ]
    .concat();
    let token = [name("TOKEN"), field(3, &field(4, &local("tls-0000005")))].concat();
    let container = [
        name("main"),
        field(2, &[b'x'; 80]),
        field(7, &token),
        field(19, &field(2, &local("config-5"))),
        field(8, &[b'x'; 60]),
        field(10, &[b'x'; 60]),
    ]
    .concat();
    let projected = field(1, &field(3, &local("kube-root-ca.crt")));
    let spec = [
        volume("data", 10, &name("data-0000005")),
        volume("kube-api-access", 26, &projected),
        field(2, &container),
        field(8, b"default"),
        field(10, b"node-00005.example.internal"),
        field(15, &name("registry-credentials")),
        field(22, &[b'x'; 60]),
    ]
    .concat();
    let pod = [
        field(1, &metadata),
        field(2, &spec),
        field(3, &field(1, &[b'x'; 300])),
    ]
    .concat();
    [b"k8s\0".to_vec(), field(2, &pod)].concat()
}

fn feed(criterion: &mut Criterion, authorizer: &Authorizer) {
    let protobuf = protobuf();
    let name = format!("feed/read a pod of {} bytes of protobuf", protobuf.len());
    criterion.bench_function(&name, |bencher| {
        bencher.iter(|| Facts::read(Source::Pods, black_box(&protobuf)));
    });
    let json = json();
    let name = format!("feed/read a pod of {} bytes of JSON", json.len());
    criterion.bench_function(&name, |bencher| {
        bencher.iter(|| Facts::read(Source::Pods, black_box(json.as_bytes())));
    });
    criterion.bench_function("feed/a pod that says nothing new", |bencher| {
        let facts = pod(5);
        bencher.iter_batched(
            || Facts::Pod(facts.clone()),
            |facts| authorizer.upsert(facts),
            criterion::BatchSize::SmallInput,
        );
    });
    criterion.bench_function("feed/a pod that moves to another node", |bencher| {
        let mut at = 0;
        bencher.iter_batched(
            || {
                at += 1;
                let mut facts = pod(5);
                facts.node = node(at).into();
                Facts::Pod(facts)
            },
            |facts| authorizer.upsert(facts),
            criterion::BatchSize::SmallInput,
        );
    });
}

fn main() {
    let (json, protobuf) = (json(), protobuf());
    let read = |bytes| Facts::read(Source::Pods, bytes).expect("a pod is read");
    let (Facts::Pod(json), Facts::Pod(protobuf)) = (read(json.as_bytes()), read(&protobuf)) else {
        unreachable!("facts are of what was asked for");
    };
    assert_eq!(json.references.len(), protobuf.references.len());
    let authorizer = cluster();
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    decide(&mut criterion, &authorizer);
    feed(&mut criterion, &authorizer);
    criterion.final_summary();
}
