//! Lists, single objects and pages, byte for byte.

use bytes::BytesMut;
use watershed_cache::encoding::{
    Encoding, ListMeta, append_list_item, get_body, list_head, list_item_len, list_tail,
};
use watershed_cache::{CacheError, ResourceVersion, Snapshot, WatchCache};

use crate::model::{History, View};
use crate::thing::Meta;
use crate::wanted::{WANTED, Wanted};

/// After how many writes the history was as the snapshot says. The last position of its version,
/// unless the snapshot was taken while several writes of one version were coming in.
pub(crate) fn position_of(snapshot: &Snapshot, cache: &WatchCache, history: &History) -> usize {
    let version = snapshot.resource_version().get();
    let everything = WANTED[0].selection(history.form, cache.resource());
    let entry = |object: &std::sync::Arc<watershed_cache::Object>| {
        (object.key().to_owned(), object.resource_version().get())
    };
    let listed: View = snapshot.iter(&everything).map(entry).collect();
    let fits = |position: &usize| history.view(*position, &WANTED[0]) == listed;
    history
        .positions(version)
        .rev()
        .find(fits)
        .unwrap_or_else(|| {
            let expected = history.view(history.position(version), &WANTED[0]);
            panic!("the list at {version} is {listed:?},\n expected {expected:?}")
        })
}

/// A list of some selection and one object, as they go to clients.
pub(crate) fn check_bodies(
    (snapshot, position): (&Snapshot, usize),
    wanted: &Wanted,
    (cache, history): (&WatchCache, &History),
) {
    let selection = wanted.selection(history.form, cache.resource());
    let meta = Meta {
        version: snapshot.resource_version().get(),
        token: None,
        remaining: None,
    };
    let objects: Vec<_> = snapshot.iter(&selection).collect();
    let body = body(&objects, meta, cache);
    let expected = history.form.list(meta, history.selected(position, wanted));
    assert_bytes(&body, &expected, wanted);
    for name in ["p1", "p5"] {
        let found = snapshot.get("a-b", name).map(|object| get_body(object));
        let thing = history.state(position).get(&format!("a-b/{name}"));
        let expected = thing.map(|thing| {
            let mut bytes = thing.object(history.form, thing.version);
            bytes.extend((cache.encoding() == Encoding::Json).then_some(b'\n'));
            bytes
        });
        assert_eq!(found.as_deref(), expected.as_deref(), "a single object");
    }
}

fn body(
    objects: &[&std::sync::Arc<watershed_cache::Object>],
    meta: Meta<'_>,
    cache: &WatchCache,
) -> BytesMut {
    let meta = ListMeta {
        resource_version: ResourceVersion::new(meta.version),
        continue_token: meta.token,
        remaining: meta
            .remaining
            .map(|count| i64::try_from(count).expect("few")),
    };
    let (encoding, resource) = (cache.encoding(), cache.resource());
    let items = objects.iter().map(|object| list_item_len(object)).sum();
    let mut body = BytesMut::new();
    body.extend_from_slice(&list_head(encoding, resource, &meta, items));
    for (place, object) in objects.iter().enumerate() {
        append_list_item(object, place == 0, &mut body);
    }
    body.extend_from_slice(&list_tail(encoding, resource, &meta));
    body
}

fn assert_bytes(found: &[u8], expected: &[u8], wanted: &Wanted) {
    let [left, right] = [found, expected].map(String::from_utf8_lossy);
    assert!(found == expected, "{wanted:?}: {left}\n expected {right}");
}

/// A client that lists page by page at one version, however long that takes.
#[derive(Debug)]
pub(crate) struct Pager {
    wanted: &'static Wanted,
    limit: usize,
    version: u64,
    /// Key the next page begins at.
    from: String,
}

impl Pager {
    pub(crate) const fn new(wanted: &'static Wanted, limit: usize, version: u64) -> Self {
        Self {
            wanted,
            limit,
            version,
            from: String::new(),
        }
    }

    /// Gets the next page. False when it was the last, or there are no more to be had.
    pub(crate) fn turn(&mut self, cache: &WatchCache, history: &History) -> bool {
        let snapshot = match cache.snapshot_at(ResourceVersion::new(self.version)) {
            Ok(snapshot) => snapshot,
            Err(CacheError::NotReady) => {
                assert!(!cache.is_ready());
                return false;
            }
            Err(CacheError::Expired { requested, oldest }) => {
                assert_eq!(requested.get(), self.version);
                assert!(
                    requested.get() + 1 < oldest.get(),
                    "pages last as long as history"
                );
                return false;
            }
            Err(CacheError::ResourceVersionTooLarge { requested, current }) => {
                assert_eq!(requested.get(), self.version);
                assert!(current < requested && current == cache.resource_version());
                return true;
            }
            Err(other) => panic!("unexpected {other}"),
        };
        assert_eq!(snapshot.resource_version().get(), self.version);
        let position = position_of(&snapshot, cache, history);
        self.check_page((&snapshot, position), (cache, history))
    }

    fn check_page(
        &mut self,
        (snapshot, position): (&Snapshot, usize),
        (cache, history): (&WatchCache, &History),
    ) -> bool {
        let selection = self.wanted.selection(history.form, cache.resource());
        let objects: Vec<_> = snapshot
            .iter_from(&selection, &self.from)
            .take(self.limit)
            .collect();
        let rest = history.selected(position, self.wanted);
        let rest = rest.filter(|thing| thing.key() >= self.from);
        let expected: Vec<_> = rest.take(self.limit).collect();
        let Some(last) = expected.last().filter(|_| expected.len() == self.limit) else {
            let [found, wanted] = [objects.len(), expected.len()];
            assert_eq!(found, wanted, "{self:?}");
            return false;
        };
        let in_scope = |from: &str| {
            let namespace = self.wanted.namespace();
            let all = history.state(position).iter();
            all.filter(|(key, thing)| {
                key.as_str() >= from && namespace.is_none_or(|it| it == thing.namespace)
            })
            .count()
        };
        let after = format!("{}\0", last.key());
        let namespace = self.wanted.namespace();
        assert_eq!(snapshot.range(namespace, &after).count(), in_scope(&after));
        assert_eq!(
            snapshot.range(namespace, &self.from).count(),
            in_scope(&self.from)
        );
        let is_counted = !self.wanted.is_filtered() && !self.wanted.is_one_object();
        let meta = Meta {
            version: self.version,
            token: Some("dG9rZW4"),
            remaining: is_counted.then(|| in_scope(&after) as u64),
        };
        let found = body(&objects, meta, cache);
        let expected = history.form.list(meta, expected.into_iter());
        assert_bytes(&found, &expected, self.wanted);
        self.from = after;
        in_scope(&self.from) > 0
    }
}
