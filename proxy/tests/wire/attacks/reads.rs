//! Attacks on what is read: a node's agent gets what its node may have, however it asks, and the
//! answer is the apiserver's own.

use super::*;

/// One pod on each of two nodes, and a Secret that each of them uses.
struct Cluster {
    apiserver: Apiserver,
    fixture: Fixture,
    node: Caller,
}

impl Cluster {
    async fn start() -> anyhow::Result<Self> {
        let apiserver = Apiserver::start(Options::default()).await?;
        for (node, whose) in [("n1", "mine"), ("n2", "theirs")] {
            let metadata = |name: &str, namespace: Option<&str>| {
                let mut metadata = json!({"name": name, "uid": format!("uid-{name}"),
                    "creationTimestamp": "2026-01-01T00:00:00Z"});
                if let Some(namespace) = namespace {
                    metadata["namespace"] = json!(namespace);
                }
                metadata
            };
            let own = || metadata(whose, Some("default"));
            load(
                &apiserver,
                ("", "nodes"),
                json!({"apiVersion": "v1", "kind": "Node",
                "metadata": metadata(node, None)}),
            );
            load(
                &apiserver,
                ("", "secrets"),
                json!({"apiVersion": "v1", "kind": "Secret",
                "metadata": own(), "type": "Opaque"}),
            );
            let volume = json!({"name": "v", "secret": {"secretName": whose}});
            load(
                &apiserver,
                ("", "pods"),
                json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": own(), "spec": {"nodeName": node, "volumes": [volume],
                "containers": [{"name": "c", "image": "i"}]}}),
            );
        }
        let fixture = Fixture::start(&apiserver, |_| ()).await?;
        let node = Caller::of(apiserver.pki(), apiserver.pki().issue_node("n1")?);
        Ok(Self {
            apiserver,
            fixture,
            node,
        })
    }

    async fn stop(self) {
        self.fixture.stop().await;
        self.apiserver.shutdown().await;
    }
}

/// What of an answer does not depend on when it was given.
fn comparable(outcome: Outcome) -> Outcome {
    let Outcome::Answer(200, body) = outcome else {
        return outcome;
    };
    let names = |value: &Value| -> Vec<String> {
        let items = match &value["items"] {
            Value::Array(items) => items.clone(),
            _ => vec![value.get("object").unwrap_or(value).clone()],
        };
        let names = items.iter().map(|it| it["metadata"]["name"].to_string());
        names.collect()
    };
    let values = serde_json::Deserializer::from_str(&body).into_iter::<Value>();
    let names: Vec<_> = values.flatten().flat_map(|it| names(&it)).collect();
    Outcome::Answer(200, names.join(" "))
}

const TARGETS: [&str; 73] = [
    // What it may, in a few ways.
    "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1",
    "/api/v1/pods?fieldSelector=spec.nodeName==n1",
    "/api/v1/pods?fieldSelector=%73pec.nodeName=n1",
    "/api/v1/pods?%66ieldSelector=spec.nodeName=n1",
    "/api/v1/pods?fieldSelector=spec.nodeName=n1&watch=1&timeoutSeconds=1",
    "/api/v1/namespaces/default/pods/mine",
    "/api/v1/namespaces/default/secrets/mine",
    "/api/v1/nodes?fieldSelector=metadata.name=n1",
    // What it may not.
    "/api/v1/pods",
    "/api/v1/pods?watch=1&timeoutSeconds=1",
    "/api/v1/pods?fieldSelector=spec.nodeName=n2",
    "/api/v1/pods?fieldSelector=spec.nodeName=n2&watch=1&timeoutSeconds=1",
    "/api/v1/namespaces/default/pods/theirs",
    "/api/v1/namespaces/default/secrets/theirs",
    "/api/v1/namespaces/default/secrets?fieldSelector=metadata.name=theirs",
    "/api/v1/namespaces/default/secrets?fieldSelector=metadata.name=theirs&watch=1&timeoutSeconds=1",
    "/api/v1/namespaces/default/secrets",
    "/api/v1/nodes",
    "/api/v1/nodes/n2",
    // Two selectors: the first counts, for the decision and for the answer.
    "/api/v1/pods?fieldSelector=spec.nodeName=n1&fieldSelector=spec.nodeName=n2",
    "/api/v1/pods?fieldSelector=spec.nodeName=n2&fieldSelector=spec.nodeName=n1",
    "/api/v1/pods?fieldSelector=spec.nodeName=n1&fieldSelector=",
    "/api/v1/pods?fieldSelector=&fieldSelector=spec.nodeName=n1",
    "/api/v1/pods?fieldSelector&fieldSelector=spec.nodeName=n1",
    "/api/v1/pods?fieldSelector=spec.nodeName=n1&fieldSelector=spec.nodeName=n2&watch=1&timeoutSeconds=1",
    "/api/v1/pods?FieldSelector=spec.nodeName=n1",
    "/api/v1/pods?fieldSelector[]=spec.nodeName=n1",
    "/api/v1/pods?fieldselector=spec.nodeName=n1&fieldSelector=spec.nodeName=n2",
    // Separators and escapes.
    "/api/v1/pods?fieldSelector=spec.nodeName=n1;fieldSelector=spec.nodeName=n2",
    "/api/v1/pods?fieldSelector=spec.nodeName=n2;x&fieldSelector=spec.nodeName=n1",
    "/api/v1/pods?x=1;fieldSelector=spec.nodeName=n1",
    "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1%26fieldSelector%3Dspec.nodeName%3Dn2",
    "/api/v1/pods?fieldSelector=spec.nodeName%253Dn1",
    "/api/v1/pods?fieldSelector=spec.nodeName=%zz&fieldSelector=spec.nodeName=n1",
    "/api/v1/pods?fieldSelector=spec.nodeName=n1%",
    "/api/v1/pods?fieldSelector=spec.nodeName=n1%00",
    "/api/v1/pods?fieldSelector=spec.nodeName=n1%20",
    "/api/v1/pods?fieldSelector=+spec.nodeName=n1",
    "/api/v1/pods?fieldSelector=spec.nodeName=n1%0a",
    "/api/v1/pods?fieldSelector=spec.nodeName=%ef%bd%8e1",
    "/api/v1/pods?fieldSelector=spec.nodeName=n1%ff",
    // Terms that widen, narrow or contradict.
    "/api/v1/pods?fieldSelector=spec.nodeName=n1,spec.nodeName=n2",
    "/api/v1/pods?fieldSelector=spec.nodeName=n2,spec.nodeName=n1",
    "/api/v1/pods?fieldSelector=spec.nodeName=n1,spec.nodeName!=n1",
    "/api/v1/pods?fieldSelector=spec.nodeName=n1,metadata.name=theirs",
    "/api/v1/pods?fieldSelector=metadata.name=theirs,spec.nodeName=n1",
    "/api/v1/pods?fieldSelector=spec.nodeName!=n2",
    "/api/v1/pods?fieldSelector=spec.nodeName=",
    "/api/v1/pods?fieldSelector=spec.nodeName=n1\\,spec.nodeName=n2",
    "/api/v1/pods?fieldSelector=spec.nodeName=n1,",
    "/api/v1/pods?fieldSelector=,spec.nodeName=n1",
    "/api/v1/pods?fieldSelector=spec.host=n1",
    "/api/v1/pods?labelSelector=spec.nodeName=n1",
    "/api/v1/watch/pods?fieldSelector=spec.nodeName=n1&timeoutSeconds=1",
    // Paths that lead in two directions.
    "//api/v1/namespaces/default/secrets/theirs",
    "/api//v1/namespaces/default/secrets/theirs",
    "/api/v1/namespaces/default/secrets//theirs",
    "/api/v1/namespaces/default/secrets/theirs/",
    "/api/v1/namespaces/default/secrets/mine/../theirs",
    "/api/v1/namespaces/default/secrets/mine/%2e%2e/theirs",
    "/api/v1/namespaces/default/secrets/mine%2f..%2ftheirs",
    "/api/v1/namespaces/default/secrets%2ftheirs",
    "/api/v1/namespaces/default/./secrets/theirs",
    "/api/v1/namespaces/other/../default/secrets/theirs",
    "/api/v1/namespaces/default/secrets/theirs%00",
    "/api/v1/namespaces/default/secrets/mine%00theirs",
    "/api/v1/namespaces/default/secrets/theirs;x=mine",
    "/api/v1/namespaces/default/secrets;/theirs",
    "/api/v1/namespaces/default/secrets/t%68eirs",
    "/api/v1/namespaces/default/secrets/THEIRS",
    "/API/v1/namespaces/default/secrets/theirs",
    "/api/v1/nodes/n1%2f..%2fn2",
    "/api/v1/proxy/namespaces/default/pods/theirs",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_a_node_asks_it_gets_its_own_and_the_apiservers_answer() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let addresses = [cluster.apiserver.addr(), cluster.fixture.proxy.address()];
    let mut wrong = Vec::new();
    let mut allowed = 0;
    for target in TARGETS {
        let http1 = format!(
            "GET {target} HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\nConnection: close\r\n\r\n"
        );
        let http2: Fields = [
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", "a"),
            (":path", target),
            ("accept", "application/json"),
        ]
        .map(|(name, value)| (name.into(), value.into()))
        .into();
        let mut answers = Vec::new();
        for address in addresses {
            answers.push(ask_http1(&cluster.node, address, http1.as_bytes()).await?);
            answers.push(ask_http2(&cluster.node, address, &http2).await?);
        }
        let leaks = |it: &Outcome| match it {
            Outcome::Answer(200, body) => body.contains("theirs") || body.contains("\"n2\""),
            Outcome::Answer(..) | Outcome::Reset => false,
        };
        let answers: Vec<_> = answers
            .into_iter()
            .map(|it| (leaks(&it), comparable(it)))
            .collect();
        let [direct1, direct2, proxied1, proxied2] = answers.as_slice() else {
            panic!("four answers")
        };
        if proxied1.0 || proxied2.0 || direct1 != proxied1 || direct2 != proxied2 {
            wrong.push(format!(
                "{target}\n {}",
                answers
                    .iter()
                    .map(|it| format!("{it:?}"))
                    .collect::<Vec<_>>()
                    .join("\n ")
            ));
        }
        allowed += usize::from(matches!(&proxied2.1, Outcome::Answer(200, _)));
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure!(
        allowed >= 8,
        "only {allowed} were allowed: nothing was tested"
    );
    cluster.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_certificates_and_tokens_are_refused_or_understood_and_harm_nobody()
-> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let (pki, address) = (cluster.apiserver.pki(), cluster.fixture.proxy.address());
    let names = |count: usize| -> Vec<SanType> {
        let names = (0..count).map(|n| format!("{n:0>50}.example").as_str().try_into());
        names
            .map(|it| SanType::DnsName(it.expect("a name")))
            .collect()
    };
    let node = |params: &mut rcgen::CertificateParams| {
        params
            .distinguished_name
            .push(DnType::OrganizationName, "system:nodes");
    };
    let name = "system:node:n1";
    let many = certificates::issue(pki, name, |it| {
        node(it);
        it.subject_alt_names = names(800);
    })?;
    let too_many = certificates::issue(pki, name, |it| {
        node(it);
        it.subject_alt_names = names(2_000);
    })?;
    let long_name = certificates::issue(pki, &format!("{name}{}", "1".repeat(20_000)), node)?;
    let mut long_chain = pki.issue_node("n1")?;
    for _ in 0..80 {
        long_chain.certificate.push_str(pki.ca());
    }
    let own = "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1";
    for (credential, expected) in [(&many, 200), (&long_name, 403), (&long_chain, 200)] {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let client = Client::new(address, pki.ca(), Some(credential), protocol)?;
            let answer = client.get(own).await?;
            assert_eq!(answer.status, expected, "{}", answer.text());
        }
    }
    // A message of the handshake has at most 64 KiB.
    let refused = Caller::of(pki, too_many);
    let request = format!("GET {own} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let outcome = ask_http1(&refused, address, request.as_bytes()).await;
    ensure!(!matches!(outcome, Ok(Outcome::Answer(..))), "{outcome:?}");
    let reviews = || {
        let counters = cluster.apiserver.counters();
        counters.requests("create", "authentication.k8s.io", "tokenreviews")
    };
    let before = reviews();
    for (length, expected, reviewed) in [(1 << 20, 431, 0), (50 << 10, 401, 1)] {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let client = Client::new(address, pki.ca(), None, protocol)?;
            let request = client.request(http::Method::GET, own);
            let token = format!("Bearer {}", "t".repeat(length));
            let request = request.header("authorization", token).body(empty())?;
            let answer = client.whole(request).await;
            // Whoever sends on after the answer may meet the end of the connection first.
            match answer {
                Ok(answer) => assert_eq!(answer.status, expected, "{}", answer.text()),
                Err(error) => ensure!(expected == 431, "{error:#}"),
            }
        }
        assert_eq!(reviews() - before, reviewed, "reviews of {length} bytes");
    }
    let client = Client::new(
        address,
        pki.ca(),
        Some(&pki.issue_node("n1")?),
        Protocol::Http2,
    )?;
    client.get(own).await?.ok()?;
    drop(client);
    cluster.stop().await;
    Ok(())
}
