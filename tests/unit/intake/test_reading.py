"""How a batch is sorted: who sent what is the topic's word, and patience with rubbish ends."""

from __future__ import annotations

import orjson

from services.bus.ports import TopicPartition
from services.contract.topics import Topics
from services.intake.reading import DEAD_LETTERS_IN_A_ROW_MAX, Sorted, sort
from tests.support.submissions import KEYS, record, submission

SUNFORM = "sources.sunform.leads"
LEAD = "7e57ab1e-0000-5000-8000-000000000001"


def sorted_(*records: object, dead_in_a_row: dict[str, int] | None = None) -> Sorted:
    return sort(records, dead_in_a_row or {}, Topics(), KEYS)  # type: ignore[arg-type]


def test_source_and_buyer_are_those_of_the_topic() -> None:
    answer = orjson.dumps({"type": "disposition", "lead_id": LEAD, "disposition": "deal"})
    found = sorted_(
        record(submission(source_id="canary")), record(answer, topic="buyers.acme.answers", offset=3)
    )
    assert [each.identity.source_id for each in found.submitted] == ["sunform"]
    assert [each.buyer_id for each in found.answers] == ["acme"]
    assert found.next_offsets == {
        TopicPartition(SUNFORM, 0): 1,
        TopicPartition("buyers.acme.answers", 0): 4,
    }


def test_rubbish_is_put_aside_and_the_rest_flows_on() -> None:
    found = sorted_(record(b"rubbish"), record(submission(), offset=1))
    assert [record.offset for record, _ in found.dead] == [0]
    assert len(found.submitted) == 1
    assert found.next_offsets == {TopicPartition(SUNFORM, 0): 2}


def test_anything_readable_restores_patience() -> None:
    before = {SUNFORM: DEAD_LETTERS_IN_A_ROW_MAX - 1}
    found = sorted_(record(submission()), record(b"rubbish", offset=1), dead_in_a_row=before)
    assert found.dead_in_a_row == {SUNFORM: 1}
    assert not found.exhausted


def test_topic_is_left_unread_behind_the_last_dead_letter_that_is_borne() -> None:
    rubbish = [record(b"rubbish", offset=offset) for offset in range(DEAD_LETTERS_IN_A_ROW_MAX + 50)]
    behind = record(submission(), offset=900, partition=1)
    other = record(submission(), topic="sources.partnerweb.leads")
    found = sorted_(*rubbish, behind, other)
    assert len(found.dead) == DEAD_LETTERS_IN_A_ROW_MAX
    assert found.exhausted == {SUNFORM}
    assert found.next_offsets == {
        TopicPartition(SUNFORM, 0): DEAD_LETTERS_IN_A_ROW_MAX,
        TopicPartition("sources.partnerweb.leads", 0): 1,
    }


def test_sorting_leaves_the_counts_that_it_was_given() -> None:
    before = {SUNFORM: 5}
    sorted_(record(b"rubbish"), dead_in_a_row=before)
    assert before == {SUNFORM: 5}
