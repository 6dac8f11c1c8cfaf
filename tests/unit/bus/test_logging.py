"""No line of a worker's log quotes a record."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg

from services.bus.logging import told
from services.bus.ports import BusFailed, Stopped

CONTENT = "ada@example.com"
ROOT = Path(__file__).parents[3]


def logged(statements: str) -> list[dict[str, Any]]:
    """Execute statements in a process that logs as a worker does, and read its lines."""
    preface = (
        "import logging, structlog\n"
        "from services.bus.logging import start_logging\n"
        "start_logging(step='router', worker='router-1')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", preface + statements],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == ""
    return [json.loads(line) for line in done.stderr.splitlines()]


def raised(error: Exception) -> Exception:
    try:
        raise error
    except type(error) as caught:
        return caught


def test_tells_our_own_failures_in_their_words() -> None:
    assert told(raised(Stopped("the head is ahead of the log")))["message"] == "the head is ahead of the log"
    assert told(raised(BusFailed("no answer")))["message"] == "no answer"


def test_tells_a_foreign_failure_by_class_and_place_alone() -> None:
    told_of = told(raised(ValueError(f"not a number: {CONTENT}")))
    assert told_of["class"] == "builtins.ValueError"
    assert CONTENT not in json.dumps(told_of)
    assert any("test_logging.py" in frame for frame in told_of["frames"])


def test_tells_causes_by_the_same_rule() -> None:
    error = BusFailed("no answer")
    error.__cause__ = raised(KeyError(CONTENT))
    assert told(error)["cause"]["class"] == "builtins.KeyError"
    assert CONTENT not in json.dumps(told(error))


def test_tells_no_detail_of_the_database() -> None:
    class Violation(psycopg.errors.UniqueViolation):
        sqlstate = "23505"

    told_of = told(raised(Violation(f"Key (email)=({CONTENT}) already exists.")))
    assert told_of["sqlstate"] == "23505"
    assert CONTENT not in json.dumps(told_of)


def test_tells_why_the_database_could_not_be_reached() -> None:
    assert "refused" in told(raised(psycopg.OperationalError("connection refused")))["message"]


def test_a_chain_of_causes_has_an_end() -> None:
    error: Exception = ValueError()
    for _ in range(50):
        error, cause = ValueError(), error
        error.__cause__ = cause
    assert json.dumps(told(error)).count("ValueError") < 10


def test_lines_are_json_and_name_the_worker() -> None:
    lines = logged(
        "structlog.get_logger('services.bus.pump').info('assigned', partitions={'leads.log': [0]})"
    )
    assert len(lines) == 1
    assert {name: lines[0][name] for name in ("step", "worker", "event", "level", "partitions")} == {
        "step": "router",
        "worker": "router-1",
        "event": "assigned",
        "level": "info",
        "partitions": {"leads.log": [0]},
    }


def test_a_library_that_logs_an_exception_quotes_nothing() -> None:
    lines = logged(
        f"try:\n    raise ValueError('{CONTENT}')\n"
        "except ValueError as error:\n    logging.getLogger('faust.agents').exception('raised: %r', error)\n"
    )
    assert CONTENT not in json.dumps(lines)
    assert lines[0]["error"]["class"] == "builtins.ValueError"


def test_a_line_that_cannot_be_written_is_lost_rather_than_told_with_its_record() -> None:
    assert logged(f"logging.getLogger('faust').warning('%d', '{CONTENT}')") == []


def test_the_chatter_of_libraries_is_left_out() -> None:
    assert (
        logged("logging.getLogger('faust.app').info('starting')\nlogging.getLogger('aiokafka').debug('got')")
        == []
    )


def test_a_line_about_one_lead_has_its_trace_and_no_other_line_has_one() -> None:
    lead_id = "3f276050-d4f1-5f5c-bcc4-f72e1c5a5436"
    about, other = logged(
        "log = structlog.get_logger('services.router')\n"
        f"log.error('promise_broken', lead_id='{lead_id}')\n"
        "log.error('topic rests')\n"
    )
    assert about["trace_id"] == "3f276050d4f15f5cbcc4f72e1c5a5436"
    assert "trace_id" not in other


def test_every_line_that_is_about_one_lead_names_it() -> None:
    """A lead is named by `lead_id` and nothing else, so that the trace is found."""
    aliases = re.compile(r"_?log\.\w+\([^)]*\b(lead|subject|id)=", re.DOTALL)
    found = [path.name for path in (ROOT / "services").rglob("*.py") if aliases.search(path.read_text())]
    assert found == []
