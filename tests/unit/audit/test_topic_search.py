"""Topics that nobody declared: their last records are searched, and what keeps them from being read is but a note."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence

import pytest

from services.audit import topic_search
from services.audit.reading import Extent, Reading
from services.audit.secrecy import Secrecy
from services.audit.topic_search import search_topics
from services.audit.traces import Traces
from services.audit.violations import Violation
from services.bus.ports import BusFailed, Record, TopicPartition
from services.contract.market import Market
from services.contract.topics import Topics


class Brokers(Reading):
    """Topics of two partitions each, every record with an address. `closed` may not be read."""

    def __init__(self, records: int, *names: str, closed: str = "") -> None:
        self.names, self.records, self.closed = names, records, closed

    def topics(self) -> Mapping[str, int]:
        """See `Reading`."""
        return dict.fromkeys(self.names, 2)

    def extents(self, wheres: Collection[TopicPartition]) -> Mapping[TopicPartition, Extent]:
        """See `Reading`."""
        return {where: Extent(0, self.records) for where in wheres}

    def read(self, spans: Mapping[TopicPartition, range]) -> Iterator[Sequence[Record]]:
        """See `Reading`."""
        for where, span in spans.items():
            if where.topic == self.closed:
                raise BusFailed("may not be read")
            yield [Record(*where, at, None, b"ann@example.com", (), 0) for at in span]


def _market(version: int) -> Market:
    raise LookupError(version)


def _searched(
    brokers: Brokers, *, stop: bool = False, late: bool = False
) -> tuple[list[str], Mapping[str, str]]:
    found: list[Violation] = []
    topics, ended = Topics("t."), threading.Event()
    if stop:
        ended.set()
    secrecy = Secrecy(markets=_market, topics=topics, traces=Traces(), report=found.append)
    times_s = iter([0.0] + [topic_search.SEARCH_WITHIN_S + 1 if late else 0.0] * 20)
    notes = search_topics(brokers, topics, secrecy, ended, monotonic_s=lambda: next(times_s))
    return [str(violation.where[0]) for violation in found], notes


def test_what_nobody_declared_is_searched_and_said() -> None:
    found, notes = _searched(Brokers(1, "t.debug", "t.leads.log", "t.sources.web.leads", "other"))
    assert found == [f"t.debug partition {partition}, offset 0" for partition in (0, 1)]
    assert notes == {
        "t.debug": "t.debug is declared by nobody. It was searched for contact details: 2 records, of 2 at most"
    }


def test_of_a_large_topic_the_last_records_are_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic_search, "RECORDS_MAX", 4)
    found, notes = _searched(Brokers(10, "t.debug"))
    assert found == [f"t.debug partition {at}, offset {offset}" for at in (0, 1) for offset in (8, 9)]
    assert "4 records, of 20" in notes["t.debug"]


def test_what_may_not_be_read_is_said_and_all_else_is_searched() -> None:
    found, notes = _searched(Brokers(1, "t.closed", "t.debug", closed="t.closed"))
    assert len(found) == 2
    assert notes["t.closed"].endswith("It was not searched to its end: may not be read")


@pytest.mark.parametrize(("stop", "late"), [(True, False), (False, True)])
def test_it_ends_in_time_and_when_it_is_asked_to(stop: bool, late: bool) -> None:
    found, notes = _searched(Brokers(5, "t.debug"), stop=stop, late=late)
    assert not found
    assert "0 records, of 10" in notes["t.debug"]
