"""Board, alert rules, runbook and the page of metrics name what is exported, and each other."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from innkeeper.ops.families import COMMON, Family
from innkeeper_edge.metrics import FAMILIES as EDGE
from innkeeper_workers.jobs.metrics import FAMILIES as JOBS
from innkeeper_workers.metrics import FAMILIES as WORKER

ROOT = Path(__file__).parents[3]
FAMILIES: dict[str, Family] = {family.name: family for family in (*COMMON, *EDGE, *WORKER, *JOBS)}
BOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/innkeeper.json").read_text("utf-8"))
RULES_FILE = ROOT / "deploy/prometheus/alerts.yml"
RULES: dict[str, Any] = YAML(typ="safe").load(RULES_FILE.read_text("utf-8"))
ALERTS: list[dict[str, Any]] = [rule for group in RULES["groups"] for rule in group["rules"]]
RUNBOOK = (ROOT / "docs/runbook.md").read_text("utf-8")
PAGE = (ROOT / "docs/observability.md").read_text("utf-8")

METRIC = re.compile(r"\b(innkeeper_[a-z_]+)\b(?:\{([^}]*)\})?")
BY_PROMETHEUS = {"instance", "job", "le"}


def family_of(name: str) -> Family:
    """Return the family that a sample's name belongs to."""
    if name in FAMILIES:
        return FAMILIES[name]
    family = FAMILIES[re.sub(r"_(bucket|sum|count)$", "", name)]
    assert family.kind == "histogram", name
    return family


def expressions() -> Iterator[str]:
    """Return each query of the board and the rules."""
    for panel in BOARD["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]
    for rule in ALERTS:
        yield rule["expr"]


def test_there_are_no_two_metrics_of_a_name() -> None:
    """Names are as Prometheus wants them: counters end in _total, and no others do."""
    assert len(FAMILIES) == sum(map(len, (COMMON, EDGE, WORKER, JOBS)))
    for family in FAMILIES.values():
        assert family.name.endswith("_total") == (family.kind == "counter")
        assert "room" not in family.labels


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_queries_are_about_what_is_exported(expression: str) -> None:
    """Each metric is exported, has the labels that it is asked by, and is asked as its type allows."""
    assert expression.count("(") == expression.count(")")
    found = METRIC.findall(expression)
    assert found or "process_" in expression or "up{" in expression
    labels: set[str] = set(BY_PROMETHEUS)
    for name, matchers in found:
        family = family_of(name)
        labels |= set(family.labels)
        assert set(re.findall(r"([a-z_]+)[=!~]+\"", matchers)) <= {*family.labels, *BY_PROMETHEUS}
        if family.kind == "counter" and "increase(" not in expression:
            assert f"rate({name}" in expression
    for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression):
        assert {label.strip() for label in group.split(",")} <= labels


def test_every_metric_is_of_use() -> None:
    """The board or a rule asks for each."""
    shown = {family_of(name).name for name, _ in METRIC.findall("\n".join(expressions()))}
    assert set(FAMILIES) - shown == set()


def test_the_page_lists_every_metric() -> None:
    """The tables say of each metric what its family says, and there is no other row."""
    rows = set(re.findall(r"^\| `(innkeeper_\w+)` \| (\w+) \| (.*?) \| (.*) \|$", PAGE, re.MULTILINE))
    expected = {
        (f.name, f.kind, ", ".join(f"`{label}`" for label in f.labels) or "\u2013", f.help) for f in FAMILIES.values()
    }
    assert rows == expected


@pytest.mark.parametrize("text", [RUNBOOK, PAGE], ids=["runbook", "page"])
def test_the_pages_name_no_other_metric(text: str) -> None:
    """What looks like a metric in the text is one."""
    for name, _ in METRIC.findall(text):
        family_of(name)


def test_every_alert_has_its_section() -> None:
    """The runbook has a section for each alert, with all its parts, and for nothing else."""
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", RUNBOOK, re.MULTILINE | re.DOTALL))
    assert sorted(sections) == sorted(rule["alert"] for rule in ALERTS)
    for name, text in sections.items():
        for part in ("- **Means:** ", "- **How bad:** ", "- **Look at:** ", "```sh\n"):
            assert part in text, (name, part)


def test_what_is_looked_for_in_logs_is_written_there() -> None:
    """Each text that the runbook greps for in a log of ours stands in the source of a message."""
    source = "".join(
        file.read_text("utf-8") for folder in ("edge", "workers", "shared") for file in (ROOT / folder).rglob("*.py")
    )
    greps = re.findall(r"^grep (?:-\S+ )*'([^']+)' (?:WORKER|EDGE|JOBS)\.log", RUNBOOK, re.MULTILINE)
    assert greps
    for phrase in "|".join(greps).split("|"):
        assert phrase.rstrip("$") in source, phrase


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_rules_are_whole(rule: dict[str, Any]) -> None:
    """A rule has an expression, a severity, a summary and the place in the runbook."""
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"Innkeeper[A-Z]\w+", rule["alert"])
    assert rule["expr"].strip()
    assert re.fullmatch(r"[1-9]\d*[smh]", rule.get("for", "1s"))
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"


def test_the_board_is_one_that_grafana_takes() -> None:
    """Panels have ids of their own, lie beside each other, and ask the data source that was chosen."""
    panels = BOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert [panel["title"] for panel in panels if panel["type"] == "row"] == [
        "Overview", "Edges", "Workers", "Latencies", "Failures",
    ]  # fmt: skip
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells
        for target in panel.get("targets", ()):
            assert target["datasource"]["uid"] == "${datasource}"


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_promtool_takes_the_rules() -> None:
    """Prometheus itself reads the rules and the example of a configuration."""
    for kind, file in (("rules", RULES_FILE), ("config", RULES_FILE.with_name("prometheus.yml"))):
        checked = subprocess.run(["promtool", "check", kind, file], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stdout + checked.stderr
