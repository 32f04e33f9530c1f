//! An apiserver that answers reviews by a script.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Value;

use super::{ReviewError, Reviews};

/// Answers in order, and remembers what was asked. Panics when asked more than the script holds.
#[derive(Clone, Default)]
pub(crate) struct Scripted {
    answers: Arc<Mutex<VecDeque<Result<Bytes, ReviewError>>>>,
    asked: Arc<Mutex<Vec<(&'static str, Value)>>>,
}

impl Scripted {
    /// A script of JSON bodies and errors.
    pub(crate) fn new<const N: usize>(answers: [Result<Value, ReviewError>; N]) -> Self {
        let answers = answers.map(|answer| answer.map(|body| body.to_string().into()));
        Self {
            answers: Arc::new(Mutex::new(answers.into())),
            ..Self::default()
        }
    }

    /// Paths and bodies, in order.
    pub(crate) fn asked(&self) -> Vec<(&'static str, Value)> {
        self.asked.lock().clone()
    }
}

impl Reviews for Scripted {
    async fn create(&self, path: &'static str, body: Bytes) -> Result<Bytes, ReviewError> {
        let body = serde_json::from_slice(&body).expect("reviews are JSON");
        self.asked.lock().push((path, body));
        // Let others join before the answer is there.
        tokio::task::yield_now().await;
        self.answers
            .lock()
            .pop_front()
            .expect("the script is long enough")
    }
}
