"""Which sales a buyer has had already: a delivery may come twice, with the same `sale_id`."""

from __future__ import annotations

import sqlite3
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Protocol


class Seen(Protocol):
    """Remembers ids."""

    def has(self, sale_id: str) -> bool:
        """Tell whether the id was added before."""
        ...

    def add(self, sale_id: str) -> None:
        """Remember the id: called once its lead has been dealt with."""
        ...


class MemorySeen:
    """The last so many ids, forgotten with the process."""

    def __init__(self, most: int = 100_000) -> None:
        """Keep the last `most` ids."""
        self._most = most
        self._ids: OrderedDict[str, None] = OrderedDict()

    def has(self, sale_id: str) -> bool:
        """See `Seen`."""
        return sale_id in self._ids

    def add(self, sale_id: str) -> None:
        """See `Seen`."""
        self._ids[sale_id] = None
        while len(self._ids) > self._most:
            self._ids.popitem(last=False)


class SqliteSeen:
    """All ids, in a file: it survives the process, and needs no server. For any thread."""

    def __init__(self, path: str | Path) -> None:
        """Open the file, or make it. Raise `sqlite3.Error` where that cannot be."""
        # A reader is often made in one thread and read in another; the lock has them take turns.
        self._lock = threading.Lock()
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._database.execute("create table if not exists seen (sale_id text primary key) without rowid")

    def has(self, sale_id: str) -> bool:
        """See `Seen`."""
        query = "select 1 from seen where sale_id = ?"
        with self._lock:
            return self._database.execute(query, (sale_id,)).fetchone() is not None

    def add(self, sale_id: str) -> None:
        """See `Seen`."""
        with self._lock:
            self._database.execute("insert or ignore into seen (sale_id) values (?)", (sale_id,))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()
