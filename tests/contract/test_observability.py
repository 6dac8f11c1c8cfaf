"""Alerts and dashboards name metrics and labels that exist, and every alert says where its runbook is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from services.audit.metrics import AuditMetrics
from services.billing.metrics import BillingMetrics
from services.bus.metrics import HostMetrics, ReaderMetrics
from services.cli.doctor_kafka import AT_WORK
from services.gateway.metrics import GatewayMetrics
from services.intake.metrics import IntakeMetrics
from services.resale.metrics import ResaleMetrics
from services.router.metrics import RouterMetrics

ROOT = Path(__file__).parents[2]
OBSERVABILITY = ROOT / "deploy" / "observability"
RULES = OBSERVABILITY / "prometheus" / "alerts.yml"
STEPS = {path.parent.name for path in (ROOT / "services").glob("*/__main__.py")} - {"cli"}
OF_EVERY_TARGET = {"instance", "job"}
SAMPLES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}

SELECTOR = re.compile(r"\b(gavel_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"([^\"]*)\"")
GROUPED = re.compile(r"\bby\s*\(([^)]*)\)")
SHOWN = re.compile(r"\$labels\.(\w+)|\{\{(\w+)\}\}")
DURATION = re.compile(r"([0-9]+(ms|[smhdwy]))+")


def exported() -> dict[str, set[str]]:
    """Every sample that a page of Gavel's can have, with its labels."""
    registries = [HostMetrics("router").registry, CollectorRegistry()]
    for kind in (
        AuditMetrics,
        BillingMetrics,
        GatewayMetrics,
        IntakeMetrics,
        ReaderMetrics,
        ResaleMetrics,
        RouterMetrics,
    ):
        kind(registries[-1])
    found: dict[str, set[str]] = {}
    for registry in registries:
        for collector in registry._collector_to_names:
            for family in collector.describe():  # type: ignore[attr-defined]  # all of ours are described
                labels = set(getattr(collector, "_labelnames", ()))
                for suffix in SAMPLES[family.type]:
                    found[family.name + suffix] = labels | ({"le"} if suffix == "_bucket" else set())
    return found


EXPORTED = exported()


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression, and what is shown of its result."""

    where: str
    expression: str
    shown: str


def complaints(query: Query) -> list[str]:
    """Say what the query names that does not exist."""
    found: list[str] = []
    known = set(OF_EVERY_TARGET)
    for name, matchers in SELECTOR.findall(query.expression):
        labels = EXPORTED.get(name)
        if labels is None:
            found.append(f"no metric {name}")
            continue
        known |= labels
        for label, value in MATCHER.findall(matchers):
            if label not in labels | OF_EVERY_TARGET:
                found.append(f"{name} has no label {label}")
            if label == "step" and not set(value.split("|")) <= STEPS:
                found.append(f"no step {value}")
    grouped = [{label.strip() for label in by.split(",")} for by in GROUPED.findall(query.expression)]
    found += [f"no label {label} to group by" for labels in grouped for label in sorted(labels - known)]
    kept = set().union(*grouped) if grouped else known
    shown = {alert or legend for alert, legend in SHOWN.findall(query.shown)}
    return found + [f"the result has no label {label}" for label in sorted(shown - kept)]


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def dashboards() -> list[Path]:
    return sorted((OBSERVABILITY / "grafana" / "dashboards").glob("*.json"))


def queries() -> Iterator[Query]:
    for rule in alerts():
        yield Query(rule["alert"], rule["expr"], rule["annotations"]["summary"])
    for path in dashboards():
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                yield Query(f"{path.name}: {panel['title']}", target["expr"], target["legendFormat"])


@pytest.mark.parametrize("query", queries(), ids=lambda query: query.where)
def test_every_metric_and_label_that_is_asked_for_exists(query: Query) -> None:
    assert SELECTOR.search(query.expression) or query.expression.startswith("up{")
    assert complaints(query) == []


@pytest.mark.parametrize(
    ("expression", "shown", "complaint"),
    [
        ("gavel_bus_lag_minutes > 1", "", "no metric gavel_bus_lag_minutes"),
        ("rate(gavel_bus_records[1m])", "", "no metric gavel_bus_records"),
        ("rate(gavel_bus_handle_seconds[1m])", "", "no metric gavel_bus_handle_seconds"),
        ('gavel_router_closes_total{result="sold"}', "", "gavel_router_closes_total has no label result"),
        ('gavel_bus_alive{step="intake|broker"}', "", "no step intake|broker"),
        ("sum by (buyer) (gavel_router_sales_total)", "", "no label buyer to group by"),
        ("sum by (step) (gavel_bus_alive)", "{{ $labels.instance }}", "the result has no label instance"),
    ],
)
def test_planted_mistake_is_complained_of(expression: str, shown: str, complaint: str) -> None:
    assert complaints(Query("planted", expression, shown)) == [complaint]


def test_rules_have_the_shape_that_prometheus_wants() -> None:
    document = yaml.safe_load(RULES.read_text())
    assert document.keys() == {"groups"}
    names = [group["name"] for group in document["groups"]]
    assert len(names) == len(set(names))
    assert all(group.keys() == {"name", "rules"} for group in document["groups"])
    for rule in alerts():
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}, rule["alert"]
        assert rule["expr"].count("(") == rule["expr"].count(")"), rule["alert"]
        assert DURATION.fullmatch(rule.get("for", "0s")), rule["alert"]
        assert rule["labels"]["severity"] in {"page", "ticket", "info"}
        assert rule["annotations"].keys() == {"summary", "runbook"}
        assert all(
            isinstance(text, str) for text in (*rule["labels"].values(), *rule["annotations"].values())
        )


def test_every_step_that_a_deployment_needs_is_missed_when_it_is_gone() -> None:
    """A worker that has ended is forgotten by whoever finds the targets, and its metrics with it."""
    (missing,) = [rule["expr"] for rule in alerts() if rule["alert"] == "GavelStepMissing"]
    assert set(re.findall(r'absent\(gavel_bus_alive\{step="(\w+)"\}\)', missing)) == set(AT_WORK)


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    runbooks = set(re.findall(r"^### (Gavel\w+)$", page, re.MULTILINE))
    names = [rule["alert"] for rule in alerts()]
    assert len(names) == len(set(names))
    assert runbooks == set(names)
    for rule in alerts():
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"


def test_dashboards_are_provisioned_from_the_data_source_that_they_ask() -> None:
    provisioning = OBSERVABILITY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert yaml.safe_load((provisioning / "dashboards" / "gavel.yml").read_text())["providers"]
    boards = [json.loads(path.read_text()) for path in dashboards()]
    assert len({board["uid"] for board in boards}) == len(boards) > 0
    for board in boards:
        panels = board["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        assert all(panel["datasource"]["uid"] == source["uid"] for panel in panels)


def test_no_label_can_name_a_lead_or_a_person() -> None:
    allowed = {
        "again", "answer", "at_rest", "change", "currency", "end", "guarantee", "le", "limit", "mode", "outcome",
        "reason", "route", "status", "step", "taken",
    }  # fmt: skip
    assert set().union(*EXPORTED.values()) <= allowed


def test_rules_are_loaded_where_prometheus_looks_for_them() -> None:
    config = yaml.safe_load((OBSERVABILITY / "prometheus" / "prometheus.yml").read_text())
    assert [RULES.parent / name for name in config["rule_files"]] == [RULES]
    (job,) = config["scrape_configs"]
    assert f'job="{job["job_name"]}"' in RULES.read_text()
