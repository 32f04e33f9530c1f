use std::cell::Cell;
use std::convert::Infallible;

use tokio::sync::Notify;
use tokio::time::{advance, sleep};

use super::*;

fn fetched(value: u32, ttl: u64) -> Fetched<u32> {
    Fetched {
        value,
        ttl: Duration::from_secs(ttl),
        bytes: 100,
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_remembered_for_its_ttl_from_before_it_was_asked() {
    let memo = Memo::new(1 << 20);
    let ask = |value| {
        memo.answer("key", async move {
            sleep(Duration::from_secs(4)).await;
            Ok::<_, Infallible>(fetched(value, 10))
        })
    };
    let (first, origin) = ask(1).await.unwrap();
    assert_eq!((first.value, origin), (1, Origin::Fetch));
    advance(Duration::from_secs(5)).await;
    let (second, origin) = ask(2).await.unwrap();
    assert_eq!((second.value, origin), (1, Origin::Memory));
    advance(Duration::from_secs(1)).await;
    let (third, origin) = ask(3).await.unwrap();
    assert_eq!((third.value, origin), (3, Origin::Fetch));
}

#[tokio::test(start_paused = true)]
async fn askers_at_the_same_time_share_one_fetch() {
    let memo = Memo::new(1 << 20);
    let fetches = Cell::new(0);
    let ready = Notify::new();
    let ask = || {
        memo.answer("key", async {
            fetches.set(fetches.get() + 1);
            ready.notified().await;
            Ok::<_, Infallible>(fetched(1, 10))
        })
    };
    let release = async {
        tokio::task::yield_now().await;
        ready.notify_waiters();
    };
    let (a, b, c, ()) = tokio::join!(ask(), ask(), ask(), release);
    for answer in [a, b, c] {
        assert_eq!(answer.unwrap().0.value, 1);
    }
    assert_eq!(fetches.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_asker_that_goes_away_does_not_take_the_answer_with_it() {
    let memo = Memo::new(1 << 20);
    {
        let stuck = memo.answer(
            "key",
            std::future::pending::<Result<Fetched<u32>, Infallible>>(),
        );
        let gone = tokio::time::timeout(Duration::from_secs(1), stuck).await;
        assert!(gone.is_err());
    }
    let (answer, _) = memo
        .answer("key", async { Ok::<_, Infallible>(fetched(2, 10)) })
        .await
        .unwrap();
    assert_eq!(answer.value, 2);
}

#[tokio::test(start_paused = true)]
async fn errors_are_never_remembered() {
    let memo = Memo::<_, u32>::new(1 << 20);
    let failed = memo.answer("key", async { Err("down") }).await;
    assert_eq!(failed.err().as_deref(), Some(&"down"));
    let (answer, _) = memo
        .answer("key", async { Ok::<_, &str>(fetched(1, 10)) })
        .await
        .unwrap();
    assert_eq!(answer.value, 1);
}

#[tokio::test]
async fn what_has_expired_is_let_go_though_nobody_asks() {
    let memo = Memo::new(1 << 20);
    let short = Fetched {
        ttl: Duration::from_millis(1),
        ..fetched(1, 0)
    };
    let kept = async { Ok::<_, Infallible>(fetched(2, 3600)) };
    memo.answer("short", async { Ok::<_, Infallible>(short) })
        .await
        .unwrap();
    memo.answer("kept", kept).await.unwrap();
    memo.settle().await;
    assert_eq!(memo.bytes(), 200);
    let gone = async {
        while memo.bytes() > 100 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    // The cache looks at the clock of the machine, and only at every second of it.
    tokio::select! {
        () = memo.forget_expired() => unreachable!("it goes on"),
        gone = tokio::time::timeout(Duration::from_secs(60), gone) => gone.unwrap(),
    }
}
