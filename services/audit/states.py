"""What the auditor keeps of each lead: a few facts, in memory while they are needed and in a SQLite file else.

It must not know what the facts mean. A state is written and read again by `marshal`, the fastest that Python has; the
file is this machine's scratch paper and of no use to another Python.
"""

from __future__ import annotations

import marshal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol

from services.audit.lead_state import LeadState, from_plain, is_settled, plain

KEPT_MAX: Final = 100_000
"""So many leads are held in memory by default: about 300 MB."""

_EVICTED_AT_ONCE: Final = 16_384
_FORMAT: Final = 2
_WRITER: Final = f"{_FORMAT}:{sys.implementation.cache_tag}:{marshal.version}".encode()

_SCHEMA: Final = """
create table if not exists lead_states (
    lead_id text primary key, settled integer not null, state blob not null
) without rowid;
create index if not exists unsettled on lead_states (lead_id) where settled = 0;
create table if not exists kept (name text primary key, value blob not null) without rowid;
"""


class LeadStates(Protocol):
    """The states of all leads, by lead id. What `of` gives is the caller's to change, until it asks for another."""

    def of(self, lead_id: str) -> LeadState | None:
        """Find a lead's state; None where nothing is known of it."""
        ...

    def begin(self, lead_id: str, state: LeadState) -> LeadState:
        """Take in the state of a lead of which nothing was known, and give it back."""
        ...

    def all(self) -> Iterator[tuple[str, LeadState]]:
        """Give every lead and its state, each once. What is changed meanwhile is not kept."""
        ...

    def unsettled(self) -> Iterator[tuple[str, LeadState]]:
        """Give those of which something is still to come (`lead_state.is_settled`), as `all` does."""
        ...


class MemoryLeadStates:
    """All states in memory: for simulations and small runs."""

    def __init__(self) -> None:
        """Begin with no lead known."""
        self._states: dict[str, LeadState] = {}
        self.of: Callable[[str], LeadState | None] = self._states.get

    def begin(self, lead_id: str, state: LeadState) -> LeadState:
        """Take in a new lead's state."""
        self._states[lead_id] = state
        return state

    def all(self) -> Iterator[tuple[str, LeadState]]:
        """Give every lead's state."""
        yield from self._states.items()

    def unsettled(self) -> Iterator[tuple[str, LeadState]]:
        """Give the states of which something is still to come."""
        return ((lead_id, state) for lead_id, state in self._states.items() if not is_settled(state))


class SqliteLeadStates:
    """States over a SQLite file, the latest `kept_max` of them in memory.

    Nothing of it is in the file for good before `commit`, which writes all of it together with what the caller wants
    kept beside it (its positions), in one transaction: after a crash the file is as of the last `commit`.
    """

    def __init__(self, path: Path | str, *, kept_max: int = KEPT_MAX) -> None:
        """Open the file, or make it; `path` may be ':memory:'. A file of another Python is begun anew."""
        self._kept_max = max(kept_max, 1)
        self._states: dict[str, LeadState] = {}
        # Those that may be other than the file has them; the others need no writing, however many are in memory.
        self._touched: set[str] = set()
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.executescript(
            "pragma journal_mode = wal; pragma synchronous = normal; pragma cache_size = -65536;"
            "pragma temp_store = memory;" + _SCHEMA
        )
        if self._one("select value from kept where name = 'writer'") != _WRITER:
            self._connection.executescript("delete from lead_states; delete from kept;")
            self._connection.execute("insert into kept values ('writer', ?)", (_WRITER,))
        self._connection.execute("begin immediate")
        self._is_empty = self._one("select 1 from lead_states limit 1") is None

    def of(self, lead_id: str) -> LeadState | None:
        """Find a lead's state, in memory or in the file."""
        state = self._states.get(lead_id)
        if state is not None:
            self._touched.add(lead_id)
            return state
        if self._is_empty:
            return None
        blob = self._one("select state from lead_states where lead_id = ?", lead_id)
        return None if blob is None else self.begin(lead_id, from_plain(marshal.loads(blob)))

    def begin(self, lead_id: str, state: LeadState) -> LeadState:
        """Take in a state; those that were taken in first move to the file when there are too many."""
        states = self._states
        if len(states) >= self._kept_max + _EVICTED_AT_ONCE:
            self._write(list(islice(states, _EVICTED_AT_ONCE)), forget=True)
        states[lead_id] = state
        self._touched.add(lead_id)
        return state

    def all(self) -> Iterator[tuple[str, LeadState]]:
        """Give every lead's state by lead id, as the file has it once memory is written."""
        return self._read("select lead_id, state from lead_states order by lead_id")

    def unsettled(self) -> Iterator[tuple[str, LeadState]]:
        """Give the states of which something is still to come, by lead id."""
        return self._read("select lead_id, state from lead_states where settled = 0 order by lead_id")

    def _read(self, statement: str) -> Iterator[tuple[str, LeadState]]:
        self._write(list(self._states), forget=False)
        for lead_id, blob in self._connection.cursor().execute(statement):
            yield lead_id, from_plain(marshal.loads(blob))

    def kept(self, name: str) -> bytes | None:
        """Give what was kept under this name by the last `commit`."""
        value = self._one("select value from kept where name = ?", name)
        return None if value is None else bytes(value)

    def commit(self, **kept: bytes) -> None:
        """Write everything to the file, with what is to be kept beside it, all or nothing."""
        self._write(list(self._states), forget=False)
        self._connection.executemany("insert or replace into kept values (?, ?)", list(kept.items()))
        self._connection.execute("commit")
        self._connection.execute("begin immediate")

    def close(self) -> None:
        """Let the file go as of the last `commit`."""
        self._connection.execute("rollback")
        self._connection.close()

    def _write(self, lead_ids: list[str], *, forget: bool) -> None:
        """Sorted, so that neighbours in the file are written together."""
        states, dumps = self._states, marshal.dumps
        written = self._touched.intersection(lead_ids)
        rows = [
            (lead_id, int(is_settled(state)), dumps(plain(state)))
            for lead_id, state in ((lead_id, states[lead_id]) for lead_id in sorted(written))
        ]
        self._connection.executemany("insert or replace into lead_states values (?, ?, ?)", rows)
        self._touched -= written
        self._is_empty = self._is_empty and not rows
        if forget:
            for lead_id in lead_ids:
                del states[lead_id]

    def _one(self, statement: str, *arguments: str) -> Any:
        row = self._connection.execute(statement, arguments).fetchone()
        return None if row is None else row[0]
