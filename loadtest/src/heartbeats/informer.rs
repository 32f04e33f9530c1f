//! Lists and watches a resource, as the informers of kube-controller-manager do, in protobuf.
//!
//! Owns the list, the watch and where it goes on. Refuses to keep objects: whoever asks is told of
//! each, in order.
//! Invariant: after a gap that the server cannot fill everything is listed again, so whoever asks is
//! late at most.

use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use http::StatusCode;
use tokio::time::sleep;

use crate::kubelet::client::{Call, Client, read};
use crate::kubelet::decode::{Change, Event, FrameSplitter, List, Object};

const TIMEOUT: Duration = Duration::from_secs(60);
/// Between two attempts.
const RETRY: Duration = Duration::from_millis(200);

/// Lists and watches until it is dropped; tells of every object and whether it is gone.
pub(super) async fn run(client: &Client, path: &str, mut tell: impl FnMut(bool, &Object<'_>)) {
    loop {
        if let Ok(mut version) = list(client, path, &mut tell).await {
            // An end without an error goes on where it was.
            while watch(client, path, &mut version, &mut tell).await.is_ok() {}
        }
        sleep(RETRY).await;
    }
}

async fn list(
    client: &Client,
    path: &str,
    tell: &mut impl FnMut(bool, &Object<'_>),
) -> Result<u64> {
    let answer = client.call(&Call::read(path), TIMEOUT).await?;
    ensure!(
        answer.status == StatusCode::OK,
        "list {path}: {}",
        answer.status
    );
    let list = List::decode(&answer.body)?;
    for object in &list.items {
        tell(false, object);
    }
    Ok(list.resource_version)
}

/// Follows one stream to its end.
async fn watch(
    client: &Client,
    path: &str,
    version: &mut u64,
    tell: &mut impl FnMut(bool, &Object<'_>),
) -> Result<()> {
    let query = format!("allowWatchBookmarks=true&resourceVersion={version}&watch=true");
    let call = Call::read(format!("{path}?{query}")).plain();
    let answer = client.open(&call).await?;
    ensure!(answer.status() == StatusCode::OK, "{}", answer.status());
    let (mut body, mut splitter) = (answer.into_body(), FrameSplitter::default());
    while let Ok(Some(chunk)) = read(&mut body).await {
        splitter.push(&chunk);
        while let Some(frame) = splitter.next_frame()? {
            match Event::decode(&frame)? {
                Event::Object { change, object } => {
                    *version = object.metadata.resource_version;
                    tell(change == Change::Deleted, &object);
                }
                Event::Bookmark {
                    resource_version, ..
                } => *version = resource_version,
                Event::Error(status) => return Err(anyhow!("ERROR {}", status.code)),
            }
        }
    }
    Ok(())
}
