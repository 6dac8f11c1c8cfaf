"""What a buyer's client has had already: each delivery counts once, across restarts where that is wanted."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gavel_client import MemorySeen, Seen, SqliteSeen


@pytest.mark.parametrize("make", [lambda _: MemorySeen(), lambda path: SqliteSeen(path)])
def test_an_id_is_seen_once_it_was_added(make: Callable[[Path], Seen], tmp_path: Path) -> None:
    seen = make(tmp_path / "seen.sqlite")
    assert not seen.has("a")
    seen.add("a")
    seen.add("a")
    assert seen.has("a")
    assert not seen.has("b")


def test_memory_keeps_the_last_ids_alone() -> None:
    seen = MemorySeen(most=2)
    for sale_id in ("a", "b", "c"):
        seen.add(sale_id)
    assert [seen.has(sale_id) for sale_id in ("a", "b", "c")] == [False, True, True]


def test_a_file_survives_the_process(tmp_path: Path) -> None:
    first = SqliteSeen(tmp_path / "seen.sqlite")
    first.add("a")
    first.close()
    assert SqliteSeen(tmp_path / "seen.sqlite").has("a")


def test_a_file_opened_in_one_thread_is_used_in_others(tmp_path: Path) -> None:
    seen = SqliteSeen(tmp_path / "seen.sqlite")
    ids = [f"sale-{number}" for number in range(100)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(seen.add, ids))
        assert all(threads.map(seen.has, ids))
