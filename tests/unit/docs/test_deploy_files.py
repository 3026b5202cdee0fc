"""compose.yaml, the Dockerfile and the manifests keep what they are careful about, and agree with the code."""

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
from ruamel.yaml import YAML

from innkeeper.inspector.command import inspector
from innkeeper.supervise.pool import STOP_GRACE_S
from innkeeper_edge.cli import edge
from innkeeper_edge.limits import DEFAULT_LIMITS
from innkeeper_workers.cli import _DRAIN_S as WORKER_DRAIN_S
from innkeeper_workers.cli import worker
from innkeeper_workers.metrics import LAG

ROOT = Path(__file__).parents[3]
SHORT_S = re.compile(r"(\d+)s")
COMMANDS: dict[str, click.Command] = {"edge": edge, "inspector": inspector, "worker": worker}


def documents(path: str) -> list[Any]:
    """Return the documents of a YAML file."""
    return list(YAML(typ="safe").load_all((ROOT / path).read_text(encoding="utf-8")))


MANIFESTS = [
    document for path in sorted((ROOT / "deploy/kubernetes").glob("*.yaml")) for document in documents(str(path))
]
PODS = {
    found["metadata"]["name"]: found["spec"]["template"]["spec"] for found in MANIFESTS if "template" in found["spec"]
}


def check_command(words: list[str]) -> None:
    """Fail unless a container's command is one of innkeeper's with options that it has."""
    if words[0] in COMMANDS:
        known = {name for parameter in COMMANDS[words[0]].params for name in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known


def test_containers_of_compose_may_do_little() -> None:
    """None is root, may write its file system, has a capability, gets one, or takes all memory; none is cut short."""
    (compose,) = documents("compose.yaml")
    assert set(compose["services"]) == {"valkey", "edge", "worker", "inspector", "proxy"}
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["tmpfs"] == ["/tmp"], name  # noqa: S108 - the container's
        assert service["mem_limit"], name
        assert not str(service["user"]).startswith(("0", "root")), name
        grace = SHORT_S.fullmatch(service["stop_grace_period"])
        assert grace is not None
        assert int(grace[1]) > max(STOP_GRACE_S, WORKER_DRAIN_S, DEFAULT_LIMITS.drain_s + 10), name
        check_command([str(word) for word in service.get("command", [""])])
        if name in ("proxy", "inspector"):
            assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
        else:
            assert "ports" not in service, f"{name} is published"
            assert service["healthcheck"], name
    assert all(port.startswith("127.0.0.1:") for port in compose["services"]["proxy"]["ports"])


def test_compose_gives_each_role_its_own_login() -> None:
    """No URL with a password stands in the file; the server has the users, and the default one is off."""
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    assert "redis://" not in text
    (compose,) = documents("compose.yaml")
    for role in ("edge", "worker"):
        assert compose["services"][role]["env_file"] == [f"deploy/secrets/{role}.env"]
    assert "/etc/valkey/users.acl" in compose["services"]["valkey"]["command"]
    assert "/deploy/secrets/" in (ROOT / ".gitignore").read_text(encoding="utf-8").split()


def test_the_image_is_not_roots() -> None:
    """The last stage names a user by number, and the entry point is no shell."""
    last = (ROOT / "Dockerfile").read_text(encoding="utf-8").split("\nFROM ")[-1]
    assert re.search(r"^USER [1-9]\d+$", last, re.MULTILINE)
    assert 'ENTRYPOINT ["innkeeper"]' in last


@pytest.mark.parametrize("name", ["valkey", "innkeeper-edge", "innkeeper-worker"])
def test_pods_may_do_little_and_are_given_time(name: str) -> None:
    """As in compose; and a pod's grace is longer than what the role takes to go, its preStop included."""
    pod = PODS[name]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert container["resources"]["limits"]["memory"]
    check_command(container["args"])
    before = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["sleep", "0"])
    takes_s = {"innkeeper-edge": DEFAULT_LIMITS.drain_s + 10, "innkeeper-worker": WORKER_DRAIN_S}.get(name, 0)
    assert pod["terminationGracePeriodSeconds"] > int(before[1]) + takes_s
    if name != "valkey":
        paths = {probe: container[probe]["httpGet"]["path"] for probe in ("readinessProbe", "livenessProbe")}
        assert paths == {"readinessProbe": "/readyz", "livenessProbe": "/healthz"}


def test_a_successor_is_ready_before_anybody_goes() -> None:
    """Deployments surge and never lack a pod; budgets, policies and the autoscaler name pods that there are."""
    labels = {found["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"] for found in MANIFESTS
              if "template" in found["spec"]}  # fmt: skip
    for found in MANIFESTS:
        if found["kind"] == "Deployment":
            assert found["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
        if found["kind"] == "PodDisruptionBudget":
            assert found["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"] in labels
        if found["kind"] == "NetworkPolicy":
            assert found["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/name"] in labels
        if found["kind"] == "HorizontalPodAutoscaler":
            assert found["spec"]["scaleTargetRef"]["name"] == "innkeeper-worker"
            assert found["spec"]["metrics"][0]["pods"]["metric"]["name"] == LAG.name


def test_the_server_is_set_up_as_the_promises_need_it() -> None:
    """In compose and in the manifests alike: on disk before it is answered, nothing evicted, users from the file."""
    (compose,) = documents("compose.yaml")
    for words in (compose["services"]["valkey"]["command"], PODS["valkey"]["containers"][0]["args"]):
        text = shlex.join(map(str, words))
        for part in ("--appendonly yes", "--appendfsync always", "--maxmemory-policy noeviction", "--aclfile"):
            assert part in text
