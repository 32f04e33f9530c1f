//! The embedded apiserver against the recordings of a real one.
//!
//! Every recording gets a fresh server. `golden/passing-embedded.txt` lists those that pass; the
//! test fails when one of them fails, and when one passes that is not listed, so the list stays
//! true. `GOLDEN=watch/from-now cargo test -p watershed-loadtest --test golden -- --nocapture` runs
//! one of them (`GOLDEN=watch` a group) and prints both sides of the first difference.

use watershed_loadtest::golden::{Embedded, Outcome, Scenario, folder, judge, replay};

async fn run(scenario: Scenario) -> anyhow::Result<Outcome> {
    let server = Embedded::start(&scenario).await?;
    let outcome = replay(&scenario, &server.target()?).await;
    server.stop().await;
    Ok(outcome)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_apiserver_answers_as_recorded() -> anyhow::Result<()> {
    let only = std::env::var("GOLDEN").ok();
    let verdict = judge(only.as_deref(), run).await?;
    println!("{}", verdict.report());
    let wrong = verdict.against(&folder().join("passing-embedded.txt"))?;
    anyhow::ensure!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    Ok(())
}
