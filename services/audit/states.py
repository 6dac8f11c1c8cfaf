"""What the auditor keeps of each lead: a few facts, in memory while they are needed and in a SQLite file else.

It must not know what the facts mean. A state is written and read again by `marshal`, the fastest that Python has; the
file is this machine's scratch paper and of no use to another Python.
"""

from __future__ import annotations

import marshal
import sqlite3
import struct
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol

from services.audit.lead_state import (
    LeadState,
    UsualLead,
    from_plain,
    is_settled,
    plain,
    plain_usual,
    usual_from_plain,
    usual_state,
)

KEPT_MAX: Final = 100_000
"""So many leads are held in memory by default: at most about 300 MB."""

_FILED_BITS: Final = 1 << 28
_EVICTED_AT_ONCE: Final = 16_384
_FORMAT: Final = 5
_USUAL_MAX: Final = 20_000
_USUAL: Final = struct.Struct(">cI")
_USUAL_TAG: Final = b"u"
"""With this begins the state of a usual lead: its number, its place. What `marshal` writes of others does not."""
_WRITER: Final = f"{_FORMAT}:{sys.implementation.cache_tag}:{marshal.version}".encode()

_SCHEMA: Final = """
create table if not exists lead_states (
    lead_id text primary key, settled integer not null, state blob not null
) without rowid;
create index if not exists unsettled on lead_states (lead_id) where settled = 0;
create table if not exists usual (number integer primary key, content blob not null);
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

    def is_new(self, lead_id: str) -> bool:
        """Tell whether nothing is known of a lead."""
        ...

    def usual(self, usual: UsualLead) -> int:
        """Number what usual leads have in common: the same gets the same number."""
        ...

    def begin_usual(self, lead_id: str, usual: int, place: bytes) -> None:
        """Take in a usual lead of which nothing was known: the number of what is usual, and its own `PLACE`."""
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
        self._usual: list[UsualLead] = []

    def begin(self, lead_id: str, state: LeadState) -> LeadState:
        """Take in a new lead's state."""
        self._states[lead_id] = state
        return state

    def is_new(self, lead_id: str) -> bool:
        """Tell whether nothing is known of a lead."""
        return lead_id not in self._states

    def usual(self, usual: UsualLead) -> int:
        """Number what usual leads have in common."""
        self._usual.append(usual)
        return len(self._usual) - 1

    def begin_usual(self, lead_id: str, usual: int, place: bytes) -> None:
        """Take in a usual lead."""
        self._states[lead_id] = usual_state(self._usual[usual], place)

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
        self._room = max(kept_max, 1) + _EVICTED_AT_ONCE
        self._states: dict[str, LeadState | bytes] = {}
        self._usual: dict[int, UsualLead] = {}
        self._usual_numbers: dict[bytes, int] = {}
        # Those that may be other than the file has them; the others need no writing, however many are in memory.
        self._touched: set[str] = set()
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.executescript(
            "pragma journal_mode = wal; pragma synchronous = normal; pragma cache_size = -65536;"
            "pragma temp_store = memory;" + _SCHEMA
        )
        if self._one("select value from kept where name = 'writer'") != _WRITER:
            self._connection.executescript("delete from lead_states; delete from usual; delete from kept;")
            self._connection.execute("insert into kept values ('writer', ?)", (_WRITER,))
        self._connection.execute("begin immediate")
        self._filed = _Filed()
        for (lead_id,) in self._connection.execute("select lead_id from lead_states"):
            self._filed.add(lead_id)

    def of(self, lead_id: str) -> LeadState | None:
        """Find a lead's state, in memory or in the file."""
        state = self._states.get(lead_id)
        if isinstance(state, LeadState):
            self._touched.add(lead_id)
            return state
        if state is not None:
            made = self._states[lead_id] = self._made(state)
            return made
        if lead_id not in self._filed:
            return None
        blob = self._one("select state from lead_states where lead_id = ?", lead_id)
        return None if blob is None else self.begin(lead_id, self._made(blob))

    def is_new(self, lead_id: str) -> bool:
        """Tell whether nothing is known of a lead."""
        return lead_id not in self._states and (lead_id not in self._filed or self.of(lead_id) is None)

    def begin(self, lead_id: str, state: LeadState) -> LeadState:
        """Take in a state; those that were taken in first move to the file when there are too many."""
        if len(self._states) >= self._room:
            self._evict()
        self._states[lead_id] = state
        self._touched.add(lead_id)
        return state

    def usual(self, usual: UsualLead) -> int:
        """Number what usual leads have in common, and keep it beside them."""
        content = marshal.dumps(plain_usual(usual))
        number = self._usual_numbers.get(content)
        if number is None:
            if len(self._usual_numbers) >= _USUAL_MAX:
                self._usual_numbers.clear()
            added = self._connection.execute("insert into usual (content) values (?)", (content,))
            number = self._usual_numbers[content] = added.lastrowid or 0
        return number

    def begin_usual(self, lead_id: str, usual: int, place: bytes) -> None:
        """Take in a usual lead, whose state is made when it is asked for."""
        if len(self._states) >= self._room:
            self._evict()
        self._states[lead_id] = _USUAL.pack(_USUAL_TAG, usual) + place
        self._touched.add(lead_id)

    def _evict(self) -> None:
        """Move those that were taken in first to the file."""
        self._write(list(islice(self._states, _EVICTED_AT_ONCE)), forget=True)

    def _made(self, blob: bytes) -> LeadState:
        if blob[:1] != _USUAL_TAG:
            return from_plain(marshal.loads(blob))
        _, number = _USUAL.unpack_from(blob)
        usual = self._usual.get(number)
        if usual is None:
            if len(self._usual) >= _USUAL_MAX:
                self._usual.clear()
            content = self._one("select content from usual where number = ?", number)
            usual = self._usual[number] = usual_from_plain(marshal.loads(content))
        return usual_state(usual, blob[_USUAL.size :])

    def all(self) -> Iterator[tuple[str, LeadState]]:
        """Give every lead's state by lead id, as the file has it once memory is written."""
        return self._read("select lead_id, state from lead_states order by lead_id")

    def unsettled(self) -> Iterator[tuple[str, LeadState]]:
        """Give the states of which something is still to come, by lead id."""
        return self._read("select lead_id, state from lead_states where settled = 0 order by lead_id")

    def _read(self, statement: str) -> Iterator[tuple[str, LeadState]]:
        self._write(list(self._states), forget=False)
        for lead_id, blob in self._connection.cursor().execute(statement):
            yield lead_id, self._made(blob)

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
        states = self._states
        written = self._touched.intersection(lead_ids)
        rows = [_row(lead_id, states[lead_id]) for lead_id in sorted(written)]
        self._connection.executemany("insert or replace into lead_states values (?, ?, ?)", rows)
        self._touched -= written
        for lead_id in written:
            self._filed.add(lead_id)
        if forget:
            for lead_id in lead_ids:
                del states[lead_id]

    def _one(self, statement: str, *arguments: str | int) -> Any:
        row = self._connection.execute(statement, arguments).fetchone()
        return None if row is None else row[0]


class _Filed:
    """Which leads may be in the file: most new ones are told without a look. 32 MB of bits, once there are any."""

    def __init__(self) -> None:
        self._bits = bytearray()

    def add(self, lead_id: str) -> None:
        """Note a lead."""
        if not self._bits:
            self._bits = bytearray(_FILED_BITS >> 3)
        bit = hash(lead_id) & (_FILED_BITS - 1)
        self._bits[bit >> 3] |= 1 << (bit & 7)

    def __contains__(self, lead_id: str) -> bool:
        """Tell whether a lead may be there; False is certain."""
        bit = hash(lead_id) & (_FILED_BITS - 1)
        return bool(self._bits) and self._bits[bit >> 3] >> (bit & 7) & 1 == 1


def _row(lead_id: str, state: LeadState | bytes) -> tuple[str, int, bytes]:
    """A usual lead as it was taken in waits for its records to outsiders still."""
    if not isinstance(state, LeadState):
        return lead_id, 0, state
    return lead_id, int(is_settled(state)), marshal.dumps(plain(state))
