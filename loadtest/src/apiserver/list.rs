//! LIST: which picture of the resource answers, and which page of it.
//!
//! Owns the table of resource version semantics (L1 to L15 of kube-apiserver 1.36 with its default
//! gates) and paging. Refuses to encode. Invariant: the resource version of a list is one at which
//! exactly its items existed.

use std::sync::Arc;

use http::StatusCode;

use super::body::Response;
use super::negotiate::{self, Endpoint, Transform};
use super::paging::Continue;
use super::read::{self, Selected};
use super::render::{self, IncludeObject};
use super::request::parse_resource_version;
use super::resources::Resource;
use super::schema::ListMeta;
use super::server::{Exchange, State};
use super::status::Status;
use super::store::{FRESHNESS_TIMEOUT, Snapshot, Store, StoreError, Stored};

/// Which picture a list shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Picture {
    /// At least the current revision at the time of the request.
    Consistent,
    /// Whatever the cache has.
    Any,
    /// At least this resource version.
    NotOlderThan(u64),
    /// Exactly this revision.
    Exact(u64),
}

/// A picture, where the page starts in it, and how long it is.
#[derive(Debug)]
struct Page {
    picture: Picture,
    start: String,
    /// 0 is no limit.
    limit: usize,
    paged: bool,
    /// Bypass the cache.
    direct: bool,
}

/// Answers a LIST.
pub async fn serve(
    state: &Arc<State>,
    exchange: &Exchange,
    resource: &Resource,
) -> Result<Response, Status> {
    let selected = read::select(state, exchange, resource)?;
    let ready = state.cache_ready(resource);
    let page = page(&selected, !resource.cached || ready.is_err())?;
    // While the cache is being filled, only pages of everything are left to etcd.
    if page.limit == 0 || !selected.selection.is_unselective() {
        ready?;
    }
    let picture = picture(&state.store, resource, &selected, &page).await;
    let (snapshot, cached) = picture.map_err(|error| failure(error, &page, resource))?;
    let (meta, objects) = cut(&snapshot, &selected, (&page, cached), resource);
    let endpoint = Endpoint::of(resource);
    let format = negotiate::negotiate(&exchange.headers, &exchange.query, endpoint)?;
    let include = match format.transform {
        Transform::Table(_) => IncludeObject::parse(&exchange.query)?,
        Transform::None | Transform::Partial(_) | Transform::PartialList(_) => {
            IncludeObject::default()
        }
    };
    let body = render::list(resource, &meta, &objects, format, include)?;
    let content_type = format.media.content_type();
    Ok(state.answer_bytes(exchange, StatusCode::OK, content_type, body))
}

fn page(selected: &Selected, direct: bool) -> Result<Page, Status> {
    let options = &selected.options;
    let version = options.resource_version.as_str();
    let limit = if version == "0" && !direct {
        0
    } else {
        usize::try_from(options.limit).unwrap_or(0)
    };
    let mut page = Page {
        picture: Picture::Consistent,
        start: String::new(),
        limit,
        paged: false,
        direct,
    };
    if !options.continue_token.is_empty() {
        let token = Continue::decode(&options.continue_token)
            .map_err(|text| Status::bad_request(format!("invalid continue token: {text}")))?;
        if !matches!(version, "" | "0") {
            let text = "specifying resource version is not allowed when using continue";
            return Err(Status::bad_request(text));
        }
        if let Ok(revision) = u64::try_from(token.revision) {
            page.picture = Picture::Exact(revision);
        }
        page.start = token.start;
        page.paged = true;
        return Ok(page);
    }
    let requested = parse_resource_version(version)
        .map_err(|text| Status::bad_request(format!("invalid resource version: {text}")))?;
    page.picture = match (options.resource_version_match.as_str(), version) {
        (_, "") => Picture::Consistent,
        ("Exact", _) => Picture::Exact(requested),
        ("", _) if page.limit > 0 && requested > 0 && !selected.single => Picture::Exact(requested),
        ("", _) if page.limit > 0 && requested > 0 => {
            page.direct = true;
            Picture::NotOlderThan(requested)
        }
        (_, _) if requested == 0 => Picture::Any,
        (_, _) => Picture::NotOlderThan(requested),
    };
    Ok(page)
}

/// The objects of the scope, and whether a cache would have answered.
async fn picture(
    store: &Store,
    resource: &Resource,
    selected: &Selected,
    page: &Page,
) -> Result<(Snapshot, bool), StoreError> {
    let scope = &selected.scope;
    match page.picture {
        Picture::Exact(revision) => {
            if resource.cached && revision > store.revision() {
                store
                    .wait_until_fresh(resource, revision, FRESHNESS_TIMEOUT)
                    .await?;
            }
            store.snapshot_exact(resource, scope, revision)
        }
        Picture::NotOlderThan(requested) if page.direct => {
            let current = store.revision();
            if requested > current {
                return Err(StoreError::TooLarge { requested, current });
            }
            Ok((store.snapshot_current(resource, scope), false))
        }
        Picture::Consistent | Picture::Any if page.direct => {
            Ok((store.snapshot_current(resource, scope), false))
        }
        Picture::Consistent => match store.wait_until_consistent(resource).await {
            Ok(_) => Ok((store.snapshot_cached(resource, scope), true)),
            Err(_) => Ok((store.snapshot_current(resource, scope), false)),
        },
        Picture::Any => Ok((store.snapshot_cached(resource, scope), true)),
        Picture::NotOlderThan(requested) => {
            store
                .wait_until_fresh(resource, requested, FRESHNESS_TIMEOUT)
                .await?;
            Ok((store.snapshot_cached(resource, scope), true))
        }
    }
}

fn failure(error: StoreError, page: &Page, resource: &Resource) -> Status {
    match error {
        StoreError::TooLarge { requested, current } => {
            Status::too_large_resource_version(requested, current, !page.direct)
        }
        StoreError::Compacted if page.paged => {
            let mut status = Status::expired(EXPIRED_TOKEN);
            let token = Continue {
                revision: -1,
                start: page.start.clone(),
            };
            status.continue_token = token.encode(false);
            status
        }
        error => read::refused(error, resource),
    }
}

const EXPIRED_TOKEN: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

/// Filters and cuts a page; tells what remains.
fn cut(
    snapshot: &Snapshot,
    selected: &Selected,
    (page, cached): (&Page, bool),
    resource: &Resource,
) -> (ListMeta, Vec<Arc<Stored>>) {
    let selection = &selected.selection;
    let prefix = match selection.namespace.as_str() {
        "" => String::new(),
        namespace => format!("{namespace}/"),
    };
    let relative = |object: &Stored| object.key[prefix.len()..].to_owned();
    let from = snapshot.objects.partition_point(|object| {
        object.key.starts_with(&prefix) && object.key[prefix.len()..] < *page.start
    });
    let rest = &snapshot.objects[if page.start.is_empty() { 0 } else { from }..];
    let mut objects = Vec::new();
    let mut meta = ListMeta {
        resource_version: snapshot.resource_version.to_string(),
        ..ListMeta::default()
    };
    for object in rest {
        if page.limit > 0 && objects.len() == page.limit {
            let last: &Arc<Stored> = &objects[objects.len() - 1];
            let token = Continue {
                revision: i64::try_from(snapshot.resource_version).unwrap_or(i64::MAX),
                start: format!("{}\0", relative(last)),
            };
            meta.continue_token = token.encode(cached);
            if selection.is_unselective() {
                meta.remaining = i64::try_from(rest.len() - page.limit).ok();
            }
            break;
        }
        if selection.matches(resource, &object.value) {
            objects.push(Arc::clone(object));
        }
    }
    (meta, objects)
}
