//! The text format of Prometheus, read from a proxy's admin listener.
//!
//! Owns one scrape and the sum over labels. Refuses types and help texts: a sample is a name, labels
//! and a value.
//! Invariant: a line that is not understood is skipped; a metric that is absent is `None`.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

const SCRAPE_TIMEOUT: Duration = Duration::from_secs(5);

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Metric.
    pub name: String,
    /// Labels in the order of the text.
    pub labels: Vec<(String, String)>,
    /// Value.
    pub value: f64,
}

/// The samples of one scrape.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics {
    /// In the order of the text.
    pub samples: Vec<Sample>,
}

impl Metrics {
    /// Reads the text format.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self {
            samples: text.lines().filter_map(sample).collect(),
        }
    }

    /// Fetches `/metrics` from `http://HOST:PORT`.
    ///
    /// # Errors
    /// When there is no answer within five seconds, or another one than 200.
    pub async fn fetch(admin: &str) -> Result<Self> {
        let text = timeout(SCRAPE_TIMEOUT, fetch(admin))
            .await
            .context("read /metrics in time")??;
        Ok(Self::parse(&text))
    }

    /// Sum of a metric over the samples that carry all of `labels`; `None` when there is no sample.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let carries = |sample: &&Sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(key, value)| sample.labels.iter().any(|(k, v)| k == key && v == value))
        };
        let mut values = self
            .samples
            .iter()
            .filter(carries)
            .map(|sample| sample.value)
            .peekable();
        values.peek()?;
        Some(values.sum())
    }
}

async fn fetch(admin: &str) -> Result<String> {
    let uri: Uri = admin
        .parse()
        .with_context(|| format!("read the address {admin:?}"))?;
    let authority = uri
        .authority()
        .with_context(|| format!("{admin:?} names no host"))?;
    let stream = TcpStream::connect(authority.as_str()).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/metrics").header("host", authority.as_str());
    let exchange = async {
        let response = sender
            .send_request(request.body(Empty::<Bytes>::new())?)
            .await?;
        ensure!(
            response.status() == StatusCode::OK,
            "/metrics answered {}",
            response.status()
        );
        let body = response.into_body().collect().await?.to_bytes();
        Ok(String::from_utf8(body.into())?)
    };
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        text = &mut exchange => text,
        closed = connection => {
            closed?;
            exchange.await // the answer may have come whole before the connection closed
        }
    }
}

fn sample(line: &str) -> Option<Sample> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let end = line.find(['{', ' ', '\t'])?;
    let (name, mut rest) = line.split_at(end);
    let mut parsed = Vec::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = labels(inner, &mut parsed)?;
    }
    let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Sample {
        name: name.to_owned(),
        labels: parsed,
        value,
    })
}

/// Reads `key="value",…}`; the answer is what follows.
fn labels<'a>(mut text: &'a str, labels: &mut Vec<(String, String)>) -> Option<&'a str> {
    loop {
        text = text.trim_start_matches([',', ' ']);
        if let Some(rest) = text.strip_prefix('}') {
            return Some(rest);
        }
        let (key, rest) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = rest.char_indices();
        loop {
            match chars.next()? {
                (end, '"') => {
                    text = &rest[end + 1..];
                    break;
                }
                (_, '\\') => value.push(match chars.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        }
        labels.push((key.to_owned(), value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# HELP watershed_watchers Open watches.
# TYPE watershed_watchers gauge
watershed_watchers{group=\"\",resource=\"pods\"} 12
watershed_watchers{group=\"apps\",resource=\"a \\\"b\\\", } \\\\ \\n\"} 3 1700000000000
watershed_connections 7
watershed_watch_delivery_seconds_bucket{le=\"+Inf\"} 5e1
broken{a=\"b\" 1
";

    #[test]
    fn samples_are_summed_over_the_labels_that_are_not_asked_for() {
        let metrics = Metrics::parse(TEXT);
        assert_eq!(metrics.sum("watershed_watchers", &[]), Some(15.0));
        assert_eq!(
            metrics.sum("watershed_watchers", &[("resource", "pods")]),
            Some(12.0)
        );
        assert_eq!(metrics.sum("watershed_connections", &[]), Some(7.0));
        let infinite = [("le", "+Inf")];
        assert_eq!(
            metrics.sum("watershed_watch_delivery_seconds_bucket", &infinite),
            Some(50.0)
        );
    }

    #[test]
    fn an_absent_metric_is_not_zero() {
        assert_eq!(
            Metrics::parse(TEXT).sum("watershed_slow_watchers", &[]),
            None
        );
    }

    #[test]
    fn escaped_label_values_are_read_and_broken_lines_skipped() {
        let metrics = Metrics::parse(TEXT);
        assert_eq!(metrics.samples.len(), 4);
        assert_eq!(metrics.samples[1].labels[1].1, "a \"b\", } \\ \n");
    }
}
