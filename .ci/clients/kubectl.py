"""The real kubectl through the proxy, held against the same kubectl past it.

Usage: kubectl.py KUBECTL DIRECT THROUGH, the last two kubeconfigs. Watches run while everything changes
and are folded; what waits is started before what it waits for; what only reads has to print the same
bytes through the proxy as past it.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

from churn import COLLECTIONS, LAST, Churn, Server, bare, create, same

NAMESPACE = "kubectl"
MERGE = "application/merge-patch+json"
DEPLOYMENT = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/web"
POD = f"/api/v1/namespaces/{NAMESPACE}/pods/server"
SETTINGS = f"/api/v1/namespaces/{NAMESPACE}/configmaps/settings"


class Kubectl:
    """kubectl with one kubeconfig, and a home of its own for what it remembers of discovery."""

    def __init__(self, binary, kubeconfig):
        self.command = [binary, "--kubeconfig", kubeconfig, "--namespace", NAMESPACE]
        self.home = tempfile.TemporaryDirectory(prefix="kubectl-", ignore_cleanup_errors=True)
        self.server = Server(kubeconfig)

    def start(self, *arguments):
        environment = {**os.environ, "HOME": self.home.name}
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [*self.command, *arguments], stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment
        )

    def run(self, *arguments, stdin=""):
        """Standard output of a command that succeeds."""
        return finished(self.start(*arguments), stdin)


def finished(process, stdin=None, seconds=60):
    out, err = process.communicate(stdin, timeout=seconds)
    assert process.returncode == 0, f"{process.args}: {process.returncode}\n{out}{err}"
    return out


def ok(what):
    print(f"ok: kubectl {what}", flush=True)


def watches(through, direct, churn):
    """`get -w` as JSON and as a table ends as a direct list, whatever happened meanwhile."""
    events = {kind: through.start("get", kind, "-w", "-o", "json", "--output-watch-events") for kind in COLLECTIONS}
    tables = {kind: through.start("get", kind, "-w", "--output-watch-events") for kind in COLLECTIONS}
    objects = through.start("get", "ConfigMap", "-w", "-o", "json")
    time.sleep(4)
    churn.finish()
    for kind, process in events.items():
        listed = direct.server.listed(COLLECTIONS[kind].format(NAMESPACE))
        same(f"kubectl get {kind} -w -o json", fold_events(process.stdout), listed)
    for kind, process in tables.items():
        same(f"kubectl get {kind} -w", fold_table(process.stdout), table(direct.run("get", kind)))
    seen = [item["metadata"]["name"] for item in until_last(objects.stdout)]
    assert seen.count(LAST) == 1, seen
    for process in [*events.values(), *tables.values(), objects]:
        process.kill()
        process.communicate()


def values(stream):
    """JSON values as they come: events one a line, objects over many."""
    text = ""
    for line in stream:
        text += line
        if line.endswith("}\n") and not line.startswith(" "):
            yield json.loads(text)
            text = ""


def until_last(stream):
    for value in values(stream):
        yield value
        if value["metadata"]["name"] == LAST:
            return


def fold_events(stream):
    known = {}
    for event in values(stream):
        item = event["object"]
        name, old = item["metadata"]["name"], known.get(item["metadata"]["name"])
        assert (old is None) == (event["type"] == "ADDED"), f"{event['type']} of {name}, known was {old}"
        if event["type"] == "DELETED":
            del known[name]
        else:
            known[name] = bare(item)
        if name == LAST:
            return known
    raise AssertionError("the watch ended")


def fold_table(stream):
    known, columns = {}, None
    for line in stream:
        cells = line.split()
        if columns is None:
            columns = cells[1:]
            continue
        event, row = cells[0], dict(zip(columns, cells[1:]))
        name = row["NAME"]
        assert (name in known) == (event != "ADDED"), f"{event} of {name}"
        row.pop("AGE")
        if event == "DELETED":
            del known[name]
        else:
            known[name] = row
        if name == LAST:
            return known
    raise AssertionError("the watch ended")


def table(text):
    columns, *rows = [line.split() for line in text.splitlines()]
    rows = [dict(zip(columns, cells)) for cells in rows]
    return {row["NAME"]: {key: cell for key, cell in row.items() if key != "AGE"} for row in rows}


def applies(through, direct):
    """apply: create, leave, change, on the client's side and on the server's."""

    def manifest(colour, extra=""):
        return f"""
apiVersion: v1
kind: ConfigMap
metadata: {{name: settings}}
data: {{colour: {colour}{extra}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: server, labels: {{app: server}}}}
spec: {{nodeName: node-9, containers: [{{name: main, image: example.invalid/main}}]}}
"""

    def apply(stdin, words, *options):
        out = through.run("apply", "-f", "-", *options, stdin=stdin)
        assert all(word in out for word in words), out

    apply(manifest("blue", ", size: small"), ["configmap/settings created", "pod/server created"])
    apply(manifest("blue", ", size: small"), ["configmap/settings unchanged", "pod/server unchanged"])
    apply(manifest("green"), ["configmap/settings configured", "pod/server unchanged"])
    assert direct.server.call("GET", SETTINGS)["data"] == {"colour": "green"}
    apply(manifest("red"), ["configmap/settings serverside-applied"], "--server-side", "--force-conflicts")
    managers = {entry["operation"] for entry in direct.server.call("GET", SETTINGS)["metadata"]["managedFields"]}
    assert "Apply" in managers, managers
    conflict = through.start("apply", "-f", "-", "--server-side", "--field-manager=another")
    _, err = conflict.communicate(manifest("grey"), timeout=60)
    assert conflict.returncode != 0 and "conflict" in err, err
    ok("apply")


def waits(through, direct):
    """wait: started before what it waits for, so that only a watch can tell it."""
    waiting = {
        "a jsonpath": through.start("wait", "configmap/settings", "--for=jsonpath={.data.colour}=white", "--timeout=60s"),
        "a condition": through.start("wait", "pod/server", "--for=condition=Ready", "--timeout=60s"),
        "a creation": through.start("wait", "configmap/later", "--for=create", "--timeout=60s"),
        "a deletion": through.start("wait", "configmap/doomed", "--for=delete", "--timeout=60s"),
    }
    time.sleep(2)
    for what, process in waiting.items():
        assert process.poll() is None, f"it did not wait for {what}: {process.communicate()}"
    collection = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
    condition = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    direct.server.call("PATCH", SETTINGS, {"data": {"colour": "white"}}, content_type=MERGE)
    direct.server.call("PATCH", f"{POD}/status", {"status": {"conditions": [condition]}}, content_type=MERGE)
    create(direct.server, collection, {"metadata": {"name": "later"}})
    direct.server.call("DELETE", f"{collection}/doomed")
    for what, process in waiting.items():
        finished(process)
        ok(f"wait for {what}")


def rolls_out(through, direct):
    """rollout status of a Deployment whose controller is played here."""
    through.run("create", "deployment", "web", "--image=example.invalid/web", "--replicas=3")
    status = through.start("rollout", "status", "deployment/web", "--timeout=60s")
    generation = direct.server.call("GET", DEPLOYMENT)["metadata"]["generation"]
    for done in range(4):
        played = {"observedGeneration": generation, "replicas": 3, "updatedReplicas": 3}
        played |= {"readyReplicas": done, "availableReplicas": done}
        time.sleep(0.3)
        direct.server.call("PATCH", f"{DEPLOYMENT}/status", {"status": played}, content_type=MERGE)
    out = finished(status)
    assert "successfully rolled out" in out and "1 of 3 updated replicas are available" in out, out
    ok("rollout status")


def prints_the_same(through, direct):
    """What only reads prints the same bytes through the proxy as past it."""
    kinds = ["pods", "configmaps", "nodes", "namespaces", "services", "secrets", "deployments", "leases", "buoys"]
    commands = [["get", kind, "-A", "-o", form] for kind in kinds for form in ("json", "yaml", "name")]
    commands += [["get", kind, "-A", "-o", "wide"] for kind in kinds]
    commands += [["get", "pods", "-l", "app=server", "-o", "json"], ["get", "pod", "server", "-o", "json"]]
    commands += [["get", "pods", "--field-selector=spec.nodeName=node-9", "-o", "json"]]
    commands += [["get", "configmaps", "--chunk-size=2", "-o", "json"]]
    commands += [["describe", "pod", "server"], ["describe", "configmap", "settings"], ["describe", "node", "node-9"]]
    commands += [["explain", what] for what in ("pods", "pod.spec.containers", "deployment.spec", "buoy")]
    commands += [["api-resources", "--sort-by=name"], ["api-versions"], ["auth", "can-i", "--list"]]
    paths = ["/api/v1/pods", "/api/v1/configmaps?limit=500", "/apis/apps/v1/deployments", "/api/v1/nodes/node-9"]
    commands += [["get", "--raw", path] for path in [*paths, "/version", "/apis", "/openapi/v3"]]
    for command in commands:
        # Ages move on between two commands, and so do the Leases of whoever renews them.
        own, other = (ageless(subject.run(*command)) for subject in (through, direct))
        assert own == other, f"{command}\n--- through\n{own}\n--- direct\n{other}"
        assert own, f"{command} prints nothing"
    ok(f"prints the same bytes through the proxy as directly: {len(commands)} commands")


def ageless(text):
    """The text without ages, and without the spaces that fill their column: 9s turns into 10s between two commands."""
    return re.sub(r"\b(AGE|(\d+[smhd])+( ago)?)( +|(?=\s))", "AGE ", text)


def main(binary, direct, through):
    through, direct = Kubectl(binary, through), Kubectl(binary, direct)
    with Churn(direct.command[2], NAMESPACE, seed=3) as churn:
        watches(through, direct, churn)
    create(direct.server, "/api/v1/nodes", {"metadata": {"name": "node-9"}})
    place = f"namespaces/{NAMESPACE}"
    create(direct.server, f"/api/v1/{place}/configmaps", {"metadata": {"name": "doomed"}})
    create(direct.server, f"/api/v1/{place}/secrets", {"metadata": {"name": "key"}, "stringData": {"a": "b"}})
    create(direct.server, f"/api/v1/{place}/services", {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}})
    create(direct.server, f"/apis/coordination.k8s.io/v1/{place}/leases", {"metadata": {"name": "turn"}, "spec": {}})
    applies(through, direct)
    waits(through, direct)
    rolls_out(through, direct)
    prints_the_same(through, direct)
    through.run("delete", "namespace", NAMESPACE, "--timeout=60s")
    ok("delete namespace")


signal.alarm(300)  # a watch that never ends is a failure
main(*sys.argv[1:])
