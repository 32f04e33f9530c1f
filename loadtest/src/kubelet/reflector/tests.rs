//! Scripted streams against the state machine, on paused time.

use super::*;
use crate::kubelet::protobuf::Message;

struct Bench {
    reflector: Reflector,
    view: View,
}

impl Bench {
    fn new() -> Self {
        let subject = Subject {
            resource: "nodes",
            path: "/api/v1/nodes".into(),
            field_selector: "metadata.name=n1".into(),
        };
        let reflector = Reflector::new(subject, 300..=300, Rng::with_seed(1));
        Self {
            reflector,
            view: View::default(),
        }
    }

    fn request(&mut self) -> String {
        self.reflector.request(&self.view)
    }

    fn object(&mut self, change: Change, version: u64) -> Result<Seen, Rule> {
        let metadata = Message::default()
            .string(1, "n1")
            .string(6, &version.to_string());
        let message = Message::default().message(1, &metadata).0;
        let object = Object::decode(&message).unwrap();
        self.reflector
            .event(Event::Object { change, object }, &mut self.view)
    }

    fn bookmark(&mut self, resource_version: u64, initial_events_end: bool) -> Result<Seen, Rule> {
        let event = Event::Bookmark {
            resource_version,
            initial_events_end,
        };
        self.reflector.event(event, &mut self.view)
    }

    fn end(&mut self, end: &End) -> Duration {
        self.reflector.ended(end, &self.view, Instant::now())
    }

    /// A bench whose view was filled at version 10.
    async fn synced() -> Self {
        let mut bench = Self::new();
        bench.request();
        bench.reflector.opened(Instant::now());
        bench.object(Change::Added, 7).unwrap();
        assert_eq!(bench.bookmark(10, true), Ok(Seen::Synced));
        tokio::time::advance(Duration::from_secs(5)).await;
        bench
    }
}

const LIST: &str = "/api/v1/nodes?allowWatchBookmarks=true&fieldSelector=metadata.name%3Dn1\
    &resourceVersionMatch=NotOlderThan&sendInitialEvents=true&timeout=5m0s&timeoutSeconds=300&watch=true";

#[test]
fn the_first_request_is_the_recorded_one() {
    assert_eq!(Bench::new().request(), LIST);
}

#[tokio::test(start_paused = true)]
async fn a_clean_end_resumes_at_once_from_the_last_event() {
    let mut bench = Bench::synced().await;
    bench.object(Change::Modified, 12).unwrap();
    assert_eq!(bench.end(&End::Clean), Duration::ZERO);
    let request = bench.request();
    assert!(request.contains("&resourceVersion=12&"), "{request}");
    assert!(!request.contains("sendInitialEvents"), "{request}");
    assert_eq!(
        bench.reflector.counts(),
        Counts {
            resumes: 1,
            ..Counts::default()
        }
    );
}

#[tokio::test(start_paused = true)]
async fn a_resume_starts_from_a_bookmark_when_it_is_newer() {
    let mut bench = Bench::synced().await;
    bench.bookmark(50, false).unwrap();
    bench.end(&End::Clean);
    assert!(bench.request().contains("&resourceVersion=50&"));
}

#[tokio::test(start_paused = true)]
async fn expired_relists_after_a_back_off_not_older_than_what_was_seen() {
    let mut bench = Bench::synced().await;
    let delay = bench.end(&End::Error { code: 410 });
    assert!(delay >= BACKOFF && delay <= BACKOFF * 2, "{delay:?}");
    let request = bench.request();
    assert!(request.contains("resourceVersion=10&"), "{request}");
    assert!(request.contains("sendInitialEvents=true"), "{request}");
    assert_eq!(bench.reflector.counts().relists, 1);
}

#[tokio::test(start_paused = true)]
async fn an_expired_list_is_asked_again_without_a_version() {
    let mut bench = Bench::synced().await;
    bench.end(&End::Error { code: 410 });
    bench.request();
    bench.end(&End::Error { code: 410 });
    assert_eq!(bench.request(), LIST);
}

#[tokio::test(start_paused = true)]
async fn too_many_requests_waits_as_told_and_keeps_the_version() {
    let mut bench = Bench::synced().await;
    bench.end(&End::Clean);
    bench.request();
    let refused = End::Refused {
        code: 429,
        retry_after: Some(3),
    };
    for _ in 0..RETRIES_MAX {
        assert_eq!(bench.end(&refused), Duration::from_secs(3));
    }
    assert!(bench.end(&refused) >= BACKOFF);
    assert!(bench.request().contains("&resourceVersion=10&"));
    assert_eq!(bench.reflector.counts().relists, 0);
}

#[tokio::test(start_paused = true)]
async fn a_very_short_watch_relists() {
    let mut bench = Bench::synced().await;
    bench.end(&End::Clean);
    bench.request();
    bench.reflector.opened(Instant::now());
    tokio::time::advance(Duration::from_millis(900)).await;
    assert!(bench.end(&End::Clean) >= BACKOFF);
    assert!(bench.request().contains("sendInitialEvents=true"));
    let counts = bench.reflector.counts();
    assert_eq!((counts.relists, counts.excused), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_bookmark_makes_a_short_watch_long_enough() {
    let mut bench = Bench::synced().await;
    bench.end(&End::Clean);
    bench.request();
    bench.reflector.opened(Instant::now());
    bench.bookmark(11, false).unwrap();
    assert_eq!(bench.end(&End::Clean), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_list_cut_before_its_end_leaves_the_view_as_it_was() {
    let mut bench = Bench::synced().await;
    bench.end(&End::Error { code: 410 });
    bench.request();
    bench.reflector.opened(Instant::now());
    bench.object(Change::Added, 30).unwrap();
    bench.end(&End::Clean);
    assert_eq!(bench.view.resource_version(), 10);
    assert_eq!(bench.view.entries()["n1"].resource_version, 7);
}

#[tokio::test(start_paused = true)]
async fn back_off_doubles_until_a_watch_lasted_two_minutes() {
    let mut bench = Bench::synced().await;
    let first = bench.end(&End::Malformed);
    let second = bench.end(&End::Malformed);
    let third = bench.end(&End::Malformed);
    assert!(
        first < BACKOFF * 2 && third >= BACKOFF * 4,
        "{first:?} {second:?} {third:?}"
    );
    bench.reflector.opened(Instant::now());
    tokio::time::advance(BACKOFF_RESET).await;
    assert!(bench.end(&End::Malformed) < BACKOFF * 2);
}

#[tokio::test(start_paused = true)]
async fn an_initial_event_that_comes_twice_is_doubled() {
    let mut bench = Bench::new();
    bench.request();
    bench.reflector.opened(Instant::now());
    bench.object(Change::Added, 5).unwrap();
    assert_eq!(bench.object(Change::Added, 5), Err(Rule::Doubled));
}
