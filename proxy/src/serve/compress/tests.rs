use std::io::Read as _;

use flate2::read::GzDecoder;
use http_body_util::BodyExt as _;
use watershed_cache::{
    FieldSet, Object, Options, Resource, Snapshot, WatchCache,
    encoding::{Encoding, Form, ListMeta},
};

use super::*;
use crate::{
    body::Body,
    serve::{Sending, list::Walk},
};

const MI: u64 = 1 << 20;

const PLAIN: Representation = Representation {
    form: Form::whole(Encoding::Json),
    pretty: false,
    gzip: true,
};

/// A state of so many objects.
fn state(objects: usize) -> Snapshot {
    let resource = Arc::new(Resource {
        group: "".into(),
        version: "v1".into(),
        resource: "configmaps".into(),
        kind: "ConfigMap".into(),
        namespaced: true,
        custom: false,
        fields: FieldSet::unknown(),
    });
    let objects: Vec<_> = (0..objects)
        .map(|index| {
            // Data that hardly compresses: otherwise no answer of a test would be too large.
            let mut random = fastrand::Rng::with_seed(index as u64);
            let data: String = (0..1000).map(|_| random.alphanumeric()).collect();
            let json = format!(
                r#"{{"kind":"ConfigMap","apiVersion":"v1","metadata":{{"name":"c{index:05}","namespace":"a","resourceVersion":"5"}},"data":{{"x":"{data}"}}}}"#
            );
            Object::decode(Encoding::Json, &resource, json.as_bytes()).unwrap()
        })
        .collect();
    let (mut writer, cache) = WatchCache::new(resource, Encoding::Json, Options::default());
    writer.replace(ResourceVersion::new(5), objects).unwrap();
    cache.snapshot().unwrap()
}

fn everything() -> Selection {
    Selection {
        namespace: None,
        name: None,
        labels: watershed_cache::selector::LabelSelector::default(),
        fields: watershed_cache::selector::BoundFieldSelector::default(),
    }
}

fn question(of: &Snapshot, page: Page, representation: Representation) -> Question {
    Question {
        state: of.id(),
        resource_version: of.resource_version(),
        part: Part::List {
            selection: everything(),
            page,
        },
        representation,
    }
}

fn content(of: &Snapshot, representation: Representation) -> Content {
    let meta = ListMeta {
        resource_version: of.resource_version(),
        continue_token: None,
        remaining: None,
    };
    let walk = Walk::new(of, &everything(), "", None);
    let resource = Resource {
        group: "".into(),
        version: "v1".into(),
        resource: "configmaps".into(),
        kind: "ConfigMap".into(),
        namespaced: true,
        custom: false,
        fields: FieldSet::unknown(),
    };
    Content::list(&resource, representation, &meta, walk)
}

struct Asker {
    compressor: Compressor,
    outcomes: Family<OutcomeLabels, Counter>,
    bytes: Gauge,
}

impl Asker {
    fn new() -> Self {
        let (outcomes, bytes) = (Family::default(), Gauge::default());
        Self {
            compressor: Compressor::new(outcomes.clone(), bytes.clone()),
            outcomes,
            bytes,
        }
    }

    async fn ask(&self, of: &Snapshot, question: Question, bytes_max: u64) -> Vec<u8> {
        let representation = question.representation;
        let content = content(of, representation);
        let body = self
            .compressor
            .compress(question, &content, bytes_max)
            .await;
        let deadline = tokio::time::Instant::now() + REMEMBERED;
        let body = Body::Long(Box::new(Sending::new(body.unwrap(), None, deadline)), None);
        let body = body.collect().await.unwrap().to_bytes();
        let mut plain = Vec::new();
        GzDecoder::new(&*body).read_to_end(&mut plain).unwrap();
        plain
    }

    fn count(&self, outcome: &'static str) -> u64 {
        self.outcomes
            .get_or_create(&OutcomeLabels { outcome })
            .get()
    }

    fn counts(&self) -> [u64; 3] {
        ["compressed", "shared", "streamed"].map(|outcome| self.count(outcome))
    }
}

#[tokio::test]
async fn the_same_question_is_compressed_once_even_when_asked_at_once() {
    let (asker, state) = (Asker::new(), state(300));
    let expected = content(&state, PLAIN).whole();
    let ask = || asker.ask(&state, question(&state, Page::default(), PLAIN), 64 * MI);
    let (first, second) = tokio::join!(ask(), ask());
    let third = ask().await;
    assert_eq!(asker.counts(), [1, 2, 0]);
    for answer in [first, second, third] {
        assert_eq!(answer, expected);
    }
    asker.compressor.remembered.load().answers.settle().await;
    ask().await;
    assert!(asker.bytes.get() > 100_000, "{}", asker.bytes.get());
}

#[tokio::test]
async fn whatever_changes_the_bytes_is_another_question() {
    let (asker, one, other) = (Asker::new(), state(5), state(5));
    let page = Page {
        limit: Some(7),
        ..Page::default()
    };
    let pretty = Representation {
        pretty: true,
        ..PLAIN
    };
    let questions = [
        question(&one, Page::default(), PLAIN),
        question(&one, page, PLAIN),
        question(&one, Page::default(), pretty),
        question(&other, Page::default(), PLAIN),
        Question {
            resource_version: ResourceVersion::new(6),
            ..question(&one, Page::default(), PLAIN)
        },
    ];
    let count = questions.len() as u64;
    for question in questions {
        asker.ask(&one, question, 64 * MI).await;
    }
    assert_eq!(asker.counts(), [count, 0, 0]);
}

#[tokio::test]
async fn what_is_too_large_to_remember_is_compressed_for_each_client() {
    let (asker, state) = (Asker::new(), state(800));
    let expected = content(&state, PLAIN).whole();
    for bytes_max in [MI, 0] {
        for _client in 0..2 {
            let question = question(&state, Page::default(), PLAIN);
            let answer = asker.ask(&state, question, bytes_max).await;
            assert_eq!(answer, expected);
        }
    }
    assert_eq!(asker.counts(), [0, 0, 4]);
}

#[tokio::test]
async fn a_smaller_memory_forgets_and_goes_on() {
    let (asker, state) = (Asker::new(), state(300));
    for bytes_max in [64 * MI, 8 * MI, 8 * MI] {
        let question = question(&state, Page::default(), PLAIN);
        asker.ask(&state, question, bytes_max).await;
    }
    assert_eq!(asker.counts(), [2, 1, 0]);
}
