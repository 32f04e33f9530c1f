//! The law of selectors: who watches with one sees the transitions of what passes it.
//!
//! Owns that law as a fold over what a watch without any saw, and the comparison of live and
//! replayed watches with it. Refuses to know what is selected by. Invariant: what is expected comes
//! from one watch of everything, which shows each change of an object once.

use std::collections::HashMap;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::Cluster;
use super::scene::{at_version, begin, key, object, watching};
use crate::client::{JSON, Watch};

/// Parameters of a query that select, and what they let pass.
pub(super) type Selector = (&'static str, Passes);

/// Tells a story in a collection that is empty before, and holds it against the law of selectors:
/// whoever watches with one sees exactly the transitions of what passes it, live and replayed. The
/// story ends with objects of which at least one passes each selector, so that nothing can come
/// too much unseen. `all` selects the collection for whoever watches everything.
pub(super) async fn transitions<S: Future<Output = anyhow::Result<u64>>>(
    cluster: &Cluster,
    (collection, all): (&str, &str),
    (encodings, selectors): (&[&'static str], &[Selector]),
    story: S,
) -> anyhow::Result<Vec<Seen>> {
    let from = begin(cluster, collection).await?;
    let open = async |selector: &str, accept| -> anyhow::Result<Watch> {
        let query = format!("resourceVersion={from}&{all}&{selector}");
        cluster
            .admin()
            .watch(watching(collection, &query, accept))
            .await
    };
    let mut everything = open("", JSON).await?;
    let mut live = Vec::new();
    for (selector, passes) in selectors {
        for accept in encodings {
            live.push((open(selector, accept).await?, *passes, *selector));
        }
    }
    let last = story.await?;
    let happened = read_to(&mut everything, last).await?;
    for (mut watch, passes, selector) in live {
        let expected = selected(&happened, passes)?;
        ensure!(!expected.is_empty(), "nothing ever passes {selector}");
        follows(&mut watch, &expected)
            .await
            .with_context(|| format!("live {selector}"))?;
    }
    for (selector, passes) in selectors {
        for accept in encodings {
            let mut replayed = open(selector, accept).await?;
            let expected = selected(&happened, *passes)?;
            follows(&mut replayed, &expected)
                .await
                .with_context(|| format!("replayed {selector}"))?;
        }
    }
    Ok(happened)
}

/// Kinds and versions of what a selector shows of what happened.
pub(super) fn sights(
    happened: &[Seen],
    passes: Passes,
) -> anyhow::Result<Vec<(&'static str, u64)>> {
    let seen = selected(happened, passes)?;
    Ok(seen.iter().map(|seen| (seen.kind, seen.version)).collect())
}

/// One event as a watch without selectors saw it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) kind: &'static str,
    pub(super) version: u64,
    pub(super) object: Value,
}

/// What a selector lets pass.
pub(super) type Passes = fn(&Value) -> bool;

/// What a watch with a selector sees of what happened, one by one, in a collection that was empty
/// before: an object that leaves the selection is DELETED with its old content at the new version.
///
/// # Errors
/// When something else than a change is among it.
pub(super) fn selected(happened: &[Seen], passes: Passes) -> anyhow::Result<Vec<Seen>> {
    let mut present: HashMap<String, &Value> = HashMap::new();
    let mut sights = Vec::new();
    for Seen {
        kind,
        version,
        object,
    } in happened
    {
        let sight = |kind, object: &Value| Seen {
            kind,
            version: *version,
            object: at_version(object, *version),
        };
        let old = match *kind {
            "DELETED" => present.remove(&key(object)),
            _ => present.insert(key(object), object),
        };
        let before = old.is_some_and(passes);
        let after = *kind != "DELETED" && passes(object);
        match (before, after) {
            (false, true) => sights.push(sight("ADDED", object)),
            (true, true) => sights.push(sight("MODIFIED", object)),
            (true, false) => {
                sights.push(sight("DELETED", old.context("nothing was there before")?));
            }
            (false, false) => {}
        }
    }
    Ok(sights)
}

/// Reads a watch without bookmarks up to the event at this version.
///
/// # Errors
/// When it ends before.
pub(super) async fn read_to(watch: &mut Watch, last: u64) -> anyhow::Result<Vec<Seen>> {
    let mut seen = Vec::new();
    loop {
        let event = watch.event_now().await?;
        let kind = match event.kind.as_str() {
            "ADDED" => "ADDED",
            "MODIFIED" => "MODIFIED",
            "DELETED" => "DELETED",
            _ => anyhow::bail!("expected a change, came {event:?}"),
        };
        seen.push(Seen {
            kind,
            version: event.version,
            object: object(&event)?,
        });
        if event.version >= last {
            return Ok(seen);
        }
    }
}

/// The next events of a watch are these, objects included.
///
/// # Errors
/// When one is not, with both.
async fn follows(watch: &mut Watch, expected: &[Seen]) -> anyhow::Result<()> {
    for (index, sight) in expected.iter().enumerate() {
        let event = watch.event_now().await?;
        let own = object(&event)?;
        ensure!(
            event.kind == sight.kind && event.version == sight.version && own == sight.object,
            "event {index}: expected {sight:?}, came {event:?}"
        );
    }
    Ok(())
}
