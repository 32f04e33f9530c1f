//! The command line as a person or a container runtime meets it: words, exit codes, signals.
//!
//! The binary runs as a process of its own, in front of an embedded apiserver of the test's.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(
    clippy::disallowed_methods,
    reason = "another process is waited for, in real time and outside of a runtime"
)]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use watershed_loadtest::apiserver::{Apiserver, Options};

const BINARY: &str = env!("CARGO_BIN_EXE_watershed");

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A folder with the files of a proxy, and the apiserver they lead to.
struct Site {
    folder: tempfile::TempDir,
    /// Ends with the runtime it lives on.
    _apiserver: Apiserver,
    _runtime: tokio::runtime::Runtime,
}

impl Site {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            dir: Some(folder.path().to_owned()),
            ..Options::default()
        };
        let apiserver = runtime.block_on(Apiserver::start(options)).unwrap();
        let site = Self {
            folder,
            _apiserver: apiserver,
            _runtime: runtime,
        };
        site.change("\"127.0.0.1:8443\"", "\"127.0.0.1:0\"");
        site.change("\"127.0.0.1:9443\"", "\"127.0.0.1:0\"");
        site.append("drain: {gracePeriod: 1s}\n");
        site
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self) -> PathBuf {
        self.file("watershed.yaml")
    }

    /// Replaces text of the configuration file.
    fn change(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.config()).unwrap();
        assert!(text.contains(from), "{from} is not in\n{text}");
        std::fs::write(self.config(), text.replace(from, to)).unwrap();
    }

    fn append(&self, line: &str) {
        let text = std::fs::read_to_string(self.config()).unwrap();
        std::fs::write(self.config(), text + line).unwrap();
    }

    /// Runs a command that ends by itself.
    fn run(&self, command: &str) -> Ended {
        run(&[command, "--config", self.config().to_str().unwrap()])
    }

    /// Starts `serve` and waits until it says where it listens.
    fn serve(&self) -> Running {
        self.serve_with(&[])
    }

    fn serve_with(&self, flags: &[&str]) -> Running {
        let mut process = Command::new(BINARY)
            .args(["serve", "--log-format", "json", "--config"])
            .arg(self.config())
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(process.stderr.take().unwrap());
        let mut running = Running {
            process,
            log,
            lines: Vec::new(),
        };
        running.until_logged("serving");
        running
    }
}

/// What a process left behind.
struct Ended {
    code: Option<i32>,
    output: String,
    errors: String,
}

fn run(arguments: &[&str]) -> Ended {
    let mut command = assert_cmd::Command::new(BINARY);
    let output = command.args(arguments).timeout(PATIENCE).output().unwrap();
    Ended {
        code: output.status.code(),
        output: String::from_utf8(output.stdout).unwrap(),
        errors: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Ended {
    /// Asserts exit code 1 and returns the one line that says why.
    fn one_error(self) -> String {
        assert_eq!((self.code, &*self.output), (Some(1), ""), "{}", self.errors);
        assert_eq!(self.errors.lines().count(), 1, "{}", self.errors);
        self.errors
    }
}

/// A proxy in a process of its own; killed when dropped.
struct Running {
    process: Child,
    log: BufReader<ChildStderr>,
    /// Every line so far, each a JSON object.
    lines: Vec<Value>,
}

impl Running {
    /// Reads log lines up to the one with this message.
    fn until_logged(&mut self, message: &str) -> Value {
        loop {
            let mut line = String::new();
            assert!(
                self.log.read_line(&mut line).unwrap() > 0,
                "it ended without {message:?}: {:?}",
                self.lines
            );
            let line: Value = serde_json::from_str(&line).expect(&line);
            self.lines.push(line.clone());
            if line["fields"]["message"] == message {
                return line;
            }
        }
    }

    fn address(&self, field: &str) -> SocketAddr {
        let serving = self.lines.last().unwrap();
        serving["fields"][field].as_str().unwrap().parse().unwrap()
    }

    fn signal(&self) {
        let pid = Pid::from_raw(self.process.id().try_into().unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// The answer to a plain GET, head included.
fn get(address: SocketAddr, path: &str) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        socket,
        "GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn help_names_every_command_and_every_flag() {
    for (arguments, words) in [
        (
            &["--help"][..],
            &[
                "serve",
                "check",
                "schema",
                "demo",
                "--log-level",
                "--log-format",
            ][..],
        ),
        (
            &["serve", "--help"],
            &["--config", "SIGTERM", "--unsafe-diagnostics"],
        ),
        (&["check", "--help"], &["--config", "exit 1"]),
        (
            &["demo", "--help"],
            &["--kubelets", "--seconds", "--report"],
        ),
    ] {
        let ended = run(arguments);
        assert_eq!((ended.code, &*ended.errors), (Some(0), ""), "{arguments:?}");
        for word in words {
            assert!(ended.output.contains(word), "{word}: {}", ended.output);
        }
    }
}

#[test]
fn a_command_line_that_makes_no_sense_exits_2_and_points_to_the_help() {
    for arguments in [
        &[][..],
        &["serve"],
        &["serv", "--config", "a"],
        &["serve", "--config", "a", "--log-format", "xml"],
    ] {
        let ended = run(arguments);
        assert_eq!(ended.code, Some(2), "{arguments:?}");
        assert!(ended.errors.contains("--help"), "{}", ended.errors);
    }
}

#[test]
fn schema_prints_the_committed_schema() {
    let ended = run(&["schema"]);
    assert_eq!((ended.code, &*ended.errors), (Some(0), ""));
    serde_json::from_str::<Value>(&ended.output).unwrap();
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/schema.json");
    assert_eq!(ended.output, std::fs::read_to_string(committed).unwrap());
}

#[test]
fn check_passes_a_good_file_with_one_sentence() {
    let site = Site::new();
    let ended = site.run("check");
    let sentence = format!("{}: no mistakes\n", site.config().display());
    assert_eq!(
        (ended.code, ended.output, ended.errors),
        (Some(0), sentence, String::new())
    );
}

#[test]
fn check_reports_every_mistake_with_its_place_and_key() {
    let site = Site::new();
    site.change("region: local", "region: a b\ncolour: blue");
    site.append("limits: {connections: 0, headerBytes: 1Ti}\n");
    let ended = site.run("check");
    assert_eq!((ended.code, &*ended.output), (Some(1), ""));
    let lines: Vec<&str> = ended.errors.lines().collect();
    let name = site.config().display().to_string();
    let expected = [
        (":4:9: region: ", "not a name"),
        (":5:1: colour: ", ""),
        (": limits.connections: ", "at least 1"),
        (": limits.headerBytes: ", "choose from 8Ki to 1Mi"),
    ];
    assert_eq!(lines.len(), expected.len(), "{}", ended.errors);
    for (line, (place, words)) in lines.iter().zip(expected) {
        let rest = line.strip_prefix(&*name).expect(line);
        assert!(rest.contains(place) && rest.contains(words), "{line}");
    }
    // `serve` refuses the same file with the same words.
    let served = site.run("serve");
    assert_eq!((served.code, served.errors), (Some(1), ended.errors));
}

#[test]
fn check_names_each_file_that_cannot_be_used_with_its_key() {
    let site = Site::new();
    for name in ["server.crt", "front-proxy.key", "watershed.kubeconfig"] {
        std::fs::remove_file(site.file(name)).unwrap();
    }
    std::fs::write(site.file("ca.crt"), "not a certificate\n").unwrap();
    for command in ["check", "serve"] {
        let ended = site.run(command);
        assert_eq!((ended.code, &*ended.output), (Some(1), ""));
        let lines: Vec<&str> = ended.errors.lines().collect();
        let expected = [
            ("listen.certFile", "server.crt"),
            ("listen.clientCAFile", "ca.crt"),
            ("upstream.caFile", "ca.crt"),
            ("upstream.credentials.kubeconfig", "watershed.kubeconfig"),
            ("upstream.identity.keyFile", "front-proxy.key"),
        ];
        assert_eq!(lines.len(), expected.len(), "{}", ended.errors);
        for (line, (key, file)) in lines.iter().zip(expected) {
            let path = site.file(file).canonicalize().unwrap_or_else(|_| {
                let folder = site.folder.path().canonicalize().unwrap();
                folder.join(file)
            });
            let words = format!(": {key}: {}: ", path.display());
            assert!(line.contains(&words), "{words} is not in {line}");
        }
    }
}

#[test]
fn check_and_serve_look_at_who_else_may_use_a_secret() {
    let site = Site::new();
    let set_mode = |name: &str, mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(site.file(name), mode).unwrap();
    };
    // Where a group or everybody may read, both say so and go on.
    set_mode("server.key", 0o644);
    set_mode("watershed.kubeconfig", 0o660);
    let ended = site.run("check");
    assert_eq!(ended.code, Some(0), "{}", ended.errors);
    let lines: Vec<&str> = ended.errors.lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    let mut running = site.serve();
    for (line, (key, file, mode)) in lines.into_iter().zip([
        ("listen.keyFile", "server.key", "0644"),
        (
            "upstream.credentials.kubeconfig",
            "watershed.kubeconfig",
            "0660",
        ),
    ]) {
        assert!(line.contains(&format!(": {key}: warning: ")), "{line}");
        let path = site.file(file).canonicalize().unwrap();
        let words = format!(
            "mode {mode} opens it to others; run `chmod 0600 {}`",
            path.display()
        );
        assert!(line.contains(&words), "{line}");
        let logged = running.lines.iter().filter(|line| {
            let message = line["fields"]["message"].as_str().unwrap();
            line["level"] == "WARN" && message.contains(&words)
        });
        assert_eq!(logged.count(), 1, "{words}: {:?}", running.lines);
    }
    running.signal();
    running.wait();

    // Where everybody may write, neither does.
    set_mode("server.key", 0o600);
    set_mode("watershed.kubeconfig", 0o600);
    set_mode("ca.crt", 0o666);
    for command in ["check", "serve"] {
        let ended = site.run(command);
        assert_eq!(ended.code, Some(1), "{command}");
        let lines: Vec<&str> = ended.errors.lines().collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        for (line, key) in lines.iter().zip(["listen.clientCAFile", "upstream.caFile"]) {
            assert!(line.contains(&format!(": {key}: ")), "{line}");
            assert!(line.contains("(mode 0666); run `chmod o-w "), "{line}");
        }
    }
}

#[test]
fn serve_says_in_one_line_why_it_cannot_start() {
    let site = Site::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let original = std::fs::read_to_string(site.config()).unwrap();
    for key in ["listen", "admin"] {
        let at = original.find(&format!("{key}:")).unwrap();
        let (before, after) = original.split_at(at);
        let text = after.replacen("127.0.0.1:0", &address.to_string(), 1);
        std::fs::write(site.config(), format!("{before}{text}")).unwrap();
        let error = last_line(site.run("serve"));
        let words = format!("{key}.address: cannot listen on {address}: Address already in use");
        assert!(error.starts_with(&words), "{error}");
        assert!(error.contains("choose another port"), "{error}");
    }
    std::fs::write(site.config(), &original).unwrap();

    // A key of another certificate: each file is good, the pair is not.
    let good = std::fs::read(site.file("server.key")).unwrap();
    std::fs::copy(site.file("admin.key"), site.file("server.key")).unwrap();
    let error = last_line(site.run("serve"));
    assert!(error.contains("`listen`"), "{error}");
    assert!(error.contains("certificate and key"), "{error}");
    std::fs::write(site.file("server.key"), good).unwrap();

    std::fs::write(site.file("server.crt"), "-----BEGIN CERTIFICATE-----\n").unwrap();
    let error = site.run("serve").one_error();
    assert!(error.contains("listen.certFile: "), "{error}");
    assert!(error.contains("server.crt: "), "{error}");

    std::fs::remove_file(site.config()).unwrap();
    for path in [site.config(), site.folder.path().to_owned()] {
        let path = path.to_str().unwrap();
        let error = run(&["serve", "--config", path]).one_error();
        assert!(error.contains(path), "{error}");
    }
}

/// The error of a start that failed; what was logged before it is not part of it.
fn last_line(ended: Ended) -> String {
    assert_eq!(
        (ended.code, &*ended.output),
        (Some(1), ""),
        "{}",
        ended.errors
    );
    ended.errors.lines().last().unwrap().to_owned()
}

#[test]
fn serve_gets_ready_logs_objects_and_drains_on_sigterm() {
    let site = Site::new();
    let mut running = site.serve();
    let admin = running.address("admin.address");
    assert!(running.address("address").port() > 0);
    let start = Instant::now();
    loop {
        let answer = get(admin, "/readyz");
        if answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok") {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{answer}");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(get(admin, "/metrics").contains("\nwatershed_connections 0\n"));

    running.signal();
    running.until_logged("drained");
    assert_eq!(running.wait().code(), Some(0));
    for line in &running.lines {
        for key in ["timestamp", "level", "target", "fields"] {
            assert!(!line[key].is_null(), "{key} is not in {line}");
        }
    }
    TcpStream::connect(admin).unwrap_err();
}

/// The system's line about core dumps of a process.
#[cfg(target_os = "linux")]
fn core_limit(process: &str) -> String {
    let limits = std::fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
    let line = limits.lines().find(|line| line.contains("core file size"));
    line.unwrap().to_owned()
}

#[cfg(target_os = "linux")]
#[test]
fn serve_leaves_no_core_dump_unless_it_is_told_to() {
    let site = Site::new();
    for (flags, expected) in [
        (&[][..], Some(["0", "0"])),
        (&["--unsafe-diagnostics"], None),
    ] {
        let running = site.serve_with(flags);
        let limit = core_limit(&running.process.id().to_string());
        match expected {
            Some(none) => {
                let numbers: Vec<_> = limit.split_whitespace().skip(4).take(2).collect();
                assert_eq!(numbers, none, "{limit}");
            }
            None => assert_eq!(limit, core_limit("self"), "{flags:?}"),
        }
    }
}

#[test]
fn a_second_signal_ends_a_drain_at_once() {
    let site = Site::new();
    site.change("gracePeriod: 1s", "gracePeriod: 10m");
    let mut running = site.serve();
    running.signal();
    running.until_logged("draining; a second signal ends it at once");
    let start = Instant::now();
    running.signal();
    running.until_logged("ended before it was drained");
    assert_eq!(running.wait().code(), Some(0));
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
}
