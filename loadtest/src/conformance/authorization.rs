//! What a user may, and what the others are told.

use anyhow::{Context as _, ensure};
use futures_util::future::try_join_all;
use serde_json::json;

use super::cluster::{config_maps, reading, until};
use super::expect::{TEXT, expect, expect_forbidden, go_string, no_config_maps};
use super::{Cluster, Identity, Setup};
use crate::apiserver::faults::Failure;
use crate::client::{JSON, Request};

/// 137: who may read an object by name lists and watches with that name, and with nothing else.
pub async fn a_role_for_a_name_grants_lists_of_that_name(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    for name in ["x", "y"] {
        cluster.config_map(&namespace, name).await?;
    }
    let user = cluster.name("alice");
    let mut rule = reading(&["get", "list", "watch"]);
    rule["resourceNames"] = json!(["x"]);
    cluster.allow(&user, &namespace, &rule).await?;
    let alice = cluster.client(&cluster.user(&user, None)?)?;
    let collection = config_maps(&namespace);

    for query in [
        "metadata.name%3Dx",
        "metadata.name%3D%3Dx",
        "metadata.name%3Dx,metadata.name!%3Dz",
    ] {
        let target = format!("{collection}?fieldSelector={query}");
        let list = alice.get(&target).await?.ok()?;
        ensure!(list["items"][0]["metadata"]["name"] == "x" && list["items"][1].is_null());
        let mut watch = alice
            .watch(Request::get(format!("{target}&watch=1")))
            .await?;
        ensure!(watch.change().await?.key == format!("{namespace}/x"));
    }
    // The first name after sorting is authorised; both together match nothing.
    for names in ["x,metadata.name%3Dy", "y,metadata.name%3Dx"] {
        let target = format!("{collection}?fieldSelector=metadata.name%3D{names}");
        let list = alice.get(&target).await?.ok()?;
        ensure!(list["items"] == json!([]), "{target}: {list}");
    }
    for (query, verb, is_named) in [
        ("", "list", false),
        ("?fieldSelector=metadata.name%3Dy", "list", true),
        ("?fieldSelector=metadata.name!%3Dx", "list", false),
        (
            "?fieldSelector=metadata.name%3Dx&labelSelector=a%20b",
            "list",
            false,
        ),
        ("?labelSelector=x", "list", false),
        ("?watch=1", "watch", false),
        ("?watch=1&fieldSelector=metadata.name%3Dy", "watch", true),
    ] {
        let answer = alice.get(&format!("{collection}{query}")).await?;
        let message = no_config_maps(&user, verb, &namespace);
        let (message, details) = match is_named {
            true => (
                message.replacen("configmaps is", "configmaps \"y\" is", 1),
                r#"{"name":"y","kind":"configmaps"}"#,
            ),
            false => (message, r#"{"kind":"configmaps"}"#),
        };
        expect_forbidden(&answer, &message, details).with_context(|| query)?;
    }
    Ok(())
}

/// 140: a right that is taken away is gone for new requests within ten seconds; what was granted to
/// a watch stays granted to it.
pub async fn a_revoked_right_ends_new_requests_and_no_running_watch(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let cluster = &cluster
        .own(Setup {
            decision_ttl: std::time::Duration::from_secs(2),
            ..Setup::default()
        })
        .await?;
    let namespace = cluster.namespace("a").await?;
    let user = cluster.name("alice");
    let role = cluster
        .allow(&user, &namespace, &reading(&["list", "watch"]))
        .await?;
    let alice = cluster.client(&cluster.user(&user, None)?)?;
    let target = config_maps(&namespace);
    let start = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan\
        &allowWatchBookmarks=true";
    let mut watch = alice
        .watch(Request::get(format!("{target}?{start}")))
        .await?;
    ensure!(watch.event_now().await?.ends_initial_events);
    alice.get(&target).await?.ok()?;

    let binding =
        format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings/{role}");
    cluster.change("DELETE", &binding, &json!({})).await?;
    until("the right is gone", async || {
        Ok(alice.get(&target).await?.status == 403)
    })
    .await?;
    let message = no_config_maps(&user, "list", &namespace);
    expect_forbidden(
        &alice.get(&target).await?,
        &message,
        r#"{"kind":"configmaps"}"#,
    )?;
    let watching = format!("{target}?watch=1");
    until("the right to watch is gone", async || {
        let open = alice.send(Request::get(&watching)).await?;
        Ok(open.status() == 403)
    })
    .await?;
    cluster.config_map(&namespace, "late").await?;
    let event = watch.change().await?;
    ensure!((&*event.kind, event.key) == ("ADDED", format!("{namespace}/late")));
    Ok(())
}

/// 141: when nobody can say whether a user may, the answer is an error in text and never an object;
/// administrators need nobody to say so. A proxy that decides by itself needs nobody for what it
/// grants.
pub async fn without_a_decision_there_is_no_answer(cluster: &Cluster) -> anyhow::Result<()> {
    let decides = cluster.proxy()?.decides;
    cluster.embedded()?;
    let cluster = &cluster.own(Setup::default()).await?;
    let faults = cluster.embedded()?.faults();
    let namespace = cluster.namespace("a").await?;
    cluster.config_map(&namespace, "x").await?;
    let user = cluster.name("alice");
    cluster
        .allow(&user, &namespace, &reading(&["get", "list", "watch"]))
        .await?;
    let alice = cluster.client(&cluster.user(&user, None)?)?;
    let collection = config_maps(&namespace);
    alice.get(&collection).await?.ok()?;

    let reviews = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    faults.fail_requests(reviews, Failure::InternalError, u64::MAX);
    let targets = [
        collection.clone(),
        format!("{collection}?watch=1"),
        format!("{collection}/x"),
        format!("{collection}?resourceVersion=0&limit=1&labelSelector=a"),
    ];
    let refused = async |target: &String| {
        let answer = alice.get(target).await?;
        let prefix = format!(
            "Internal Server Error: \"{}\": ",
            target.replace('&', "&amp;")
        );
        let text = answer.text();
        let is_text = (answer.status, answer.header("content-type")) == (500, TEXT);
        ensure!(
            is_text && text.starts_with(&prefix) && text.ends_with('\n'),
            "{target}: {answer:?}"
        );
        anyhow::Ok(())
    };
    if decides {
        alice.get(&collection).await?.ok()?;
        ensure!(alice.get(&format!("{collection}/x")).await?.status == 200);
        let other = format!("/api/v1/namespaces/{namespace}/secrets");
        ensure!(alice.get(&other).await?.status != 200);
    } else {
        try_join_all(targets.iter().map(refused)).await?;
    }
    cluster.admin().get(&collection).await?.ok()?;
    // What is passed through is for the apiserver to decide.
    ensure!(alice.get("/metrics").await?.status == 403);
    faults.heal_requests();
    alice.get(&collection).await?.ok()?;
    Ok(())
}

/// 143: a Namespace is read within itself, so a Role in it is enough.
pub async fn a_namespace_is_read_with_rights_in_it(cluster: &Cluster) -> anyhow::Result<()> {
    let (own, other) = (cluster.namespace("a").await?, cluster.namespace("b").await?);
    let user = cluster.name("alice");
    let rule = json!({"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"]});
    cluster.allow(&user, &own, &rule).await?;
    let alice = cluster.client(&cluster.user(&user, None)?)?;
    let target = format!("/api/v1/namespaces/{own}");
    let plain = cluster.direct().get(&target).await?.text();
    expect(&alice.get(&target).await?, 200, JSON, &plain)?;
    for query in ["?resourceVersion=0", "/"] {
        let answer = alice.get(&format!("{target}{query}")).await?;
        expect(&answer, 200, JSON, &plain)?;
    }
    let answer = alice.get(&format!("/api/v1/namespaces/{other}")).await?;
    let message = format!(
        "namespaces \"{other}\" is forbidden: User \"{user}\" cannot get resource \"namespaces\" \
         in API group \"\" in the namespace \"{other}\""
    );
    let details = format!(r#"{{"name":"{other}","kind":"namespaces"}}"#);
    expect_forbidden(&answer, &message, &details)?;
    // A list with the name is at the cluster's scope.
    let named = format!("/api/v1/namespaces?fieldSelector=metadata.name%3D{own}");
    let message = format!(
        "namespaces \"{own}\" is forbidden: User \"{user}\" cannot list resource \"namespaces\" in \
         API group \"\" at the cluster scope"
    );
    let details = format!(r#"{{"name":"{own}","kind":"namespaces"}}"#);
    expect_forbidden(&alice.get(&named).await?, &message, &details)
}

/// What a request that is refused asks for.
struct Refused {
    target: String,
    verb: &'static str,
    /// With the subresource.
    resource: &'static str,
    /// None at the cluster's scope.
    namespace: Option<String>,
    name: &'static str,
    group: &'static str,
}

impl Refused {
    fn new(target: String, verb: &'static str, resource: &'static str) -> Self {
        let (namespace, name, group) = (None, "", "");
        Self {
            target,
            verb,
            resource,
            namespace,
            name,
            group,
        }
    }

    fn within(self, namespace: &str) -> Self {
        Self {
            namespace: Some(namespace.to_owned()),
            ..self
        }
    }

    fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    fn of(self, group: &'static str) -> Self {
        Self { group, ..self }
    }

    /// The resource without subresource, and with its group.
    fn kind(&self) -> (&str, String) {
        let kind = self.resource.split('/').next().unwrap_or_default();
        match self.group {
            "" => (kind, kind.to_owned()),
            group => (kind, format!("{kind}.{group}")),
        }
    }

    fn message(&self, user: &str) -> String {
        let (verb, resource, group) = (self.verb, self.resource, self.group);
        let quoted = match self.name {
            "" => String::new(),
            name => format!("\"{name}\" "),
        };
        let scope = match &self.namespace {
            Some(namespace) => format!("in the namespace \"{namespace}\""),
            None => "at the cluster scope".to_owned(),
        };
        let user = markup(user);
        let kind = self.kind().1;
        format!(
            "{kind} {quoted}is forbidden: User \"{user}\" cannot {verb} resource \"{resource}\" in \
             API group \"{group}\" {scope}"
        )
    }

    fn details(&self) -> String {
        let fields = [
            ("name", self.name),
            ("group", self.group),
            ("kind", self.kind().0),
        ];
        let fields = fields.iter().filter(|(_, value)| !value.is_empty());
        let fields = fields.map(|(key, value)| format!("\"{key}\":{}", go_string(value)));
        format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
    }
}

fn refused(namespace: &str) -> Vec<Refused> {
    let own = format!("/api/v1/namespaces/{namespace}");
    let apps = format!("/apis/apps/v1/namespaces/{namespace}/deployments");
    let all = Refused::new;
    let one = |target, verb, resource| Refused::new(target, verb, resource).within(namespace);
    let by_name = "fieldSelector=metadata.name%3D";
    vec![
        all(
            "/apis/apps/v1/deployments".to_owned(),
            "list",
            "deployments",
        )
        .of("apps"),
        one(format!("{apps}/d"), "get", "deployments")
            .named("d")
            .of("apps"),
        one(format!("{apps}/d/scale"), "get", "deployments/scale")
            .named("d")
            .of("apps"),
        one(format!("{own}/pods/p/log"), "get", "pods/log").named("p"),
        one(format!("{own}/pods?watch=1"), "watch", "pods"),
        one(
            format!("{own}/configmaps/a%3Cb%3E%26c"),
            "get",
            "configmaps",
        )
        .named("a<b>&c"),
        one(
            format!("{own}/secrets?{by_name}q&watch=1"),
            "watch",
            "secrets",
        )
        .named("q"),
        all("/api/v1/nodes/x".to_owned(), "get", "nodes").named("x"),
        all(format!("/api/v1/nodes?{by_name}a%3Cb"), "list", "nodes").named("a<b"),
        all("/api/v1/nope".to_owned(), "list", "nope"),
        all("/apis/nope.example/v1/foos/x".to_owned(), "get", "foos")
            .named("x")
            .of("nope.example"),
    ]
}

/// 144: group, name, subresource and scope are in the text; what is markup is escaped in the part
/// about the user, but not in the name of the object.
pub async fn a_refusal_names_user_verb_resource_and_scope(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = cluster.namespace("a").await?;
    let (plain, weird) = (cluster.name("alice"), cluster.name("we<i>rd&co"));
    let identities = [
        (cluster.user(&plain, None)?, &*plain),
        (cluster.user(&weird, None)?, &*weird),
        (Identity::anonymous(), "system:anonymous"),
    ];
    for (identity, user) in identities {
        let client = cluster.client(&identity)?;
        for own in refused(&namespace) {
            let answer = client.get(&own.target).await?;
            expect_forbidden(&answer, &own.message(user), &own.details())
                .with_context(|| own.target.clone())?;
        }
        let user = markup(user);
        for (target, path) in [("/metrics", "/metrics"), ("/a%3Cb%3E%26c", "/a<b>&c")] {
            let path = markup(path);
            let message = format!("forbidden: User \"{user}\" cannot get path \"{path}\"");
            expect_forbidden(&client.get(target).await?, &message, "{}")?;
        }
    }
    Ok(())
}

/// Text with what HTML takes for markup escaped.
fn markup(text: &str) -> String {
    let text = text.replace('&', "&amp;");
    text.replace('<', "&lt;").replace('>', "&gt;")
}
