"""The router's one connection to PostgreSQL, its failures told in the router's words."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

import orjson
import psycopg
from psycopg import errors
from psycopg.rows import TupleRow

from services.bus.arrays import adapt
from services.bus.database import Session, said
from services.bus.ports import Stopped
from services.router.faults import StartAgain, TryAgain
from services.router.ports import CounterRow, LimitsShort, Overtaken, PromiseBroken

_LEAD_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PASSING = (errors.DeadlockDetected, errors.LockNotAvailable, errors.SerializationFailure)
_OVERTAKEN = "GV001"
"""What `router.require_moved` raises."""

_LIMITS_SHORT = "GV002"
"""What `router.draw_on_counters` raises, with the counters in its detail."""

_T = TypeVar("_T")

PgConnection = psycopg.Connection[TupleRow]


class Database:
    """Does work on a connection; for one thread."""

    def __init__(self, connect: Callable[[], PgConnection]) -> None:
        """Take how to connect with the router's role and timeouts, autocommit on."""
        self._session = Session(connect, on_opened=adapt)

    def do(self, work: Callable[[PgConnection], _T]) -> _T:
        """Do `work`, and say of a failure what it means for what was asked.

        Raise `Overtaken`, `LimitsShort` or `TryAgain` (nothing was done), `PromiseBroken` (nothing was done, nor may it
        be), `StartAgain` (only the database knows what was done; protocol.md, rule 4) or `Stopped`.
        """
        try:
            return work(self._session.opened())
        except _PASSING as error:
            raise TryAgain(said(error)) from error
        except errors.IntegrityError as error:
            raise _broken_promise(error) from error
        except psycopg.Error as error:
            if error.sqlstate == _OVERTAKEN:
                raise Overtaken(
                    [int(part) for part in (error.diag.message_detail or "").split(",")]
                ) from error
            if error.sqlstate == _LIMITS_SHORT:
                rows = orjson.loads(error.diag.message_detail or "[]")
                raise LimitsShort([CounterRow(*row) for row in rows]) from error
            if not isinstance(error, psycopg.OperationalError) and not self._session.is_lost():
                raise
            self.close()
            raise StartAgain(said(error)) from error

    def close(self) -> None:
        """Close the connection; another is opened when there is work again."""
        self._session.close()


def _broken_promise(error: errors.IntegrityError) -> Exception:
    """Find which lead's decision was refused; a violation that names none is a defect of ours."""
    found = _LEAD_ID.search(f"{error.diag.message_detail or ''} {error.diag.context or ''}")
    constraint = error.diag.constraint_name or error.diag.sqlstate or "unknown"
    if found is None:
        return Stopped(f"constraint {constraint} refused a commit and names no lead")
    return PromiseBroken(found[0], constraint)
