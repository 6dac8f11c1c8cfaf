"""People read the log as every reader does: what is next is taken, and the first break is named."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from services.bus.ports import Record
from services.cli.complaints import Complaint
from services.cli.log_commands import difference_from
from services.cli.log_publishing import Head, chained
from services.cli.log_reading import Reader, Value, entries_of
from services.contract.codec import codec
from tests.support.log_builder import LogBuilder, lead_id


def written(entries: int) -> list[Record]:
    log = LogBuilder(partitions=1)
    for number in range(entries):
        log.sell_out(lead_id(number))
    return log.records


def values(records: Iterable[Record]) -> list[Value]:
    return [Value(offset, record.value or b"") for offset, record in enumerate(records)]


def read(found: Iterable[Value]) -> Reader:
    reader = Reader(codec=codec())
    for entry, _ in reader.taken(found):
        reader.count_events(entry)
    reader.miss()
    return reader


def test_takes_a_whole_log_and_counts_its_events() -> None:
    reader = read(values(written(3)))
    assert (reader.position.seq, reader.broken) == (3, None)
    assert reader.events == {"LeadListed": 3, "LeadSold": 9, "LeadClosed": 3}


def test_drops_repeats() -> None:
    records = written(3)
    reader = read(values([*records[:2], *records]))
    assert (reader.position.seq, reader.repeats, reader.broken) == (3, 2, None)


def test_names_a_missing_entry() -> None:
    records = written(4)
    reader = read(values([records[0], *records[2:]]))
    assert reader.broken is not None
    assert (reader.broken.seq, reader.broken.is_missing) == (2, True)


def test_an_entry_that_comes_late_is_no_break_if_all_come_again() -> None:
    records = written(4)
    reader = read(values([records[0], records[2], *records[1:]]))
    assert (reader.position.seq, reader.broken) == (4, None)


def test_stops_where_history_was_changed() -> None:
    records = written(3)
    other = LogBuilder(partitions=1)
    other.sell_out(lead_id("another"))
    forged = other.sell_out(lead_id("forged"))
    reader = read(values([records[0], forged, *records[1:]]))
    assert reader.broken is not None
    assert (reader.broken.seq, reader.broken.is_missing) == (2, False)


def test_stops_at_a_record_that_cannot_be_read() -> None:
    reader = read([*values(written(1)), Value(1, b"not an entry")])
    assert reader.broken is not None
    assert reader.broken.offset == 1


def test_keeps_only_one_leads_entries() -> None:
    found = entries_of(lead_id(1), values(written(3)), Reader(codec=codec()))
    assert [entry.lead_id for entry, _ in found] == [lead_id(1)]
    assert len(found[0][1]) == 5


def head_of(reader: Reader, *, ahead: int = 0, published: int = 0) -> Head:
    return Head(
        seq=reader.position.seq + ahead,
        hash=reader.position.hash if not ahead else bytes(32),
        published_seq=reader.position.seq + published,
    )


def test_a_topic_that_ends_as_the_database_says_differs_in_nothing() -> None:
    reader = read(values(written(2)))
    assert difference_from(head_of(reader), reader) is None
    assert difference_from(head_of(reader, ahead=1), reader) is None, "committed, and not published yet"


def test_a_topic_that_lacks_what_was_published_differs() -> None:
    reader = read(values(written(2)))
    assert difference_from(head_of(reader, ahead=1, published=1), reader) is not None


def test_a_topic_with_another_last_entry_differs() -> None:
    reader = read(values(written(2)))
    assert difference_from(Head(seq=2, hash=bytes(32), published_seq=2), reader) is not None


def test_only_a_chain_is_published_again() -> None:
    records = written(4)
    table = [Value(seq, record.value or b"") for seq, record in enumerate(records, start=1)]
    assert [entry.seq for entry, _ in chained(iter(table[1:]), 2)] == [2, 3, 4]
    with pytest.raises(Complaint, match="no entry 3"):
        list(chained(iter([table[1], table[3]]), 2))
    with pytest.raises(Complaint, match="no entry 1"):
        list(chained(iter(table[1:]), 1))
