"""What is emitted again: exactly what was accepted and is not in the log, read by the contract's one rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import pytest

from services.bus.memory import MemoryKafka, MemoryProducer
from services.bus.ports import Record, Stopped
from services.contract.codec import codec
from services.contract.events import LeadListed, StageStarted
from services.contract.ids import partition_of
from services.contract.topics import Topics
from services.intake.resend import Resent, Unlisted, listed_leads, resend
from tests.support.written_log import WrittenLog

TOPICS = Topics()
PARTITIONS = 4
LISTED = LeadListed(
    source_id="sunform",
    lead_type="solar",
    plan=None,
    quality=0,
    fields={},
    sales_max=1,
    never_to=(),
    created_at_ms=1,
    market_version=1,
    is_test=False,
)


@dataclass
class AcceptedInMemory:
    """Accepted leads, and the notes of what is listed."""

    leads: list[str]
    noted: set[str] = field(default_factory=set)

    def note_listed(self, lead_ids: Sequence[str]) -> None:
        self.noted.update(lead_ids)

    def count(self) -> int:
        return len(self.leads)

    def unlisted(self) -> Iterator[Sequence[Unlisted]]:
        missing = [Unlisted(lead, lead.upper().encode()) for lead in self.leads if lead not in self.noted]
        yield from (missing[at : at + 2] for at in range(0, len(missing), 2))


def log_of(*leads: str) -> list[Record]:
    log, kafka = WrittenLog(PARTITIONS), MemoryKafka(partitions={TOPICS.log: PARTITIONS})
    for lead in leads:
        log.append(kafka, TOPICS.log, lead, LISTED, StageStarted(stage=0))
        log.append(kafka, TOPICS.log, lead, StageStarted(stage=1))
    return kafka.topic(TOPICS.log)


def listed(records: Sequence[Record]) -> set[str]:
    return {lead for batch in listed_leads([records], codec()) for lead in batch}


def test_emits_what_is_not_listed_and_nothing_else() -> None:
    kafka = MemoryKafka(partitions={TOPICS.qualified: PARTITIONS})
    accepted = AcceptedInMemory(["a", "b", "c", "d", "e"])
    batches = listed_leads([log_of("b", "d")], codec())
    done = resend(batches, accepted, MemoryProducer(kafka), TOPICS, PARTITIONS)
    assert done == Resent(accepted=5, unlisted=3)
    emitted = {(record.key, record.value) for record in kafka.topic(TOPICS.qualified)}
    assert emitted == {(b"a", b"A"), (b"c", b"C"), (b"e", b"E")}
    for record in kafka.topic(TOPICS.qualified):
        assert record.key is not None
        assert record.partition == partition_of(record.key.decode(), PARTITIONS)


def test_dry_run_counts_and_emits_nothing() -> None:
    kafka = MemoryKafka(partitions={TOPICS.qualified: PARTITIONS})
    done = resend(
        [["a"]], AcceptedInMemory(["a", "b"]), MemoryProducer(kafka), TOPICS, PARTITIONS, dry_run=True
    )
    assert done == Resent(accepted=2, unlisted=1)
    assert not kafka.topic(TOPICS.qualified)


def test_repeats_and_later_entries_of_a_lead_list_it_once() -> None:
    records = log_of("a", "b")
    assert listed([*records, *records]) == {"a", "b"}


def test_what_a_reader_would_not_take_lists_nothing() -> None:
    """A copy that is ahead of the log, as a republished or forged record, is no entry."""
    records = [record for record in log_of("a") if record.offset > 0]
    assert listed(records) == set()


def test_changed_history_stops_it() -> None:
    first, second = log_of("a")
    forged = replace(codec().decode_entry(second.value), prev_hash=bytes(32))
    with pytest.raises(Stopped, match="History was changed"):
        listed([first, second._replace(value=codec().encode(forged))])
