"""How a worker writes its log: one JSON object a line on stderr, for people's tools to read.

Nothing that a record held may get into a line: an exception is told by its class and where it was raised, and only
our own kinds, whose messages are made without record contents, by their words.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any

import psycopg
import structlog
from confluent_kafka import KafkaException

from services.bus.ports import BusFailed, PassingFault, Stopped
from services.contract.ids import trace_id_of

_TOLD_IN_WORDS: tuple[type[BaseException], ...] = (BusFailed, PassingFault, Stopped, KafkaException, OSError)
_FRAMES_MAX = 12
_CAUSES_MAX = 5


def start_logging(*, step: str, worker: str, level: int = logging.INFO) -> None:
    """Send every log line of the process, ours and the libraries', to stderr as JSON; libraries from WARNING on."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        _name_worker(step, worker),
        _name_trace,
        _tell_exception,
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_name_exceptions_only)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    # A line that can't be written is lost: Python would print it with the exception and all that this quotes.
    logging.raiseExceptions = False
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("services").setLevel(level)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def told(error: BaseException, *, causes: int = _CAUSES_MAX) -> dict[str, Any]:
    """Tell an exception without a word of any record: class, place, database code, and `causes` of its causes."""
    told_of: dict[str, Any] = {"class": f"{type(error).__module__}.{type(error).__qualname__}"}
    if isinstance(error, _TOLD_IN_WORDS):
        told_of["message"] = str(error)
    if isinstance(error, psycopg.Error):
        told_of |= _told_of_database(error)
    told_of["frames"] = _frames(error)
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and causes:
        told_of["cause"] = told(cause, causes=causes - 1)
    return told_of


def _told_of_database(error: psycopg.Error) -> dict[str, str]:
    """Name what the database named; its message and detail may quote a row. Without a code it never saw a row."""
    if error.sqlstate is None:
        return {"message": str(error)} if isinstance(error, psycopg.OperationalError) else {}
    named = {
        "sqlstate": error.sqlstate,
        "constraint": error.diag.constraint_name,
        "table": error.diag.table_name,
        "column": error.diag.column_name,
    }
    return {name: value for name, value in named.items() if value is not None}


def _frames(error: BaseException) -> list[str]:
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES_MAX:]
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]


def _name_exceptions_only(line: logging.LogRecord) -> bool:
    """Libraries put exceptions into their messages: leave their class."""
    if isinstance(line.args, tuple):
        line.args = tuple(
            type(value).__qualname__ if isinstance(value, BaseException) else value for value in line.args
        )
    return True


def _name_worker(step: str, worker: str) -> structlog.types.Processor:
    def name(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["step"], event["worker"] = step, worker
        return event

    return name


def _name_trace(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Put the trace into each line that concerns one lead."""
    lead_id = event.get("lead_id")
    if lead_id is not None:
        event["trace_id"] = trace_id_of(lead_id)
    return event


def _tell_exception(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    found = event.pop("exc_info", None)
    error = sys.exc_info()[1] if found is True else found[1] if isinstance(found, tuple) else found
    if isinstance(error, BaseException):
        event["error"] = told(error)
    return event
