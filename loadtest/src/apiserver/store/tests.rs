use serde_json::json;

use super::*;
use crate::apiserver::resources::Registry;

fn store() -> (Arc<Store>, Registry) {
    let store = Store::new(Profile::default(), Box::new(|_, _, _, _| ()));
    (Arc::new(store), Registry::builtin())
}

fn configmap(name: &str, data: &str) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "a"}, "data": {"v": data}})
}

fn pod(name: &str, node: &str) -> Value {
    json!({"kind": "Pod", "metadata": {"name": name, "namespace": "a"}, "spec": {"nodeName": node}})
}

#[test]
fn exact_reads_see_the_past_until_it_is_compacted() {
    let (store, registry) = store();
    let resource = registry.find("", "v1", "configmaps").unwrap();
    let first = store.create(&resource, configmap("x", "1"), None).unwrap();
    store
        .update(&resource, configmap("x", "2"), first.resource_version)
        .unwrap();
    let at = first.resource_version;
    let (past, _) = store.snapshot_exact(&resource, &Scope::All, at).unwrap();
    assert_eq!(past.objects[0].value["data"]["v"], "1");
    store.compact(at + 1);
    let error = store.snapshot_exact(&resource, &Scope::All, at).map(|_| ());
    assert_eq!(error, Err(StoreError::Compacted));
    assert!(store.snapshot_exact(&resource, &Scope::All, at + 1).is_ok());
}

#[test]
fn stale_and_unchanged_updates_write_nothing() {
    let (store, registry) = store();
    let resource = registry.find("", "v1", "configmaps").unwrap();
    let first = store.create(&resource, configmap("x", "1"), None).unwrap();
    let at = first.resource_version;
    assert!(matches!(
        store.update(&resource, configmap("x", "1"), at),
        Ok(Updated::Unchanged(_))
    ));
    assert!(matches!(
        store.update(&resource, configmap("x", "2"), at - 1),
        Err(StoreError::Conflict { .. })
    ));
    assert_eq!(store.revision(), at);
}

#[tokio::test]
async fn a_watch_replays_what_its_window_holds_and_refuses_the_rest() {
    let (store, registry) = store();
    let resource = registry.find("", "v1", "configmaps").unwrap();
    store.open(&resource);
    let listed = store.revision();
    let first = store.create(&resource, configmap("x", "1"), None).unwrap();
    let mut watch = store
        .watch(&resource, Scope::All, Start::After(listed))
        .unwrap();
    assert_eq!(watch.history.len(), 1);
    store.delete(&resource, ("a", "x"), None, None).unwrap();
    let event = watch.events.recv().await.unwrap();
    assert_eq!(event.kind, EventKind::Removed);
    assert_eq!(event.resource_version, first.resource_version + 1);
    let error = store
        .watch(&resource, Scope::All, Start::After(listed - 1))
        .map(|_| ());
    assert_eq!(
        error,
        Err(StoreError::Expired {
            requested: listed - 1,
            oldest: listed
        })
    );
}

#[tokio::test(start_paused = true)]
async fn a_window_grows_while_its_events_are_young() {
    let (store, registry) = store();
    let resource = registry.find("", "v1", "configmaps").unwrap();
    store.open(&resource);
    let listed = store.revision();
    for n in 0..150 {
        store.load(&resource, configmap("x", &n.to_string()));
    }
    assert!(
        store
            .watch(&resource, Scope::All, Start::After(listed))
            .is_ok()
    );
    tokio::time::advance(Duration::from_secs(80)).await;
    for n in 0..100 {
        store.load(&resource, configmap("x", &n.to_string()));
    }
    assert!(
        store
            .watch(&resource, Scope::All, Start::After(listed))
            .is_err()
    );
}

#[tokio::test]
async fn watchers_of_the_old_and_the_new_node_both_get_a_move() {
    let (store, registry) = store();
    let resource = registry.find("", "v1", "pods").unwrap();
    let first = store.create(&resource, pod("p", "n1"), None).unwrap();
    let after = Start::After(first.resource_version);
    let watch = |node: &str| store.watch(&resource, Scope::Trigger(node.to_owned()), after);
    let (mut n1, mut n2, mut n3) = (
        watch("n1").unwrap(),
        watch("n2").unwrap(),
        watch("n3").unwrap(),
    );
    store
        .update(&resource, pod("p", "n2"), first.resource_version)
        .unwrap();
    assert!(n1.events.recv().await.is_some());
    assert!(n2.events.recv().await.is_some());
    assert!(n3.events.try_recv().is_err());
    let scope = Scope::Trigger("n1".to_owned());
    assert_eq!(store.snapshot_current(&resource, &scope).objects.len(), 0);
    let (past, _) = store
        .snapshot_exact(&resource, &scope, first.resource_version)
        .unwrap();
    assert_eq!(past.objects.len(), 1);
}

#[test]
fn the_last_finalizer_ends_an_object_with_its_last_stored_content() {
    let (store, registry) = store();
    let resource = registry.find("", "v1", "configmaps").unwrap();
    let mut value = configmap("x", "1");
    value["metadata"]["finalizers"] = json!(["a/b"]);
    store.create(&resource, value, None).unwrap();
    let Ok(Deleted::Pending(pending)) = store.delete(&resource, ("a", "x"), None, None) else {
        panic!("a finalizer holds the object");
    };
    let mut value = pending.value.clone();
    value["metadata"]["finalizers"] = json!([]);
    let Ok(Updated::Removed(last)) = store.update(&resource, value, pending.resource_version)
    else {
        panic!("nothing holds the object any more");
    };
    assert_eq!(last.value["metadata"]["finalizers"], json!(["a/b"]));
    assert_eq!(last.resource_version, pending.resource_version + 1);
    assert!(store.read(&resource, "a", "x").is_none());
}

#[tokio::test(start_paused = true)]
async fn events_of_one_lease_die_in_one_revision() {
    let (store, registry) = store();
    let resource = registry.find("", "v1", "events").unwrap();
    let ttl = Some(Duration::from_secs(20));
    for name in ["e1", "e2"] {
        let value = json!({"kind": "Event", "metadata": {"name": name, "namespace": "a"}});
        store.create(&resource, value, ttl).unwrap();
    }
    let mut watch = store
        .watch(&resource, Scope::All, Start::After(store.revision()))
        .unwrap();
    tokio::time::advance(Duration::from_secs(22)).await;
    store.expire();
    let first = watch.events.recv().await.unwrap();
    let second = watch.events.recv().await.unwrap();
    assert_eq!(first.resource_version, second.resource_version);
    assert_eq!(
        (first.object.name.as_str(), second.object.name.as_str()),
        ("e1", "e2")
    );
}

#[tokio::test(start_paused = true)]
async fn a_frozen_cache_lags_and_then_catches_up() {
    let (store, registry) = store();
    let resource = registry.find("", "v1", "configmaps").unwrap();
    store.open(&resource);
    store.freeze(true);
    store.create(&resource, configmap("x", "1"), None).unwrap();
    assert!(
        store
            .snapshot_cached(&resource, &Scope::All)
            .objects
            .is_empty()
    );
    assert!(store.wait_until_consistent(&resource).await.is_err());
    store.freeze(false);
    assert!(store.wait_until_consistent(&resource).await.is_ok());
    assert_eq!(
        store.snapshot_cached(&resource, &Scope::All).objects.len(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_falls_behind_shows_the_past_until_it_catches_up() {
    let (store, registry) = store();
    let resource = registry.find("", "v1", "configmaps").unwrap();
    store.open(&resource);
    let first = store.create(&resource, configmap("x", "1"), None).unwrap();
    let at = first.resource_version;
    store.update(&resource, configmap("x", "2"), at).unwrap();
    store.fall_behind(at);
    let past = store.snapshot_cached(&resource, &Scope::All);
    assert_eq!(past.resource_version, at);
    assert_eq!(past.objects[0].value["data"]["v"], "1");
    let mut watch = store
        .watch(&resource, Scope::All, Start::After(at))
        .unwrap();
    assert!(watch.history.is_empty() && watch.events.try_recv().is_err());
    store.freeze(false);
    assert_eq!(
        watch.events.recv().await.unwrap().resource_version,
        store.revision()
    );
}
