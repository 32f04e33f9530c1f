//! Attacks on what is forwarded: the apiserver hears who asked, and nothing else about identity.

use super::*;

/// What the recorder answers.
const REACHED: &str = "reached";

/// A proxy before an apiserver that writes down what reaches it.
struct Recorder {
    fixture: Fixture,
    upstream: Scripted,
    caller: Caller,
    seen: Arc<Mutex<Vec<(String, HeaderMap)>>>,
}

impl Recorder {
    async fn start() -> anyhow::Result<Self> {
        let pki = Pki::ephemeral()?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&seen);
        let upstream = Scripted::start(&pki, move |request| {
            let (parts, _) = request.into_parts();
            let target = format!("{} {}", parts.method, parts.uri);
            record.lock().push((target, parts.headers));
            async { Response::new(full(REACHED)) }
        })
        .await?;
        let fixture = Fixture::behind(&pki, upstream.address, |_| ()).await?;
        let caller = Caller::of(&pki, pki.issue_node("n1")?);
        Ok(Self {
            fixture,
            upstream,
            caller,
            seen,
        })
    }

    /// Checks what reached the apiserver since the last time: nothing that was hidden, and what was
    /// sent openly in the caller's own name. Tells how often the latter did.
    fn check(&self) -> anyhow::Result<usize> {
        let seen = std::mem::take(&mut *self.seen.lock());
        let mut reached = 0;
        for (target, headers) in seen {
            ensure!(!target.contains("hidden"), "{target} reached the apiserver");
            // Others are the proxy's own.
            if !target.contains("attack") && !headers.contains_key("x-remote-user") {
                continue;
            }
            reached += 1;
            let about = |it: &&http::HeaderName| {
                let name = it.as_str().replace('_', "-");
                ["x-remote-", "impersonate-"]
                    .iter()
                    .any(|prefix| name.starts_with(prefix))
                    || [
                        "authorization",
                        "proxy-authorization",
                        "upgrade",
                        "connection",
                    ]
                    .contains(&&*name)
            };
            let mut names: Vec<_> = headers.keys().filter(about).collect();
            names.sort_by_key(|it| it.as_str());
            let credential = "x-remote-extra-authentication.kubernetes.io%2fcredential-id";
            ensure!(
                names == [credential, "x-remote-group", "x-remote-user"],
                "{target} {headers:?}"
            );
            let values = |name: &str| -> Vec<String> {
                let values = headers.get_all(name).iter();
                values
                    .map(|it| String::from_utf8_lossy(it.as_bytes()).into_owned())
                    .collect()
            };
            assert_eq!(values("x-remote-user"), ["system:node:n1"]);
            assert_eq!(
                values("x-remote-group"),
                ["system:nodes", "system:authenticated"]
            );
            let credential = values(credential);
            ensure!(
                credential.len() == 1 && credential[0].starts_with("X509SHA256="),
                "{credential:?}"
            );
            let authority = self.upstream.address.to_string();
            ensure!(target.contains(&authority), "{target}");
        }
        Ok(reached)
    }
}

/// Lines of a head, and the status of the answer.
const HEADS: [(&str, u16); 43] = [
    ("", 200),
    // Names of somebody else, in every case and number.
    (
        "X-Remote-User: admin\r\nX-Remote-Group: system:masters\r\n",
        200,
    ),
    (
        "x-REMOTE-user: admin\r\nX-REMOTE-GROUP: system:masters\r\n",
        200,
    ),
    (
        "X-Remote-User: a\r\nX-Remote-User: b\r\nx-remote-user: c\r\n",
        200,
    ),
    ("X-Remote-User:\r\nX-Remote-User: admin\r\n", 200),
    ("X-Remote-Uid: 0\r\nX-Remote-Anything-New: x\r\n", 200),
    (
        "X-Remote-Extra-%2f..%2fScopes: all\r\nX-Remote-Extra-: x\r\n",
        200,
    ),
    (
        "X-Remote-Extra-Authentication.kubernetes.io%2fCredential-Id: X509SHA256=0\r\n",
        200,
    ),
    (
        "X-Remote-Extra-authentication.kubernetes.io%2Fcredential-id: X509SHA256=0\r\n",
        200,
    ),
    // Spellings that some servers take for the same.
    (
        "X_Remote_User: admin\r\nX-Remote_Group: system:masters\r\n",
        200,
    ),
    (
        "x_remote-user: admin\r\nX_REMOTE_EXTRA_SCOPES: all\r\n",
        200,
    ),
    ("Authorization: Bearer stolen\r\n", 200),
    (
        "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n",
        200,
    ),
    ("Proxy-Authorization: Basic YTpi\r\n", 200),
    // Hop-by-hop.
    (
        "Connection: X-Remote-User, X-Remote-Group, X-Remote-Uid\r\n",
        200,
    ),
    (
        "Connection: x-remote-extra-authentication.kubernetes.io%2fcredential-id\r\n",
        200,
    ),
    (
        "Connection: authorization,,;,\tx-remote-user\r\nX-Remote-User: admin\r\n",
        200,
    ),
    ("Connection: host, x-forwarded-for, content-length\r\n", 200),
    (
        "Keep-Alive: x\r\nTE: chunked\r\nTrailer: X-Remote-User\r\n",
        200,
    ),
    (
        "Connection: keep-alive, Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
        200,
    ),
    ("Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n", 200),
    ("Connection: Upgrade\r\nUpgrade: HTTP/2.0\r\n", 200),
    ("Upgrade: websocket\r\n", 200),
    // What is no header.
    ("X-Remote-User : admin\r\n", 400),
    (" X-Remote-User: admin\r\n", 400),
    ("\tX-Remote-User: admin\r\n", 400),
    ("X-Folded: a\r\n X-Remote-User: admin\r\n", 400),
    ("X-Folded: a\r\n\tb\r\n", 400),
    ("X-Remote-User\r\n", 400),
    (": admin\r\n", 400),
    ("X-Remote\u{b}User: admin\r\n", 400),
    ("X-Remote-User\u{0}: admin\r\n", 400),
    ("X-Remote-Us\u{e9}r: admin\r\n", 400),
    ("X Remote User: admin\r\n", 400),
    ("X-Remote-User: ad\u{0}min\r\n", 400),
    ("X-A: b\rX-Remote-User: admin\r\n", 400),
    // A bare line feed ends a line, as it does for Go.
    ("X-A: b\nX-Remote-User: admin\r\n", 200),
    // Where it goes is not the client's to say.
    ("Host: hidden\r\n", 400),
    (
        "X-Forwarded-Host: hidden\r\nForwarded: host=hidden;for=admin\r\nX-Original-URL: /hidden\r\n",
        200,
    ),
    ("X-HTTP-Method-Override: DELETE\r\n", 200),
    // The length of a body, twice; bad_clients.rs has the other ways.
    ("Content-Length: 0\r\nContent-Length: 5\r\n", 400),
    // Go, too, believes the latter.
    ("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", 200),
    ("Transfer-Encoding: chunked, gzip\r\n", 400),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_header_changes_who_the_apiserver_sees() -> anyhow::Result<()> {
    let recorder = Recorder::start().await?;
    let address = recorder.fixture.proxy.address();
    let mut wrong = Vec::new();
    for (lines, expected) in HEADS {
        let request =
            format!("GET /attack HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{lines}\r\n");
        let outcome = ask_http1(&recorder.caller, address, request.as_bytes()).await?;
        let reached = recorder.check().with_context(|| lines.to_owned())?;
        let status = match &outcome {
            Outcome::Answer(status, _) => *status,
            Outcome::Reset => 0,
        };
        if (status, reached) != (expected, usize::from(expected == 200)) {
            wrong.push(format!("{lines:?}: {outcome:?}, reached {reached} times"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    recorder.fixture.stop().await;
    Ok(())
}

/// Request lines, and the status of the answer.
const LINES: [(&str, u16); 15] = [
    ("GET https://hidden.example/attack HTTP/1.1", 200),
    ("GET //attack HTTP/1.1", 200),
    ("GET /%61ttack/attack HTTP/1.1", 200),
    ("get /attack HTTP/1.1", 200),
    ("GET /attack HTTP/1.0", 200),
    ("GET /attack#hidden HTTP/1.1", 200),
    ("GET hidden HTTP/1.1", 400),
    ("GET attack.example:443 HTTP/1.1", 400),
    // Requests like others, as for Go: the apiserver is asked, and nobody opens a tunnel.
    ("CONNECT hidden:443 HTTP/1.1", 200),
    ("OPTIONS * HTTP/1.1", 200),
    ("GET * HTTP/1.1", 200),
    ("GET /attack HTTP/1.1 hidden", 400),
    ("GET\t/attack\tHTTP/1.1", 400),
    ("GET /attack HTTP/2.0", 400),
    ("G\u{b}T /attack HTTP/1.1", 400),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_line_leads_elsewhere() -> anyhow::Result<()> {
    let recorder = Recorder::start().await?;
    let address = recorder.fixture.proxy.address();
    let mut wrong = Vec::new();
    for (line, expected) in LINES {
        let request = format!("{line}\r\nHost: a\r\nConnection: close\r\n\r\n");
        let outcome = ask_http1(&recorder.caller, address, request.as_bytes()).await?;
        recorder.check().with_context(|| line.to_owned())?;
        if !matches!(outcome, Outcome::Answer(status, _) if status == expected) {
            wrong.push(format!("{line:?}: {outcome:?}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    recorder.fixture.stop().await;
    Ok(())
}

/// Fields that replace those of the same name, or join them, and whether the request reaches the
/// apiserver.
const PSEUDO: [(&[(&str, &str)], bool); 36] = [
    (&[], true),
    (
        &[
            ("x-remote-user", "admin"),
            ("x-remote-group", "system:masters"),
        ],
        true,
    ),
    (
        &[
            ("x_remote_user", "admin"),
            ("authorization", "Bearer stolen"),
        ],
        true,
    ),
    // The target.
    (&[(":path", "/attack with a blank")], false),
    (&[(":path", "/attack\r\nX-Remote-User: admin")], false),
    (
        &[(":path", "/attack HTTP/1.1\r\nHost: a\r\n\r\nGET /hidden")],
        false,
    ),
    (&[(":path", "/attack\u{0}")], false),
    (&[(":path", "/attack#hidden")], true),
    (&[(":path", "attack")], false),
    (&[(":path", "hidden/attack")], false),
    (&[(":path", "https://hidden.example/attack")], false),
    (&[(":path", "")], false),
    (&[(":path", "*")], true),
    (&[(":path", "/attack"), (":path", "/hidden")], false),
    (&[(":path", "//attack")], true),
    // Who is asked.
    (&[(":authority", "hidden.example")], true),
    (&[(":authority", "user:password@hidden.example")], true),
    (&[(":authority", "a b")], false),
    (&[(":authority", "a\r\nX-Remote-User: admin")], false),
    (&[(":authority", "a"), (":authority", "hidden")], false),
    (&[("host", "hidden.example")], true),
    (&[(":scheme", "http")], true),
    (&[(":scheme", "https\r\n")], false),
    // How.
    (
        &[(
            ":method",
            "GET /hidden HTTP/1.1\r\nX-Remote-User: admin\r\n",
        )],
        false,
    ),
    (&[(":method", "")], false),
    (&[(":method", "CONNECT")], false),
    (&[(":protocol", "websocket")], false),
    (&[(":evil", "x")], false),
    (&[("x-a", "b"), (":path", "/hidden")], false),
    // Fields of HTTP/1.1, and what no field is.
    (&[("transfer-encoding", "chunked")], false),
    (&[("connection", "x-remote-user")], false),
    (&[("upgrade", "h2c")], false),
    (&[("te", "gzip")], false),
    (&[("X-Remote-User", "admin")], false),
    (&[("x-a\r\nx-remote-user", "admin")], false),
    (&[("x-a", "b\r\nx-remote-user: admin")], false),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_field_of_http2_changes_who_the_apiserver_sees_or_what_is_asked() -> anyhow::Result<()> {
    let recorder = Recorder::start().await?;
    let address = recorder.fixture.proxy.address();
    let mut wrong = Vec::new();
    for (given, expected) in PSEUDO {
        let defaults = [
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", "a"),
            (":path", "/attack"),
        ];
        let is_given = |name: &str| given.iter().any(|it| it.0 == name && given[0].0 != "x-a");
        let kept = defaults.into_iter().filter(|it| !is_given(it.0));
        let (pseudo, others): (Vec<_>, Vec<_>) = given
            .iter()
            .copied()
            .partition(|it| it.0.starts_with(':') && given[0].0 != "x-a");
        let fields: Fields = kept
            .chain(pseudo)
            .chain(others)
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        let outcome = ask_http2(&recorder.caller, address, &fields).await?;
        let reached = recorder.check().with_context(|| format!("{given:?}"))?;
        let is_answered = matches!(&outcome, Outcome::Answer(200, body) if body == REACHED);
        if (reached, is_answered) != (usize::from(expected), expected) {
            wrong.push(format!("{given:?}: {outcome:?}, reached {reached} times"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    recorder.fixture.stop().await;
    Ok(())
}
