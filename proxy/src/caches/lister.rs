//! The way of one cache to the apiservers: [`ListerWatcher`] over the upstream client.
//!
//! Owns: the path, the media type and the bounds of a cache's upstream requests, and the note of the
//! `Warning` headers that come with their answers.
//! Refuses: to retry, to resume, to read the bodies. That is the reflector's work.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::Stream;
use http::{Request, Response, header};
use hyper::body::Body as _;
use prometheus_client::metrics::gauge::Gauge;
use watershed_cache::{ListRequest, ListerWatcher, UpstreamError, WatchRequest};

use super::{Cached, Warnings};
use crate::{
    body::Body,
    upstream::{Pool, Refusal, ResponseBody, Upstream},
};

/// The largest LIST body that is held, in bytes: a page of 500 objects of the largest size etcd takes.
const LIST_BYTES: usize = 1 << 30;

/// Lists and watches one resource in one encoding with the proxy's own identity.
pub(super) struct UpstreamLister {
    upstream: Upstream,
    path: String,
    accept: &'static str,
    warnings: Warnings,
    open_watches: Gauge,
}

impl UpstreamLister {
    pub(super) fn new(upstream: Upstream, cached: &Cached, open_watches: Gauge) -> Self {
        Self {
            upstream,
            path: cached.cache.resource().list_path(),
            accept: cached.cache.encoding().media_type(),
            warnings: cached.warnings.clone(),
            open_watches,
        }
    }

    async fn send(&self, query: &str) -> Result<Response<ResponseBody>, UpstreamError> {
        let request = Request::get(format!("{}?{query}", self.path))
            .header(header::ACCEPT, self.accept)
            .body(Body::Empty)
            .expect("a path of API names and an escaped query are a URI");
        let response = self
            .upstream
            .send(Pool::Own, request)
            .await
            .map_err(transport)?;
        if response.status() != http::StatusCode::OK {
            let Refusal {
                code,
                reason,
                message,
                retry_after,
            } = Refusal::read(response).await;
            return Err(UpstreamError::Status {
                code,
                reason,
                message,
                retry_after,
            });
        }
        let seen = response.headers().get_all(header::WARNING);
        self.warnings.replace(seen.iter().cloned().collect());
        Ok(response)
    }
}

impl ListerWatcher for UpstreamLister {
    type Body = Chunks;

    async fn list(&self, request: ListRequest) -> Result<Bytes, UpstreamError> {
        let response = self.send(&request.query()).await?;
        response
            .into_body()
            .bytes(LIST_BYTES)
            .await
            .map_err(transport)
    }

    async fn watch(&self, request: WatchRequest) -> Result<Chunks, UpstreamError> {
        let response = self.send(&request.query()).await?;
        self.open_watches.inc();
        Ok(Chunks {
            body: response.into_body(),
            open_watches: self.open_watches.clone(),
        })
    }
}

fn transport(error: impl std::fmt::Display) -> UpstreamError {
    UpstreamError::Transport(error.to_string())
}

/// The body of an open watch; while it lives it is counted.
pub(super) struct Chunks {
    body: ResponseBody,
    open_watches: Gauge,
}

impl Stream for Chunks {
    type Item = Result<Bytes, UpstreamError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let frame = match std::task::ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Poll::Ready(Some(Err(transport(error)))),
                None => return Poll::Ready(None),
            };
            if let Ok(data) = frame.into_data() {
                return Poll::Ready(Some(Ok(data)));
            }
        }
    }
}

impl Drop for Chunks {
    fn drop(&mut self) {
        self.open_watches.dec();
    }
}
