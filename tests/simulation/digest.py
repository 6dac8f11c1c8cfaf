"""One hash of everything that a run left: every record of every topic, every row of every table."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from tests.simulation.world import World


def digest_of(world: World) -> str:
    """Hash topics and tables; the order within a topic counts, that of a table's rows does not."""
    whole = hashlib.sha256()
    for text in _lines(world):
        whole.update(text.encode())
        whole.update(b"\n")
    return whole.hexdigest()


def _lines(world: World) -> Iterator[str]:
    for where in sorted(world.kafka.records):
        for record in world.kafka.records[where]:
            yield repr(tuple(record))
    router, intake, ledger = world.router, world.intake, world.ledger.tables
    tables: Mapping[str, Mapping[Any, object]] = {
        "heads": router.heads,
        "log": router.log,
        "leads": router.leads,
        "archived": router.archived,
        "sales": router.sales,
        "closes": router.closes,
        "undelivered": router.undelivered,
        "counters": router.counters,
        "money": router.money,
        "auctions": router.auctions,
        "erasures": router.erasures,
        "acknowledged": router.acknowledged,
        "intake leads": intake.leads,
        "fingerprints": intake.fingerprints,
        "vault": intake.details,
        "consents": intake.consents,
        "people": intake.subjects,
        "suppressed": dict.fromkeys(intake.suppressed),
        "windows": world.windows,
        "window positions": world.window_positions,
        "feed positions": world.feed_positions,
        "ledger leads": ledger.leads,
        "ledger sales": ledger.sales,
        "returns": ledger.returns,
        "transfers": ledger.transfers,
        "totals": ledger.totals,
        "ledger positions": ledger.positions,
        "committed": world.kafka.committed,
    }
    for name, rows in tables.items():
        yield name
        yield from sorted(f"{key!r}: {rows[key]!r}" for key in rows)
