//! Every law at a real control plane, directly and through the proxy.
//!
//! `KUBEBUILDER_ASSETS=FOLDER cargo test -p watershed --test wire real:: -- --ignored --nocapture`,
//! where the folder has `etcd` and `kube-apiserver`; `LAW=part-of-a-name` picks cases. The proxy
//! decides about access by itself; with `REVIEWS=1` it asks.
//!
//! Owns the environment of real processes, and the comparison of what a case was told in both ways.
//! Refuses to pass without having run: a missing folder or executable is a failure. Invariant: each
//! way has a control plane of its own, and so has each case that disturbs others.

mod control_plane;
mod node_status;
mod transcript;

use std::sync::Arc;

use anyhow::ensure;
use futures_util::{StreamExt as _, future::BoxFuture, stream};
use watershed_config::Credentials;
use watershed_loadtest::{
    client::Journal,
    conformance::{
        CASES, Case, ControlPlane, Environment, Proxied, Running, Setup, Started, Subject, Suite,
        Verdict,
    },
};

use self::control_plane::{Assets, RealControlPlane};
use crate::{
    conformance::set_up,
    fixture::{Fixture, Form},
};

/// Cases under way at a time; most of them wait for bookmarks.
const CONCURRENT: usize = 4;

#[test]
#[ignore = "needs KUBEBUILDER_ASSETS, a folder with etcd and kube-apiserver"]
fn a_real_control_plane_is_the_same_directly_and_through_the_proxy() -> anyhow::Result<()> {
    let assets = Assets::from_env()?;
    let form = match std::env::var("REVIEWS") {
        Ok(_set) => Form::Reviews,
        Err(_unset) => Form::Local,
    };
    let suite = |name, is_proxied| {
        let assets = assets.clone();
        let real = Real {
            assets,
            is_proxied,
            form,
        };
        Suite::new(name, Arc::new(real))
    };
    let suites = [
        suite("directly at a real apiserver", false)?,
        suite("through the proxy at a real apiserver", true)?,
    ];
    let runtime = tokio::runtime::Runtime::new()?;
    let picked = std::env::var("LAW").unwrap_or_default();
    let cases: Vec<_> = CASES
        .iter()
        .filter(|case| case.name.contains(&picked))
        .collect();
    ensure!(!cases.is_empty(), "no law has {picked} in its name");
    let comparing = stream::iter(&cases).map(|case| compare(case, &suites));
    let found = runtime.block_on(comparing.buffered(CONCURRENT).collect::<Vec<_>>());
    let failures: Vec<_> = found.into_iter().flatten().collect();
    runtime.block_on(async {
        let [direct, through] = suites;
        through.end().await;
        direct.end().await;
    });
    ensure!(failures.is_empty(), "{}", failures.join("\n\n"));
    Ok(())
}

/// Runs a case both ways. What is wrong with it, in words.
async fn compare(case: &Case, suites: &[Suite; 2]) -> Option<String> {
    let begun = tokio::time::Instant::now();
    let journals = [Journal::default(), Journal::default()];
    let mut failures = Vec::new();
    let mut verdicts = Vec::new();
    for (suite, journal) in suites.iter().zip(&journals) {
        let verdict = suite.run(case, Some(Arc::clone(journal))).await;
        if let Verdict::Failed(why) = &verdict {
            failures.push(format!("{suite:?}: {why}"));
        }
        verdicts.push(verdict);
    }
    eprintln!("{:.0?} {}: {verdicts:?}", begun.elapsed(), case.name);
    if let [Verdict::Passed, Verdict::Passed] = verdicts.as_slice() {
        failures = transcript::differences(&journals[0].lock(), &journals[1].lock());
    }
    if failures.is_empty() {
        return None;
    }
    Some(format!(
        "{} {:?}\n{}",
        case.name,
        case.numbers,
        failures.join("\n")
    ))
}

/// Real control planes, with a proxy in front of them or not.
struct Real {
    assets: Assets,
    is_proxied: bool,
    form: Form,
}

impl Environment for Real {
    fn start(&self, setup: Setup) -> BoxFuture<'_, anyhow::Result<Started>> {
        Box::pin(async move {
            let plane = Arc::new(RealControlPlane::start(&self.assets, &setup).await?);
            let fixture = match self.is_proxied {
                true => Some(proxy(&plane, &setup, self.form).await?),
                false => None,
            };
            let proxied = fixture.as_ref().map(|fixture| &fixture.proxy);
            Ok(Started {
                subject: Subject {
                    address: proxied.map_or_else(|| plane.address(), |proxy| proxy.address()),
                    ca: plane.pki().ca().to_owned(),
                    proxy: proxied.map(|proxy| Proxied {
                        admin: proxy.admin_address(),
                        decides: self.form.decides(),
                    }),
                    control_plane: Arc::clone(&plane) as Arc<dyn ControlPlane>,
                    setup,
                },
                running: Box::new(Both { fixture, plane }),
            })
        })
    }
}

/// A proxy with the rights of the chart.
async fn proxy(plane: &RealControlPlane, setup: &Setup, form: Form) -> anyhow::Result<Fixture> {
    let (cert_file, key_file) = plane.proxy_credential()?;
    Fixture::behind(plane.pki(), plane.address(), |config| {
        config.startup.upstream.credentials = Credentials::ClientCertificate {
            cert_file,
            key_file,
        };
        form.declare(config);
        set_up(&mut config.live, setup);
    })
    .await
}

struct Both {
    fixture: Option<Fixture>,
    plane: Arc<RealControlPlane>,
}

impl Running for Both {
    fn stop(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            if let Some(fixture) = self.fixture {
                fixture.stop().await;
            }
            // Whoever still holds it ends it by letting go.
            if let Some(plane) = Arc::into_inner(self.plane) {
                plane.stop().await;
            }
        })
    }
}
