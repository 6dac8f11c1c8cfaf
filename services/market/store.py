"""Keeps the versions of the market in PostgreSQL: adds one, loads any, deletes none.

It trusts what it is given: whether a market may be applied is for `review`.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import psycopg
from psycopg.types.json import Jsonb
from pydantic import TypeAdapter

from services.contract.market import Market
from services.market.documents import MarketFile

ROLE = "gavel_market"
APPLY_LOCK_KEY = 0x6D61_726B_6574  # "market"
CACHE_MAX = 64
HISTORY_MAX = 1_000

_MARKET = TypeAdapter(Market)


class StaleBase(Exception):
    """Another version was applied since the base that a market was made from."""

    def __init__(self, base: int, current: int) -> None:
        self.base, self.current = base, current
        super().__init__(
            f"made from version {base}, but version {current} is in force: look at the difference and apply again"
        )


class UnknownVersion(LookupError):
    """No such version was ever applied."""

    def __init__(self, version: int) -> None:
        super().__init__(
            f"there is no version {version} of the market" if version else "no market was applied yet"
        )


class NewerMarket(Exception):
    """A version holds what only a newer release understands."""

    def __init__(self, version: int) -> None:
        super().__init__(f"version {version} of the market was applied by a newer release of Gavel than this")


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRow:
    """One version's place in history."""

    version: int
    applied_at: datetime
    applied_by: str
    note: str
    sha256: str


def canonical_json(market: Market) -> str:
    """Write a market as JSON that is the same for the same market; the version is left to where it is kept."""
    content = _MARKET.dump_python(replace(market, version=0))
    # Sets are the only thing in a market that JSON has no word for.
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=sorted)


def from_json(text: str, version: int) -> Market:
    """Read what `canonical_json` wrote, in this release or an earlier one.

    Raises NewerMarket if it says something that this release has no word for: pydantic would pass over it, and a
    worker of an older release would sell by half of what was promised. Raises pydantic.ValidationError.
    """
    market = replace(_MARKET.validate_json(text), version=version)
    if not _says_all(json.loads(canonical_json(market)), json.loads(text)):
        raise NewerMarket(version)
    return market


def _says_all(understood: object, stored: object) -> bool:
    if isinstance(understood, dict) and isinstance(stored, dict):
        return all(key in understood and _says_all(understood[key], stored[key]) for key in stored)
    if isinstance(understood, list) and isinstance(stored, list):
        same_size = len(understood) == len(stored)
        return same_size and all(map(_says_all, understood, stored))
    return understood == stored


def current_version(connection: psycopg.Connection) -> int:
    """Tell the version in force; 0 before the first."""
    row = connection.execute("select coalesce(max(version), 0) from market.versions").fetchone()
    return int(row[0]) if row else 0


def load(connection: psycopg.Connection, version: int) -> Market:
    """Load one version. Raises UnknownVersion."""
    row = connection.execute("select model from market.versions where version = %s", [version]).fetchone()
    if row is None:
        raise UnknownVersion(version)
    return from_json(row[0], version)


def load_current(connection: psycopg.Connection) -> Market | None:
    """Load the version in force; None before the first."""
    version = current_version(connection)
    return load(connection, version) if version else None


def load_files(connection: psycopg.Connection, version: int) -> tuple[MarketFile, ...]:
    """Give the files that a version was applied from, as they were. Raises UnknownVersion."""
    row = connection.execute("select files from market.versions where version = %s", [version]).fetchone()
    if row is None:
        raise UnknownVersion(version)
    return tuple(MarketFile(file["name"], file["text"]) for file in row[0])


def history(connection: psycopg.Connection, limit: int = HISTORY_MAX) -> tuple[VersionRow, ...]:
    """List the latest versions, the newest first."""
    rows = connection.execute(
        "select version, applied_at, applied_by, note, encode(sha256, 'hex')"
        " from market.versions order by version desc limit %s",
        [limit],
    )
    return tuple(
        VersionRow(version=version, applied_at=applied_at, applied_by=applied_by, note=note, sha256=sha256)
        for version, applied_at, applied_by, note, sha256 in rows
    )


def apply(
    connection: psycopg.Connection,
    market: Market,
    base_version: int,
    *,
    files: Sequence[MarketFile],
    applied_by: str,
    note: str = "",
) -> int:
    """Make a market the version in force, and give its number; what is in force already gets no new one.

    What is in force is compared as this release reads it, so that a release which adds keys makes no version by itself.
    Raises StaleBase if another version than the base is in force; NewerMarket. Applying the same again is never stale:
    it is what somebody does whose connection was lost in the commit.
    """
    model = canonical_json(market)
    with connection.transaction():
        # Whoever comes second waits, sees the first one's version, and is stale.
        connection.execute("select pg_advisory_xact_lock(%s)", [APPLY_LOCK_KEY])
        current, in_force = _head(connection)
        if in_force is not None and canonical_json(from_json(in_force, current)) == model:
            return current
        if current != base_version:
            raise StaleBase(base_version, current)
        connection.execute(
            "insert into market.versions (version, base, applied_by, note, files, model, sha256)"
            " values (%s, %s, %s, %s, %s, %s, sha256(convert_to(%s, 'UTF8')))",
            [current + 1, current, applied_by, note, _files_json(files), model, model],
        )
    return current + 1


def _head(connection: psycopg.Connection) -> tuple[int, str | None]:
    row = connection.execute(
        "select version, model from market.versions order by version desc limit 1"
    ).fetchone()
    return (int(row[0]), str(row[1])) if row else (0, None)


def _files_json(files: Sequence[MarketFile]) -> Jsonb:
    return Jsonb([{"name": file.name, "text": file.text} for file in files])


class Markets:
    """Versions of the market by number, the latest used kept: a version never changes, so none goes stale."""

    def __init__(self, load: Callable[[int], Market], kept_max: int = CACHE_MAX) -> None:
        if kept_max < 1:
            raise ValueError("expected to keep at least one market")
        self._load = load
        self._kept_max = kept_max
        self._kept: OrderedDict[int, Market] = OrderedDict()

    def get(self, version: int) -> Market:
        """Give a version, loading it when it isn't kept."""
        market = self._kept.get(version)
        if market is None:
            market = self._kept[version] = self._load(version)
            if len(self._kept) > self._kept_max:
                self._kept.popitem(last=False)
        self._kept.move_to_end(version)
        return market

    def __len__(self) -> int:
        return len(self._kept)
