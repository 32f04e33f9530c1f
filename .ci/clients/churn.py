"""What the client tests share: a namespace full of change, and the direct list it has to end as.

A Churn writes past the proxy, in a thread, for as long as its `with` block needs: objects come, change
their labels and values, and go. Its last write creates an object called `last`, so that whoever
follows knows when it has seen everything.
"""

import json
import random
import sys
import threading
import time

from kubernetes import client, config, dynamic

LAST = "last"
NAMES = 12

CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "buoys.churn.example.com"},
    "spec": {
        "group": "churn.example.com",
        "scope": "Namespaced",
        "names": {"plural": "buoys", "singular": "buoy", "kind": "Buoy", "listKind": "BuoyList"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}

COLLECTIONS = {
    "Pod": "/api/v1/namespaces/{}/pods",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Buoy": "/apis/churn.example.com/v1/namespaces/{}/buoys",
}


class Server:
    """One server by its kubeconfig; connections are this object's own."""

    def __init__(self, kubeconfig):
        self.api = config.new_client_from_config(kubeconfig)
        self.core = client.CoreV1Api(self.api)

    def dynamic(self):
        return dynamic.DynamicClient(self.api)

    def call(self, method, path, body=None, content_type="application/json"):
        """The decoded JSON answer of any request."""
        headers = {"Accept": "application/json", "Content-Type": content_type}
        answer = self.api.call_api(method, self.api.configuration.host + path, headers, body=body)
        text = answer.read()
        if not 200 <= answer.status <= 299:
            raise client.ApiException(status=answer.status, reason=text)
        return json.loads(text)

    def listed(self, collection):
        """Every object of a collection by its name, as the server says it."""
        items = self.call("GET", collection)["items"]
        return {item["metadata"]["name"]: bare(item) for item in items}


def bare(item):
    """An object without the names of its type, which items of a list lack."""
    return {key: value for key, value in item.items() if key not in ("apiVersion", "kind")}


def same(what, got, wanted):
    """Fails with the first difference between two collections by name."""
    for name in sorted(got.keys() | wanted.keys()):
        if got.get(name) != wanted.get(name):
            raise AssertionError(f"{what}: {name} is\n{got.get(name)}\nlisted is\n{wanted.get(name)}")
    if LAST not in wanted:
        raise AssertionError(f"{what}: the last write is missing")
    sys.stdout.write(f"ok: {what}: {len(wanted)} objects as listed directly\n")  # at once: threads share it
    sys.stdout.flush()


class Churn:
    """Writes to every kind of COLLECTIONS in a namespace of its own, until `finish`."""

    def __init__(self, direct, namespace, seed):
        self.server = Server(direct)
        self.namespace = namespace
        self.random = random.Random(seed)
        self.stopping = threading.Event()
        self.failure = None
        self.writes = 0
        self.thread = threading.Thread(target=self.run)

    def __enter__(self):
        create(self.server, "/api/v1/namespaces", {"metadata": {"name": self.namespace}})
        create(self.server, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", CRD)
        until("the CRD is served", lambda: self.server.listed(COLLECTIONS["Buoy"].format(self.namespace)) == {})
        for kind in COLLECTIONS:
            for number in range(NAMES // 2):
                self.put(kind, f"thing-{number}")
        self.thread.start()
        return self

    def __exit__(self, *failure):
        self.stopping.set()
        self.thread.join()

    def collection(self, kind):
        return COLLECTIONS[kind].format(self.namespace)

    def run(self):
        try:
            while not self.stopping.wait(0.005):
                kind, name = self.random.choice(list(COLLECTIONS)), f"thing-{self.random.randrange(NAMES)}"
                if self.random.random() < 0.25:
                    attempt({404}, self.server.call, "DELETE", f"{self.collection(kind)}/{name}", {"gracePeriodSeconds": 0})
                else:
                    self.put(kind, name)
                self.writes += 1
        except Exception as failure:
            self.failure = failure

    def put(self, kind, name):
        value = self.random.randrange(1000)
        metadata = {"name": name, "labels": {"parity": "even" if value % 2 == 0 else "odd"}}
        body = {"metadata": {**metadata, "annotations": {"value": str(value)}}}
        path = f"{self.collection(kind)}/{name}"
        content_type = "application/merge-patch+json"
        if attempt({404}, self.server.call, "PATCH", path, body, content_type=content_type) is None:
            create(self.server, self.collection(kind), {**frame(kind), **body})

    def finish(self):
        """Ends the churn with an object called `last` in every collection."""
        self.stopping.set()
        self.thread.join()
        if self.failure:
            raise self.failure
        for kind in COLLECTIONS:
            create(self.server, self.collection(kind), {**frame(kind), "metadata": {"name": LAST}})
        assert self.writes > 100, f"only {self.writes} writes"


def frame(kind):
    group = {"Buoy": "churn.example.com/v1"}.get(kind, "v1")
    spec = {"spec": {"containers": [{"name": "main", "image": "example.invalid/main"}]}} if kind == "Pod" else {}
    return {"apiVersion": group, "kind": kind, **spec}


def create(server, collection, body):
    attempt({409}, server.call, "POST", collection, body)


def attempt(accepted, call, *args, **kwargs):
    """The answer, or None when it is refused with one of the accepted codes."""
    try:
        return call(*args, **kwargs)
    except client.ApiException as refusal:
        if refusal.status not in accepted:
            raise
        return None


def until(what, is_so, seconds=30):
    deadline = time.monotonic() + seconds
    while True:
        try:
            if is_so():
                return
        except client.ApiException as refusal:
            last = refusal
        else:
            last = None
        if time.monotonic() > deadline:
            raise AssertionError(f"not in time: {what} ({last})")
        time.sleep(0.05)
