//! Requests an apiserver refuses, each for a reason of its own.

/// Method, path with query, headers, body.
pub(super) type Malformed = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static str,
);

/// All of them.
pub(super) fn all() -> Vec<Malformed> {
    let gets = SELECTORS
        .iter()
        .chain(VERSIONS)
        .chain(OPTIONS)
        .chain(PATHS)
        .map(|path| ("GET", *path, &[][..], ""));
    gets.chain(HEADERS.iter().copied())
        .chain(METHODS.iter().copied())
        .collect()
}

const SELECTORS: &[&str] = &[
    "/api/v1/pods?labelSelector=a+in+(",
    "/api/v1/pods?labelSelector=a+in+()x",
    "/api/v1/pods?labelSelector=a+notin+(b",
    "/api/v1/pods?labelSelector=a==b==c",
    "/api/v1/pods?labelSelector=!!a",
    "/api/v1/pods?labelSelector=-a=b",
    "/api/v1/pods?labelSelector=a=-b",
    "/api/v1/pods?labelSelector=a/b/c=d",
    "/api/v1/pods?labelSelector=a%3Eb",
    "/api/v1/pods?labelSelector=a+b",
    "/api/v1/pods?labelSelector=,",
    "/api/v1/pods?labelSelector=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa=b",
    "/api/v1/configmaps?labelSelector=%20in%20(a)&resourceVersion=0",
    "/api/v1/configmaps?watch=1&labelSelector=a+in+(&resourceVersion=0",
    "/api/v1/pods?fieldSelector=a",
    "/api/v1/pods?fieldSelector=foo=bar",
    "/api/v1/pods?fieldSelector=spec.nodeName=a,b",
    "/api/v1/pods?fieldSelector=metadata.name=a%5C",
    "/api/v1/pods?fieldSelector=metadata.name=a%5Cx",
    "/api/v1/configmaps?fieldSelector=spec.nodeName=a&resourceVersion=0",
    "/api/v1/configmaps?watch=1&fieldSelector=data.x=a&resourceVersion=0",
    "/api/v1/nodes?fieldSelector=spec.podCIDR=a",
];

const VERSIONS: &[&str] = &[
    "/api/v1/configmaps?resourceVersion=abc",
    "/api/v1/configmaps?resourceVersion=-1",
    "/api/v1/configmaps?resourceVersion=1.5",
    "/api/v1/configmaps?resourceVersion=0x1",
    "/api/v1/configmaps?resourceVersion=%201",
    "/api/v1/configmaps?resourceVersion=99999999999999999999999",
    "/api/v1/configmaps?watch=1&resourceVersion=abc",
    "/api/v1/configmaps?watch=1&resourceVersion=-1",
    "/api/v1/configmaps?resourceVersionMatch=Exact",
    "/api/v1/configmaps?resourceVersionMatch=Exact&resourceVersion=0",
    "/api/v1/configmaps?resourceVersionMatch=Nonsense&resourceVersion=1",
    "/api/v1/configmaps?resourceVersionMatch=NotOlderThan",
    "/api/v1/configmaps?watch=1&resourceVersion=1&resourceVersionMatch=Exact",
    "/api/v1/configmaps?watch=1&resourceVersion=1&resourceVersionMatch=NotOlderThan",
    "/api/v1/namespaces/default/configmaps/a?resourceVersion=abc",
    "/api/v1/namespaces/default/configmaps/a?resourceVersion=-0",
];

const OPTIONS: &[&str] = &[
    "/api/v1/configmaps?limit=abc",
    "/api/v1/configmaps?limit=1e3",
    "/api/v1/configmaps?limit=99999999999999999999",
    "/api/v1/configmaps?continue=garbage",
    "/api/v1/configmaps?continue=garbage&resourceVersion=1",
    "/api/v1/configmaps?continue=e30&limit=1",
    "/api/v1/configmaps?timeoutSeconds=abc",
    "/api/v1/configmaps?watch=maybe&timeoutSeconds=x",
    "/api/v1/configmaps?allowWatchBookmarks=1&limit=x",
    "/api/v1/configmaps?sendInitialEvents=true",
    "/api/v1/configmaps?sendInitialEvents=false",
    "/api/v1/configmaps?watch=1&sendInitialEvents=true",
    "/api/v1/configmaps?watch=1&sendInitialEvents=false&resourceVersion=1",
    "/api/v1/configmaps?watch=1&sendInitialEvents=true&resourceVersionMatch=Exact&resourceVersion=1",
    "/api/v1/configmaps?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=x",
    "/api/v1/configmaps?timeout=abc",
    "/api/v1/configmaps?timeout=10",
    "/api/v1/namespaces/default/configmaps/a?timeout=x",
];

const PATHS: &[&str] = &[
    "/api/v1/namespaces/default/configmaps/none",
    "/api/v1/namespaces/none/configmaps/none",
    "/api/v1/podz",
    "/api/v2/pods",
    "/apis/none/v1/pods",
    "/apis/apps/v9/deployments",
    "/api/v1/namespaces/default/pods/a/b/c/d",
    "/api/v1/namespaces/default/configmaps/a/status",
    "/api/v1/namespaces/default/configmaps/NO%2Fslash",
    "/api/v1/namespaces/default/configmaps/%00",
    "/api/v1/namespaces/default/nodes/a",
    "/api/v1/pods/a",
    "/none",
    "/api/v1/watch/configmaps?resourceVersion=abc",
    "/api/v1/watch/namespaces/default/configmaps/a?resourceVersion=x",
    "/api/v1/namespaces/default/pods/a/log?tailLines=abc",
];

const HEADERS: &[Malformed] = &[
    ("GET", "/api/v1/configmaps", &[("accept", "text/html")], ""),
    (
        "GET",
        "/api/v1/configmaps",
        &[("accept", "image/png, text/css;q=0.1")],
        "",
    ),
    (
        "GET",
        "/api/v1/configmaps?resourceVersion=0",
        &[("accept", "application/json;as=Nonsense;v=v1;g=meta.k8s.io")],
        "",
    ),
    (
        "GET",
        "/api/v1/configmaps",
        &[("accept", "application/json;as=Table;v=v9;g=meta.k8s.io")],
        "",
    ),
    (
        "GET",
        "/api/v1/configmaps?watch=1",
        &[("accept", "text/html")],
        "",
    ),
    ("GET", "/api/v1/configmaps", &[("impersonate-uid", "x")], ""),
    (
        "GET",
        "/api/v1/configmaps",
        &[("impersonate-group", "x")],
        "",
    ),
];

const METHODS: &[Malformed] = &[
    ("BREW", "/api/v1/configmaps", &[], ""),
    ("PUT", "/api/v1/configmaps", &[], ""),
    (
        "POST",
        "/api/v1/namespaces/default/configmaps",
        &[("content-type", "application/json")],
        "{",
    ),
    (
        "POST",
        "/api/v1/namespaces/default/configmaps",
        &[("content-type", "text/plain")],
        "{}",
    ),
    (
        "POST",
        "/api/v1/namespaces/default/configmaps",
        &[("content-type", "application/vnd.kubernetes.protobuf")],
        "k8s",
    ),
    (
        "POST",
        "/api/v1/namespaces/default/configmaps",
        &[("content-type", "application/json")],
        "{\"kind\":\"Pod\",\"apiVersion\":\"v1\"}",
    ),
    (
        "PATCH",
        "/api/v1/namespaces/default/configmaps/a",
        &[("content-type", "application/json")],
        "{}",
    ),
    (
        "PATCH",
        "/api/v1/namespaces/default/configmaps/none",
        &[("content-type", "application/merge-patch+json")],
        "{}",
    ),
    (
        "DELETE",
        "/api/v1/namespaces/default/configmaps/none",
        &[],
        "",
    ),
    (
        "PUT",
        "/api/v1/namespaces/default/configmaps/none",
        &[("content-type", "application/json")],
        "{}",
    ),
];
