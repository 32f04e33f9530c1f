//! All recordings against one kind of target, and the list of those known to pass.
//!
//! Owns the verdict of a suite: a recording on the list must pass, and one that passes must be on
//! the list. A list is a text file next to the suite, one id a line, `#` for comments.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use futures_util::{StreamExt as _, stream};

use super::{Outcome, Scenario, scenarios};

/// Recordings replayed at a time: most of their time is waiting for silence.
const CONCURRENT: usize = 12;

/// How every chosen recording ended.
#[derive(Debug)]
pub struct Verdict {
    outcomes: Vec<(Scenario, Outcome)>,
    is_whole: bool,
}

/// Replays the recordings, or only those of one id or group, each by `run`, which gives it a fresh
/// server.
///
/// # Errors
/// When the recordings cannot be read, none is chosen, or a server cannot be started.
pub async fn judge<R>(only: Option<&str>, run: impl Fn(Scenario) -> R) -> anyhow::Result<Verdict>
where
    R: Future<Output = anyhow::Result<Outcome>>,
{
    let is_chosen =
        |scenario: &Scenario| only.is_none_or(|only| scenario.id == only || scenario.group == only);
    let mut chosen: Vec<Scenario> = scenarios()?.into_iter().filter(is_chosen).collect();
    anyhow::ensure!(!chosen.is_empty(), "no recording is called {only:?}");
    // Those that sleep start first.
    chosen.sort_by_key(|scenario| !scenario.is_tagged("slow"));
    let replays = chosen.into_iter().map(|scenario| {
        let replay = scenario.replayable.then(|| run(scenario.clone()));
        async move {
            let outcome = match replay {
                Some(replay) => replay.await.with_context(|| scenario.id.clone())?,
                // A sample shows bytes, but not how to bring them about.
                None => Outcome::Skipped {
                    reason: format!("sample of {}", scenario.about),
                },
            };
            anyhow::Ok((scenario, outcome))
        }
    });
    let outcomes: Vec<_> = stream::iter(replays)
        .buffer_unordered(CONCURRENT)
        .collect()
        .await;
    let mut outcomes = outcomes.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    outcomes.sort_by(|(left, _), (right, _)| left.id.cmp(&right.id));
    Ok(Verdict {
        outcomes,
        is_whole: only.is_none(),
    })
}

impl Verdict {
    /// `N of M` per group, what was skipped and why, and the first difference of what failed; with
    /// both sides of it when only a part was chosen.
    pub fn report(&self) -> String {
        let mut report = String::new();
        let mut groups: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for (scenario, outcome) in &self.outcomes {
            let id = &scenario.id;
            let (passed, all) = groups.entry(&scenario.group).or_default();
            let line = match outcome {
                Outcome::Passed => {
                    (*passed, *all) = (*passed + 1, *all + 1);
                    continue;
                }
                Outcome::Skipped { reason } => format!("skipped {id}: {reason}\n"),
                Outcome::Failed {
                    step,
                    why,
                    expected,
                    got,
                } => {
                    *all += 1;
                    let sides = format!("--- recorded\n{expected}\n--- live\n{got}\n");
                    let sides = if self.is_whole { String::new() } else { sides };
                    format!("failed {id} step {step}: {why}\n{sides}")
                }
            };
            report.push_str(&line);
        }
        let sum = |pick: fn(&(usize, usize)) -> usize| groups.values().map(pick).sum::<usize>();
        let total = (sum(|own| own.0), sum(|own| own.1));
        for (group, (passed, all)) in groups.iter().chain([(&"all", &total)]) {
            writeln!(report, "{group:12} {passed} of {all}").expect("a String takes any text");
        }
        report
    }

    /// What the list at `path` says otherwise, one line each.
    ///
    /// # Errors
    /// When the list cannot be read.
    pub fn against(&self, path: &Path) -> anyhow::Result<Vec<String>> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let lines = text.lines().map(str::trim);
        let listed: BTreeSet<_> = lines
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .collect();
        let known: BTreeSet<_> = self
            .outcomes
            .iter()
            .map(|(own, _)| own.id.as_str())
            .collect();
        let gone = listed
            .iter()
            .filter(|id| self.is_whole && !known.contains(*id));
        let mut wrong: Vec<_> = gone
            .map(|id| format!("{id} is listed but not recorded"))
            .collect();
        for (scenario, outcome) in &self.outcomes {
            let id = &scenario.id;
            match (outcome, listed.contains(id.as_str())) {
                (Outcome::Failed { step, why, .. }, true) => {
                    wrong.push(format!("{id} passed before; step {step}: {why}"));
                }
                (Outcome::Passed, false) => {
                    wrong.push(format!("{id} passes now: add it to {}", path.display()));
                }
                (Outcome::Skipped { .. }, true) => wrong.push(format!("{id} is not replayed")),
                (Outcome::Failed { .. } | Outcome::Skipped { .. }, false)
                | (Outcome::Passed, true) => {}
            }
        }
        Ok(wrong)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn verdict(outcomes: [Outcome; 3]) -> Verdict {
        let scenarios = scenarios().expect("the recordings").into_iter().take(3);
        Verdict {
            outcomes: scenarios.zip(outcomes).collect(),
            is_whole: true,
        }
    }

    fn failed() -> Outcome {
        let text = String::new();
        Outcome::Failed {
            step: 3,
            why: "it differs".to_owned(),
            expected: text.clone(),
            got: text,
        }
    }

    #[test]
    fn a_list_is_neither_too_long_nor_too_short() {
        let verdict = verdict([Outcome::Passed, failed(), Outcome::Passed]);
        let ids: Vec<&str> = verdict
            .outcomes
            .iter()
            .map(|(own, _)| own.id.as_str())
            .collect();
        let mut list = tempfile::NamedTempFile::new().expect("a file");
        writeln!(list, "# comment\n{}\n{}\nno/such", ids[0], ids[1]).expect("written");
        let wrong = verdict.against(list.path()).expect("readable");
        assert_eq!(wrong.len(), 3, "{wrong:?}");
        assert_eq!(wrong[0], "no/such is listed but not recorded");
        assert_eq!(
            wrong[1],
            format!("{} passed before; step 3: it differs", ids[1])
        );
        assert!(
            wrong[2].starts_with(&format!("{} passes now", ids[2])),
            "{wrong:?}"
        );
        assert!(
            verdict.report().ends_with("all          2 of 3\n"),
            "{}",
            verdict.report()
        );
    }
}
