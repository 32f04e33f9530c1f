//! Runs cases against one environment, and counts how they end.
//!
//! Owns the runtime and the servers that cases share. They live as long as the process: a test
//! binary has no last test. When a test binary is run whole, all cases begin with its first test,
//! some at a time, because most of their time is waiting; each test then waits for its own case.
//! Invariant: a case ends as passed, failed or not applicable, and the case that is the last of a
//! whole run prints the counts.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

use super::{CASES, Case, Cluster, Environment, NotApplicable, SECTIONS_OF_ACCESS, Setup, Started};
use crate::client::Journal;

/// Cases that run at a time when all are run.
const CONCURRENT: usize = 8;

/// How a case ended.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// The law holds.
    Passed,
    /// It says nothing about this server, and why.
    DoesNotApply(String),
    /// It does not hold.
    Failed(String),
}

/// All cases against one environment.
pub struct Suite {
    name: &'static str,
    cases: Vec<&'static Case>,
    environment: Arc<dyn Environment>,
    runtime: Runtime,
    shared: OnceCell<Started>,
    begun: OnceLock<Mutex<HashMap<&'static str, Receiver<Verdict>>>>,
    verdicts: Mutex<Vec<(&'static str, Verdict)>>,
}

impl std::fmt::Debug for Suite {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name)
    }
}

impl Suite {
    /// A suite that starts its servers with the first case.
    ///
    /// # Errors
    /// When there can be no runtime.
    pub fn new(name: &'static str, environment: Arc<dyn Environment>) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("start a runtime")?;
        Ok(Self {
            name,
            cases: CASES.iter().collect(),
            environment,
            runtime,
            shared: OnceCell::new(),
            begun: OnceLock::new(),
            verdicts: Mutex::default(),
        })
    }

    /// The same with the cases about who is who and who may what only.
    #[must_use]
    pub fn of_access(mut self) -> Self {
        self.cases.retain(|case| {
            let section = case.name.split("::").next();
            SECTIONS_OF_ACCESS.iter().any(|own| section == Some(own))
        });
        self
    }

    /// Runs a case as a test: fails where it fails, and says when it does not apply.
    ///
    /// # Panics
    /// When the case fails or there is none of this name.
    pub fn test(&'static self, name: &str) {
        let case = self.cases.iter().find(|own| own.name == name);
        let case = case.expect("the list of tests is the list of cases");
        let begun = self.begun.get_or_init(|| Mutex::new(self.begin_all()));
        let begun = begun.lock().remove(name);
        // Not begun, or its thread ended with the panic of a case.
        let verdict = begun.and_then(|verdict| verdict.recv().ok());
        let verdict = verdict.unwrap_or_else(|| self.runtime.block_on(self.run(case, None)));
        match verdict {
            Verdict::Passed | Verdict::DoesNotApply(_) => {}
            Verdict::Failed(why) => panic!("{}, case {:?}: {why}", case.name, case.numbers),
        }
    }

    /// Begins every case in the order of the list; none when the command line asks for some tests
    /// only, or for a way of running them.
    fn begin_all(&'static self) -> HashMap<&'static str, Receiver<Verdict>> {
        if std::env::args_os().len() > 1 {
            return HashMap::new();
        }
        let (senders, receivers): (Vec<_>, HashMap<_, _>) = self
            .cases
            .iter()
            .map(|&case| {
                let (sender, receiver) = sync_channel(1);
                ((case, sender), (case.name, receiver))
            })
            .unzip();
        // The tests that wait for the verdicts outlive the thread that gives them.
        std::thread::spawn(move || {
            let verdicts = senders.into_iter().map(async |(case, sender)| {
                // A test that failed for another reason does not want it any more.
                let _ = sender.send(self.run(case, None).await);
            });
            let all = stream::iter(verdicts).buffer_unordered(CONCURRENT);
            self.runtime.block_on(all.collect::<Vec<()>>());
        });
        receivers
    }

    /// Runs a case, with what is said to the server under test written into a journal.
    pub async fn run(&self, case: &Case, journal: Option<Journal>) -> Verdict {
        let verdict = match self.outcome(case, journal).await {
            Ok(()) => Verdict::Passed,
            Err(error) => match error.downcast_ref::<NotApplicable>() {
                Some(NotApplicable(reason)) => Verdict::DoesNotApply(reason.clone()),
                None => Verdict::Failed(format!("{error:?}")),
            },
        };
        self.count(case, &verdict);
        verdict
    }

    /// Ends the servers that cases shared.
    pub async fn end(self) {
        let Self {
            shared, runtime, ..
        } = self;
        if let Some(started) = shared.into_inner() {
            started.running.stop().await;
        }
        // Not here, where it might be another runtime's thread.
        runtime.shutdown_background();
    }

    async fn outcome(&self, case: &Case, journal: Option<Journal>) -> anyhow::Result<()> {
        let start = || self.environment.start(Setup::default());
        let shared = self.shared.get_or_try_init(start).await?;
        let environment = Arc::clone(&self.environment);
        let cluster = Cluster::new(shared.subject.clone(), environment, journal)?;
        let outcome = (case.run)(&cluster).await;
        cluster.end().await;
        outcome
    }

    /// Standard error is written to directly: the harness hides what passing tests print.
    fn count(&self, case: &Case, verdict: &Verdict) {
        let mut verdicts = self.verdicts.lock();
        verdicts.push((case.name, verdict.clone()));
        let mut report = String::new();
        if let Verdict::DoesNotApply(reason) = verdict {
            report = format!("{}: {} does not apply: {reason}\n", self.name, case.name);
        }
        if verdicts.len() == self.cases.len() {
            let count =
                |pick: fn(&Verdict) -> bool| verdicts.iter().filter(|(_, own)| pick(own)).count();
            report += &format!(
                "{}: {} cases passed, {} failed, {} do not apply\n",
                self.name,
                count(|own| matches!(own, Verdict::Passed)),
                count(|own| matches!(own, Verdict::Failed(_))),
                count(|own| matches!(own, Verdict::DoesNotApply(_))),
            );
        }
        // Nobody is told when standard error is closed.
        let _ = std::io::stderr().write_all(report.as_bytes());
    }
}
