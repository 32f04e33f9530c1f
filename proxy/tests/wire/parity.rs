//! Random callers ask random questions through the proxy and get the apiserver's decisions.
//!
//! Two laws, with the proxy asking the apiserver for each decision and with it deciding by itself.
//! While objects are written, an answer has to have been true: a refusal at some moment while it was
//! asked for, a grant then or a moment before, for what is taken away is heard of a moment later.
//! What the apiserver would say is followed from write to write, so a grant of what nobody ever had
//! is seen however short it is. Once nothing is written, codes and the texts of refusals are equal.
//!
//! `WATERSHED_PARITY_SEED=N` replays the writes and the questions of a run.

mod world;

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use fastrand::Rng;
use futures_util::future::try_join_all;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use watershed_loadtest::{
    apiserver::{Apiserver, Options},
    client::{Client, Protocol, Request, tls},
};

use self::world::{Caller, World};
use crate::fixture::{FORMS, Fixture, Form};

const SEED: &str = "WATERSHED_PARITY_SEED";
/// Objects there are before the first question.
const BEFORE: usize = 60;
/// Questions that are asked again and again while objects are written; half of them are granted
/// at first.
const QUESTIONS: usize = 60;
/// Questions that nobody asked before, once nothing is written.
const MORE_QUESTIONS: usize = 250;
/// How long is written at least, and a moment between two writes.
const NOISE: (Duration, Duration) = (Duration::from_secs(4), Duration::from_millis(15));
/// How long is written at most until enough was asked.
const NOISE_MAX: Duration = Duration::from_secs(60);
/// Grants and refusals while objects are written, of each, and answers that change meanwhile.
const ENOUGH: (usize, usize) = (20, 3);
/// Who asks at a time.
const ASKERS: usize = 24;
/// How long a right may outlive its end: the way of an event through a slow debug build.
const LATE: Duration = Duration::from_secs(5);
/// How long the last writes may take to be known.
const SETTLED: Duration = Duration::from_secs(20);

/// What is asked, and by whom.
struct Question {
    caller: usize,
    target: String,
}

/// What the apiserver would have answered, and since when.
#[derive(Clone, Copy)]
struct Truth {
    allowed: bool,
    since: Option<Instant>,
}

/// Who asks whom.
struct Parties {
    callers: Vec<Caller>,
    direct: Vec<Client>,
    proxied: Vec<Client>,
}

impl Parties {
    fn new(apiserver: &Apiserver, fixture: &Fixture) -> anyhow::Result<Self> {
        let callers = world::callers(apiserver)?;
        let clients = |address| {
            let client = |caller: &Caller| {
                let tls = tls(apiserver.pki().ca(), caller.certificate.as_ref())?;
                let client = Client::new(address, tls, Protocol::Http2);
                let client = client.with_default("accept", "application/json");
                anyhow::Ok(match &caller.token {
                    Some(token) => client.with_default("authorization", format!("Bearer {token}")),
                    None => client,
                })
            };
            callers
                .iter()
                .map(client)
                .collect::<anyhow::Result<Vec<_>>>()
        };
        Ok(Self {
            direct: clients(apiserver.addr())?,
            proxied: clients(fixture.proxy.address())?,
            callers,
        })
    }

    fn questions(&self, rng: &mut Rng, count: usize) -> Vec<Question> {
        let question = |_| Question {
            caller: rng.usize(..self.callers.len()),
            target: world::target(rng),
        };
        (0..count).map(question).collect()
    }

    /// Questions of which half are granted, or that were asked as long as it may take.
    fn balanced(&self, apiserver: &Apiserver, rng: &mut Rng, count: usize) -> Vec<Question> {
        let mut kept = self.questions(rng, count / 2);
        for question in self.questions(rng, count * 50) {
            if kept.len() < count && self.truth(apiserver, &question) {
                kept.push(question);
            }
        }
        kept
    }

    fn truth(&self, apiserver: &Apiserver, question: &Question) -> bool {
        let user = &self.callers[question.caller].user;
        apiserver.state().would_allow(user, &question.target)
    }

    fn describe(&self, question: &Question) -> String {
        let user = &self.callers[question.caller].user;
        format!("{} {:?} GET {}", user.name, user.groups, question.target)
    }
}

/// The code of an answer, and the text of a refusal.
async fn ask(client: &Client, target: &str) -> anyhow::Result<(u16, String)> {
    let open = client.send(Request::get(target)).await?;
    let status = open.status();
    // Anything else may be a stream, or large; it ends when it is dropped.
    let text = match status {
        403 => in_order(&open.whole().await?.text()),
        _ => String::new(),
    };
    ensure!(
        matches!(status, 200 | 400 | 403..=405),
        "{target}: {status}"
    );
    Ok((status, text))
}

/// A refusal with the roles that are missing in the order of their names: the apiserver's own is
/// that of its indexes.
fn in_order(text: &str) -> String {
    let sorted = text.split_once("RBAC: [").and_then(|(before, rest)| {
        let (missing, after) = rest.split_once(']')?;
        let mut missing: Vec<_> = missing.split(", ").collect();
        missing.sort_unstable();
        Some(format!("{before}RBAC: [{}]{after}", missing.join(", ")))
    });
    sorted.unwrap_or_else(|| text.to_owned())
}

/// What is answered while objects are written, and what would have been right.
#[derive(Default)]
struct Doubted {
    truths: Mutex<Vec<Truth>>,
    granted: AtomicUsize,
    refused: AtomicUsize,
    is_over: AtomicBool,
}

impl Doubted {
    /// Grants, refusals, and questions whose answer has changed.
    fn counts(&self) -> (usize, usize, usize) {
        let truths = self.truths.lock();
        let changed = truths.iter().filter(|truth| truth.since.is_some()).count();
        let (granted, refused) = (&self.granted, &self.refused);
        let count = |of: &AtomicUsize| of.load(Ordering::Relaxed);
        (count(granted), count(refused), changed)
    }

    fn is_enough(&self) -> bool {
        let (granted, refused, changed) = self.counts();
        granted > ENOUGH.0 && refused > ENOUGH.0 && changed > ENOUGH.1
    }
}

/// Writes for a while. What the questions' answers are is known after each write.
async fn write(
    world: &mut World<'_>,
    rng: &mut Rng,
    parties: &Parties,
    questions: &[Question],
    doubted: &Doubted,
) -> usize {
    let begun = Instant::now();
    let is_over = |passed| passed >= NOISE_MAX || passed >= NOISE.0 && doubted.is_enough();
    let truths = &doubted.truths;
    let mut writes = 0;
    while !is_over(begun.elapsed()) {
        {
            let mut truths = truths.lock();
            world.change(rng);
            for (truth, question) in truths.iter_mut().zip(questions) {
                let allowed = parties.truth(world.apiserver, question);
                if truth.allowed != allowed {
                    let since = Some(Instant::now());
                    *truth = Truth { allowed, since };
                }
            }
        }
        writes += 1;
        sleep(NOISE.1).await;
    }
    doubted.is_over.store(true, Ordering::Relaxed);
    writes
}

/// Asks until the writer is done.
async fn doubt(
    mut rng: Rng,
    parties: &Parties,
    questions: &[Question],
    doubted: &Doubted,
) -> anyhow::Result<()> {
    while !doubted.is_over.load(Ordering::Relaxed) {
        let index = rng.usize(..questions.len());
        let question = &questions[index];
        let begun = Instant::now();
        let (status, text) = ask(&parties.proxied[question.caller], &question.target).await?;
        let truth = doubted.truths.lock()[index];
        let changed_since = |moment: Instant| truth.since.is_some_and(|since| since >= moment);
        if status == 403 {
            doubted.refused.fetch_add(1, Ordering::Relaxed);
            ensure!(
                !truth.allowed || changed_since(begun),
                "refused what was allowed all the time: {}: {text}",
                parties.describe(question)
            );
        } else {
            doubted.granted.fetch_add(1, Ordering::Relaxed);
            ensure!(
                truth.allowed || changed_since(begun - LATE),
                "granted what was refused all the time: {}: {status}",
                parties.describe(question)
            );
        }
    }
    Ok(())
}

/// Nothing is written any more: the answers are the apiserver's.
async fn agree(parties: &Parties, questions: &[Question], deadline: Instant) -> anyhow::Result<()> {
    let agrees = async |question: &Question| {
        let direct = ask(&parties.direct[question.caller], &question.target).await?;
        loop {
            let proxied = ask(&parties.proxied[question.caller], &question.target).await?;
            if proxied == direct {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "{}: directly {direct:?}, through the proxy {proxied:?}",
                parties.describe(question)
            );
            sleep(Duration::from_millis(10)).await;
        }
    };
    for some in questions.chunks(ASKERS) {
        try_join_all(some.iter().map(agrees)).await?;
    }
    Ok(())
}

#[expect(
    clippy::print_stdout,
    reason = "what was compared is what the test shows"
)]
async fn compare(form: Form, seed: u64) -> anyhow::Result<()> {
    let users = world::users()?;
    let apiserver = Apiserver::start(Options {
        users,
        ..Options::default()
    })
    .await?;
    let mut rng = Rng::with_seed(seed);
    let mut world = World::new(&apiserver);
    for _ in 0..BEFORE {
        world.change(&mut rng);
    }
    let fixture = Fixture::start(&apiserver, |config| {
        form.declare(config);
        config.live.authorization.allow_ttl = Duration::ZERO;
        config.live.authorization.deny_ttl = Duration::ZERO;
    })
    .await?;
    let parties = Parties::new(&apiserver, &fixture)?;
    let questions = parties.balanced(&apiserver, &mut rng, QUESTIONS);
    let truth = |question| Truth {
        allowed: parties.truth(&apiserver, question),
        since: None,
    };
    let doubted = Doubted {
        truths: Mutex::new(questions.iter().map(truth).collect()),
        ..Doubted::default()
    };
    let asking = (0..ASKERS).map(|_| doubt(rng.fork(), &parties, &questions, &doubted));
    let asking = try_join_all(asking.collect::<Vec<_>>());
    let writing = write(&mut world, &mut rng, &parties, &questions, &doubted);
    let writing = async { anyhow::Ok(writing.await) };
    let (_, writes) = tokio::try_join!(asking, writing)?;
    let (granted, refused, changed) = doubted.counts();
    let deadline = Instant::now() + SETTLED;
    agree(&parties, &questions, deadline).await?;
    let more = parties.questions(&mut rng, MORE_QUESTIONS);
    agree(&parties, &more, deadline).await?;
    let reviews =
        apiserver
            .counters()
            .requests("create", "authorization.k8s.io", "subjectaccessreviews");
    println!(
        "{form:?}: {writes} writes, {granted} grants and {refused} refusals meanwhile, \
         {changed} of {} answers changed, {reviews} reviews",
        questions.len()
    );
    ensure!(doubted.is_enough(), "too little was asked");
    fixture.stop().await;
    apiserver.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decisions_are_the_apiservers() -> anyhow::Result<()> {
    let seed = match std::env::var(SEED) {
        Ok(seed) => seed.parse().context("the seed is a number")?,
        Err(_unset) => fastrand::u64(..),
    };
    for form in FORMS {
        let compared = compare(form, seed).await;
        compared.with_context(|| format!("{form:?}; {SEED}={seed} replays this"))?;
    }
    Ok(())
}
