"""The Python client through the proxy: every way it has to follow a collection, while it changes.

Usage: follow.py DIRECT THROUGH..., all kubeconfigs; several THROUGH are replicas of one proxy, and the
followers go from one to the next with the resource version they have. Each follower ends at the last
write of its collection and compares what it knows with a direct list.
"""

import signal
import sys
import threading

from churn import COLLECTIONS, LAST, Churn, Server, bare, same
from kubernetes import client, watch

GONE = 410
NAMESPACE = "python"


class Followed:
    """What a follower knows, and the law of what may follow what."""

    def __init__(self):
        self.objects = {}

    def relisted(self, items):
        self.objects = {item["metadata"]["name"]: bare(item) for item in items}

    def take(self, event):
        """True when the last write is known."""
        kind, item = event["type"], event["raw_object"]
        if kind == "BOOKMARK":
            return False
        name, old = item["metadata"]["name"], self.objects.get(item["metadata"]["name"])
        assert kind in ("ADDED", "MODIFIED", "DELETED"), event
        assert (old is None) == (kind == "ADDED"), f"{kind} of {name}, known was {old}"
        if old is not None:
            versions = [int(known["metadata"]["resourceVersion"]) for known in (old, item)]
            assert versions[0] < versions[1], f"{name}: {versions}"
        if kind == "DELETED":
            del self.objects[name]
        else:
            self.objects[name] = bare(item)
        return name == LAST


def typed_listing(server, kind):
    return {"Pod": server.core.list_namespaced_pod, "ConfigMap": server.core.list_namespaced_config_map}[kind]


def handed_over(replicas, kind):
    """Lists, then watches a second at a time, at another replica each time; lists again at a 410."""
    servers, followed, version, turn = [Server(own) for own in replicas], Followed(), None, 0
    while True:
        listing = typed_listing(servers[turn % len(servers)], kind)
        turn += 1
        if version is None:
            answer = listing(NAMESPACE, _preload_content=False)
            whole = answer.json()
            followed.relisted(whole["items"])
            version = whole["metadata"]["resourceVersion"]
            if LAST in followed.objects:
                return followed
        watcher = watch.Watch()
        try:
            for event in watcher.stream(
                listing, NAMESPACE, resource_version=version, timeout_seconds=1, allow_watch_bookmarks=True
            ):
                if followed.take(event):
                    return followed
                version = watcher.resource_version
        except client.ApiException as refusal:
            assert refusal.status == GONE, refusal
            version = None


def reconnecting(replicas, kind):
    """One Watch that the server ends every second, and that the library resumes by itself."""
    server, followed = Server(replicas[0]), Followed()
    listing, connections = typed_listing(server, kind), []

    def for_a_second(**parameters):
        connections.append(parameters.get("resource_version"))
        return listing(NAMESPACE, timeout_seconds=1, **parameters)

    first = listing(NAMESPACE, _preload_content=False).json()
    followed.relisted(first["items"])
    watcher = watch.Watch(return_type={"Pod": client.V1Pod, "ConfigMap": client.V1ConfigMap}[kind])
    for event in watcher.stream(for_a_second, resource_version=first["metadata"]["resourceVersion"]):
        if followed.take(event):
            watcher.stop()
    assert len(connections) > 1, "it never reconnected"
    assert None not in connections, connections
    return followed


def dynamically(replicas, kind):
    """The dynamic client, whose watch begins with the state itself (WatchList)."""
    server, followed, synced = Server(replicas[-1]), Followed(), False
    api_version = "churn.example.com/v1" if kind == "Buoy" else "v1"
    resource = server.dynamic().resources.get(api_version=api_version, kind=kind)
    for event in resource.watch(
        namespace=NAMESPACE,
        allow_watch_bookmarks=True,
        send_initial_events=True,
        resource_version_match="NotOlderThan",
        timeout=300,
    ):
        annotations = event["raw_object"]["metadata"].get("annotations") or {}
        synced = synced or annotations.get("k8s.io/initial-events-end") == "true"
        if followed.take(event):
            assert synced, "the end of the initial events never came"
            return followed
    raise AssertionError("the watch ended")


def paged(server, kind):
    """A list in pages, as typed objects."""
    pages, token = [], None
    while True:
        page = typed_listing(server, kind)(NAMESPACE, limit=2, _continue=token)
        pages.append(page)
        token = page.metadata._continue
        if not token:
            break
    versions = {page.metadata.resource_version for page in pages}
    assert len(pages) > 1 and len(versions) == 1, f"{len(pages)} pages at {versions}"
    return [item for page in pages for item in page.items]


def check_a_version_too_old(server):
    try:
        for event in watch.Watch().stream(server.core.list_namespaced_config_map, NAMESPACE, resource_version="1"):
            raise AssertionError(f"an event after a version long forgotten: {event}")
    except client.ApiException as refusal:
        assert refusal.status == GONE, refusal
    print("ok: a version too old is 410")


def main(direct, *replicas):
    failures = []

    def judge(follower, kind):
        what = f"python {follower.__name__} {kind}"
        try:
            followed = follower(replicas, kind)
            same(what, followed.objects, Server(direct).listed(COLLECTIONS[kind].format(NAMESPACE)))
        except BaseException as failure:
            failures.append(f"{what}: {failure!r}")

    with Churn(direct, NAMESPACE, seed=7) as churn:
        todo = [(handed_over, "Pod"), (handed_over, "ConfigMap"), (reconnecting, "Pod"), (reconnecting, "ConfigMap")]
        todo += [(dynamically, kind) for kind in COLLECTIONS]
        threads = [threading.Thread(target=judge, args=own, daemon=True) for own in todo]
        for thread in threads:
            thread.start()
        churn.stopping.wait(4)
        churn.finish()
        for thread in threads:
            thread.join(60)
            if thread.is_alive():
                failures.append("a follower never saw the last write")
    assert not failures, "\n".join(failures)
    through, other = Server(replicas[0]), Server(direct)
    check_a_version_too_old(through)
    for kind in ("Pod", "ConfigMap"):
        assert paged(through, kind) == paged(other, kind) == typed_listing(other, kind)(NAMESPACE).items, kind
        print(f"ok: python paged {kind}")


signal.alarm(300)  # a watch that never ends is a failure
main(*sys.argv[1:])
