//! Every law, directly at the embedded apiserver: `cargo test -p watershed-loadtest --test
//! conformance LAW`.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use watershed_loadtest::apiserver::{Apiserver, lifecycle::Termination};
use watershed_loadtest::conformance::{
    self, CASES, Environment, Running, Setup, Started, Subject, Suite, UNCLAIMED, numbers,
    start_embedded,
};
use watershed_loadtest::{for_each_case, test_each_case};

struct Embedded;

struct Alone {
    apiserver: Arc<Apiserver>,
    grace_period: Duration,
}

impl Environment for Embedded {
    fn start(&self, setup: Setup) -> BoxFuture<'_, anyhow::Result<Started>> {
        Box::pin(async move {
            let apiserver = Arc::new(start_embedded(&setup).await?);
            let grace_period = setup.grace_period;
            Ok(Started {
                subject: Subject {
                    address: apiserver.addr(),
                    ca: apiserver.pki().ca().to_owned(),
                    proxy: None,
                    control_plane: Arc::clone(&apiserver) as Arc<dyn conformance::ControlPlane>,
                    setup,
                },
                running: Box::new(Alone {
                    apiserver,
                    grace_period,
                }),
            })
        })
    }
}

impl Running for Alone {
    fn stop(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            // Whoever still holds it ends it by letting go.
            let Self {
                apiserver,
                grace_period,
            } = *self;
            if !grace_period.is_zero() {
                let delay = grace_period / 10;
                let watch_grace = grace_period - delay;
                apiserver
                    .terminate(Termination { delay, watch_grace })
                    .await;
            }
            if let Some(apiserver) = Arc::into_inner(apiserver) {
                apiserver.shutdown().await;
            }
        })
    }
}

static SUITE: LazyLock<Suite> = LazyLock::new(|| {
    Suite::new("direct", Arc::new(Embedded)).expect("a test process can have a runtime")
});

for_each_case!(test_each_case);

#[test]
fn every_number_is_claimed_once_by_a_case_or_a_reason() {
    let unclaimed: Vec<u16> = numbers()
        .filter(|number| {
            let by_case = CASES.iter().any(|case| case.numbers.contains(number));
            let by_reason = UNCLAIMED.iter().any(|(own, _)| own == number);
            by_case == by_reason
        })
        .collect();
    assert!(unclaimed.is_empty(), "{unclaimed:?}");
}
