//! An update of one object among many: store, window, snapshot.

use watershed_cache::encoding::EventType;
use watershed_cache::{Snapshot, WatchCache};

use crate::case::{Case, Steps};
use crate::subject;

const OBJECTS: usize = 100_000;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case("apply/update among 100000", |_| None),
        case("apply/update among 100000, read in between", |cache| {
            Some(subject::snapshot(cache))
        }),
    ]
}

/// `read` says what a reader holds while the next update is applied.
fn case(name: &str, read: fn(&WatchCache) -> Option<Snapshot>) -> Case {
    let prepare = move || {
        let (mut writer, cache) = subject::cache(OBJECTS);
        let (mut version, mut held) = (1, None);
        Steps::objects(
            move || {
                version += 1;
                subject::pod(subject::scattered(version, OBJECTS), version)
            },
            move |object| {
                writer
                    .apply(EventType::Modified, object)
                    .expect("within the budget");
                drop(std::mem::replace(&mut held, read(&cache)));
            },
        )
    };
    Case::new(name, prepare).runs(1_000)
}
