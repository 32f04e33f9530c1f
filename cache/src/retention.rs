//! What the apiserver is known to remember of the past.
//!
//! Compaction is monotonic: a version the apiserver answers for proves every later one, and a
//! version it has lost proves every earlier one lost. So two numbers are enough. A loss is for
//! ever; a proof is believed for [`PROOF_AGE`] only, since a compaction may follow it at once.

use std::time::Duration;

use tokio::time::Instant;

use crate::resource_version::ResourceVersion;

/// How long a proof is believed, counted from before it was asked for. kube-apiserver looks for a
/// compaction every 15 s (as `etcd3/compact.go`, 1.36) and until then goes on answering from its own
/// snapshots, so up to that age the two cannot be told apart. One second is far below it and still
/// one small list per second and resource at most, however many clients read pages.
pub(crate) const PROOF_AGE: Duration = Duration::from_secs(1);

/// Whether a past state may still be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// The apiserver would serve it.
    Yes,
    /// It is compacted.
    Gone,
    /// The apiserver did not say.
    Unknown,
}

/// What was learnt.
#[derive(Debug, Default)]
pub(crate) struct Retention {
    /// The lowest version of the last proof and when it was asked for.
    proof: Option<(ResourceVersion, Instant)>,
    /// This version and all before it are compacted.
    gone: ResourceVersion,
}

impl Retention {
    /// What is known of `version` now.
    pub(crate) fn of(&self, version: ResourceVersion) -> Kept {
        if version <= self.gone {
            return Kept::Gone;
        }
        let covers = |(lowest, asked): (ResourceVersion, Instant)| {
            lowest <= version && asked.elapsed() < PROOF_AGE
        };
        if self.proof.is_some_and(covers) {
            Kept::Yes
        } else {
            Kept::Unknown
        }
    }

    /// The apiserver answered a question asked at `asked` about `version`.
    pub(crate) fn learn(&mut self, version: ResourceVersion, asked: Instant, kept: Kept) {
        match kept {
            Kept::Yes => self.proof = Some((version, asked)),
            Kept::Gone => self.gone = self.gone.max(version),
            Kept::Unknown => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::rv;

    #[tokio::test(start_paused = true)]
    async fn a_proof_covers_later_versions_for_a_second_and_a_loss_earlier_ones_for_ever() {
        let mut retention = Retention::default();
        assert_eq!(retention.of(rv(5)), Kept::Unknown);
        retention.learn(rv(5), Instant::now(), Kept::Yes);
        retention.learn(rv(3), Instant::now(), Kept::Gone);
        retention.learn(rv(4), Instant::now(), Kept::Unknown);
        let seen = |retention: &Retention| [3, 4, 5, 9].map(|version| retention.of(rv(version)));
        assert_eq!(
            seen(&retention),
            [Kept::Gone, Kept::Unknown, Kept::Yes, Kept::Yes]
        );
        tokio::time::advance(PROOF_AGE).await;
        assert_eq!(
            seen(&retention),
            [Kept::Gone, Kept::Unknown, Kept::Unknown, Kept::Unknown]
        );
        retention.learn(rv(2), Instant::now(), Kept::Gone);
        assert_eq!(retention.of(rv(3)), Kept::Gone, "what is lost stays lost");
    }
}
