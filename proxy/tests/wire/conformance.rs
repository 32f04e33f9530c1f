//! Every law through the proxy: `cargo test -p watershed --test wire conformance::LAW`. The list
//! of laws and what they say is the judge's, which holds the embedded apiserver to them as well.
//!
//! The laws of access are run twice: where the apiserver decides, and where the proxy does
//! (`conformance::decided::LAW`).

use std::sync::{Arc, LazyLock};

use futures_util::future::BoxFuture;
use watershed_config::Live;
use watershed_loadtest::{
    apiserver::Apiserver,
    conformance::{
        ControlPlane, Environment, Proxied, Running, Setup, Started, Subject, Suite, start_embedded,
    },
    for_each_case, for_each_case_of_access, test_each_case,
};

use crate::fixture::{Fixture, Form, preload};

struct Through(Form);

struct Pair {
    fixture: Fixture,
    apiserver: Arc<Apiserver>,
}

impl Environment for Through {
    fn start(&self, setup: Setup) -> BoxFuture<'_, anyhow::Result<Started>> {
        Box::pin(async move {
            let apiserver = Arc::new(start_embedded(&setup).await?);
            let fixture = Fixture::start_without_files(&apiserver, |config| {
                self.0.declare(config);
                set_up(&mut config.live, &setup);
            })
            .await?;
            Ok(Started {
                subject: Subject {
                    address: fixture.proxy.address(),
                    ca: apiserver.pki().ca().to_owned(),
                    proxy: Some(Proxied {
                        admin: fixture.proxy.admin_address(),
                        decides: self.0.decides(),
                    }),
                    control_plane: Arc::clone(&apiserver) as Arc<dyn ControlPlane>,
                    setup,
                },
                running: Box::new(Pair { fixture, apiserver }),
            })
        })
    }
}

/// The settings a case asks for.
pub(crate) fn set_up(live: &mut Live, setup: &Setup) {
    live.authentication.anonymous = setup.anonymous;
    live.authorization.allow_ttl = setup.decision_ttl;
    live.authorization.deny_ttl = setup.decision_ttl;
    // What was granted to a watch stays granted to it on an apiserver (case 140).
    live.authorization.revalidate_watches = std::time::Duration::ZERO;
    live.drain.grace_period = setup.grace_period;
    if let Some(bytes) = setup.history_bytes {
        live.cache.defaults.history_bytes = bytes;
    }
    for (group, resource) in &setup.preload {
        preload(live, group, resource);
    }
}

impl Running for Pair {
    fn stop(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.fixture.stop().await;
            // Whoever still holds it ends it by letting go.
            if let Some(apiserver) = Arc::into_inner(self.apiserver) {
                apiserver.shutdown().await;
            }
        })
    }
}

fn suite(name: &'static str, form: Form) -> Suite {
    Suite::new(name, Arc::new(Through(form))).expect("a test process can have a runtime")
}

static SUITE: LazyLock<Suite> = LazyLock::new(|| suite("through the proxy", Form::Reviews));

for_each_case!(test_each_case);

mod decided {
    use super::*;

    static SUITE: LazyLock<Suite> =
        LazyLock::new(|| suite("through a proxy that decides", Form::Local).of_access());

    for_each_case_of_access! { test_each_case }
}
