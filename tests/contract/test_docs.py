"""The documentation against the code: whatever it names exists, and whatever exists it names."""

from __future__ import annotations

import ast
import json
import pkgutil
import re
from collections.abc import Iterable, Iterator
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import services
from services.bus.settings import PREFIX, StepSettings
from services.cli.commands import COMMANDS
from services.contract.codec import SCHEMAS, stored_schemas
from services.contract.entries import Entry
from services.contract.events import (
    AuctionClosed,
    AuctionEnd,
    AuctionOpened,
    BidOutcome,
    Disposition,
    FailureReason,
    LeadSold,
    LeadUpgraded,
    LimitReached,
    MoneyKind,
    MoneyMoved,
    OfferMade,
    Outcome,
    RefusalReason,
    RejectionReason,
    ReturnApproved,
    ReturnRefusal,
    VoidReason,
)
from services.contract.topics import TopicDeclaration, declarations
from services.intake.domain import DeclineReason
from services.market import buyers, parsing, plans, stages
from services.router.messages import react
from tests.support.records import of_json
from tests.support.telling import validators

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), SCHEMAS / "README.md"], key=lambda page: str(page)
)
DECISIONS = sorted(ROOT.glob("docs/decisions/*.md"))

_FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"^```\w*\n(.*?)^```|`([^`\n]+)`", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_KEPT = {"604800000": "7 days", "2592000000": "30 days", "-1": "for good"}


def _page(name: str) -> str:
    return (ROOT / name).read_text()


def _code(text: str) -> str:
    """Keep what stands in code blocks and code spans, a line each."""
    return "\n".join(block or span for block, span in _CODE.findall(text))


def _unnamed(names: Iterable[str], text: str) -> list[str]:
    """List the names that stand nowhere in the text as words of their own."""
    return [
        name for name in names if not re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-]|\.\w)", text) and name
    ]


by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


# Every page.


@by_page
def test_every_link_leads_to_a_file(page: Path) -> None:
    links = [link.partition("#")[0] for link in _LINK.findall(_FENCED.sub("", page.read_text()))]
    local = [link for link in links if link and "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


@by_page
def test_every_page_has_a_title_and_nothing_left_of_a_merge(page: Path) -> None:
    lines = page.read_text().splitlines()
    assert [line for line in lines[:1] if line.startswith("# ")]
    assert [line for line in lines if line.startswith(("<<<<<<<", ">>>>>>>"))] == []


@by_page
def test_no_page_names_a_place_of_one_machine(page: Path) -> None:
    assert re.findall(r"(?<![\w.<>])/(?:home|root|Users|tmp)/\S*", page.read_text()) == []


@by_page
def test_every_make_target_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", _page("Makefile"), re.MULTILINE))
    named = set(re.findall(r"(?<![\w-])make ([a-z]+(?:-[a-z]+)*)", _code(page.read_text())))
    assert named <= targets


@by_page
def test_every_test_that_is_named_exists(page: Path) -> None:
    named = set(re.findall(r"\b((?:tests|bench)/[\w/]+\.py)::(\w+)", page.read_text()))
    assert [f"{file}::{name}" for file, name in sorted(named) if name not in _tests_in(ROOT / file)] == []


@by_page
def test_every_path_of_the_repository_that_is_named_exists(page: Path) -> None:
    """Paths in code, such as `services/router/step.py`; those with a placeholder are left out."""
    roots = "services|schemas|tests|deploy|docs|examples|bench"
    named = set(re.findall(rf"(?<![\w./-])((?:{roots})/[\w./-]+)", _code(page.read_text())))
    paths = {path.rstrip("./") for path in named if not path.endswith(("/-", "-"))}
    assert [
        path for path in sorted(paths) if not (ROOT / path).exists() and not _is_pattern(page, path)
    ] == []


@by_page
def test_every_command_that_is_named_exists(page: Path) -> None:
    for group, name in re.findall(r"(?<![\w./-])gavel ([a-z]+)(?: ([a-z]+))?", _code(page.read_text())):
        commands = _commands()
        assert group in commands, f"gavel {group}"
        assert not name or not commands[group] or name in commands[group], f"gavel {group} {name}"


def test_guarantees_name_tests() -> None:
    """A guarantee without a test is a wish."""
    sections = re.split(r"^## (?=[0-9])", _page("docs/guarantees.md"), flags=re.MULTILINE)[1:]
    assert len(sections) == 7
    assert all(re.search(r"tests/\w+/[\w/]*\w+\.py::test_\w+", section) for section in sections)


def _tests_in(file: Path) -> set[str]:
    if not file.exists():
        return set()
    return {node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef)}


def _is_pattern(page: Path, path: str) -> bool:
    """Tell whether the page goes on behind the path with a placeholder, as in `services/<step>/migrations`."""
    return bool(re.search(re.escape(path) + r"/?[<*{]", page.read_text()))


# Contract: records, topics, rules of the protocol.


def test_every_record_type_is_named() -> None:
    text = _page("docs/events.md") + _page("docs/architecture.md")
    assert _unnamed({schema.type for schema in stored_schemas()}, text) == []


@pytest.mark.parametrize("topic", declarations(), ids=lambda topic: topic.name)
def test_architecture_describes_every_topic_as_it_is_declared(topic: TopicDeclaration) -> None:
    (row,) = [
        line for line in _page("docs/architecture.md").splitlines() if line.startswith(f"| `{topic.name}` |")
    ]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:3] == [str(topic.partitions), topic.key.replace("_", " ")]
    assert cells[4] == _KEPT[dict(topic.config)["retention.ms"]]
    assert (
        _unnamed([name for name in topic.records if ":" not in name and len(topic.records) < 10], row) == []
    )
    assert (cells[5] == "none") == (topic.personal_data == "none")


def test_every_rule_that_the_code_cites_is_told() -> None:
    cited = {
        int(number)
        for file in (ROOT / "services").rglob("*.py")
        for found in re.findall(r"\brules? ((?:[0-9]+(?:, | and | to |-)?)+)\)", file.read_text())
        for number in re.findall(r"[0-9]+", found)
    }
    told = set(map(int, re.findall(r"^\| ([0-9]+) \|", _page("docs/protocol.md"), re.MULTILINE)))
    assert cited
    assert cited <= told


# Operations: settings, environment, metrics, commands.


def _settings_models() -> Iterator[type[StepSettings]]:
    for module in pkgutil.walk_packages(services.__path__, "services."):
        if module.name.endswith((".settings", ".surroundings", "_cli")):
            import_module(module.name)
    yield StepSettings
    waiting = [StepSettings]
    while waiting:
        found = waiting.pop().__subclasses__()
        waiting += found
        yield from found


def test_every_setting_is_told_with_its_default() -> None:
    page = _page("docs/operations.md")
    for model in _settings_models():
        for name, field in model.model_fields.items():
            variable = f"{PREFIX}{name.upper()}"
            rows = [line for line in page.splitlines() if line.startswith(f"| `{variable}` |")]
            assert len(rows) == 1, variable
            if isinstance(field.default, int):
                told = re.findall(r"[0-9]+", rows[0].split("|")[2])
                assert str(field.default) in told, f"{variable} of {model.__name__}"


def test_every_variable_of_the_environment_is_told() -> None:
    files = [
        file for folder in ("services", "deploy", "tests/support") for file in (ROOT / folder).rglob("*.py")
    ]
    named = {
        name for file in files for name in re.findall(r"[\"']?(GAVEL_[A-Z][A-Z_]*[A-Z])\b", file.read_text())
    }
    assert _unnamed(named, _page("docs/operations.md")) == []


def test_every_metric_is_told() -> None:
    named = {
        name
        for file in (ROOT / "services").rglob("metrics.py")
        for name in re.findall(r"\"(gavel_\w+)\"", file.read_text())
    }
    assert named
    assert _unnamed(named, _page("docs/operations.md")) == []


def test_every_command_is_told() -> None:
    page = _page("docs/operations.md")
    told = [
        f"gavel {group} {name}".strip() for group, names in _commands().items() for name in names or ("",)
    ]
    assert [command for command in told if f"`{command}`" not in page] == []


def _commands() -> dict[str, tuple[str, ...]]:
    """List the groups of commands with their commands; a command without a group has none."""
    return {
        command.name: tuple(map(_name_of, command.load().registered_commands)) if command.is_group else ()
        for command in COMMANDS
    }


def _name_of(command: Any) -> str:
    return str(command.name or command.callback.__name__.replace("_", "-"))


def test_every_message_that_operators_may_see_is_one_of_the_code() -> None:
    """The first cells of the tables on alarms and on workers that stop; `...` and N stand for what varies."""
    page = _page("docs/operations.md")
    tables = page[page.index("**Logs**") : page.index("## The log")]
    told = re.findall(r"^\| `([^`]+)` \|", tables, re.MULTILINE)
    assert len(told) > 10
    fragments = [part.strip() for message in told for part in re.split(r"\.\.\.|\bN\b", message)]
    said = "\n".join(_texts_of_the_code())
    assert [fragment for fragment in fragments if fragment and fragment not in said] == []


def _texts_of_the_code() -> Iterator[str]:
    for file in (ROOT / "services").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


# Market and outsiders.


def test_every_key_of_the_market_file_is_told() -> None:
    keys = {
        key
        for module in (buyers, parsing, plans, stages)
        for name, words in vars(module).items()
        if name.endswith(("_KEYS", "_WORDS")) or name == "SECTIONS"
        for key in words
    }
    assert {"sales_max", "caps", "buyers", "ping_post"} <= keys
    assert _unnamed({f"`{key}`" for key in keys}, _page("docs/market.md")) == []


@pytest.mark.parametrize(
    "words",
    [
        *(DeclineReason, RefusalReason, RejectionReason, FailureReason, Disposition, Outcome),
        *(AuctionEnd, BidOutcome, VoidReason, ReturnRefusal, MoneyKind),
    ],
)
def test_every_word_that_outsiders_are_told_is_explained(words: type[StrEnum]) -> None:
    assert _unnamed({f"`{word}`" for word in words}, _page("docs/outsiders.md")) == []


def test_every_example_for_outsiders_is_one_of_ours() -> None:
    """It has the keys of what the router sends, and fits its published schema where there is one."""
    shown = list(_records_shown(_page("docs/outsiders.md")))
    sent = {body["type"]: body for body in _bodies_sent()}
    assert {record["type"] for record in shown} == sent.keys()
    for record in shown:
        kind = record["type"]
        validators()[kind].validate(record)
        if kind == "lead":
            assert record.pop("lead").keys() == {"contact", "details"}, "which the vault has, and not the log"
        if kind != "receipt" or "log" in record:
            assert _keys_of(record) == _keys_of(sent[kind]), kind


@pytest.mark.parametrize(("topic", "schema"), [("leads", "submission"), ("answers", "answer")])
def test_every_example_that_outsiders_send_fits_its_schema(topic: str, schema: str) -> None:
    sent = re.findall(rf"echo '(.+?)' \\\n.* -t \w+\.\w+\.{topic}$", _page("docs/outsiders.md"), re.MULTILINE)
    assert sent
    for record in sent:
        _validator(schema).validate(json.loads(record))


def _bodies_sent() -> Iterator[dict[str, Any]]:
    """Make the router's messages of the stored examples of what buyers and sources hear of."""
    sales = (LeadSold, OfferMade, LeadUpgraded, AuctionOpened, AuctionClosed)
    for kind in (*sales, ReturnApproved, LimitReached, MoneyMoved):
        event = of_json(kind, json.loads((SCHEMAS / "examples" / f"{kind.__name__}.json").read_text()))
        entry = of_json(Entry, json.loads((SCHEMAS / "examples" / "Entry.json").read_text()))
        yield from (outgoing.body for outgoing in react(entry, [event], 0))


def _keys_of(value: Any) -> Any:
    """Leave of a record its keys; a list and the fields of a lead are the lead's own."""
    if not isinstance(value, dict):
        return None
    return {key: None if key == "fields" else _keys_of(each) for key, each in value.items()}


def _records_shown(page: str) -> Iterator[Any]:
    decoder = json.JSONDecoder()
    for block in re.findall(r"^```json\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        text = block.strip()
        while text:
            record, end = decoder.raw_decode(text)
            yield record
            text = text[end:].strip()


def _schema_file(name: str) -> Path:
    return SCHEMAS / "json" / f"{name}.schema.json"


def _validator(name: str) -> Draft202012Validator:
    schema = json.loads(_schema_file(name).read_text())
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


# Promises and decisions.


def test_every_promise_in_the_database_is_told() -> None:
    sql = "".join(file.read_text() for file in sorted((ROOT / "services/router/migrations").glob("*.sql")))
    sales = re.search(r"create table router\.sales \((.*?)^\);", sql, re.DOTALL | re.MULTILINE)
    assert sales is not None
    # This one promises nothing by itself: it is what the foreign key refers to.
    promises = set(re.findall(r"constraint (\w+)", sales[1])) - {"first_sale_terms"}
    assert _unnamed(promises, _page("docs/guarantees.md")) == []


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_every_decision_has_its_parts(page: Path) -> None:
    text = page.read_text()
    number = int(page.name[:4])
    assert text.startswith(f"# {number}. ")
    assert re.search(r"^Status: (proposed|accepted|superseded by \[)", text, re.MULTILINE)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences", "Rejected"]


def test_decisions_are_counted_without_gaps() -> None:
    assert [int(page.name[:4]) for page in DECISIONS] == list(range(1, len(DECISIONS) + 1))
