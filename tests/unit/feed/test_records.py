"""What the feed publishes for an entry."""

from __future__ import annotations

from services.contract.codec import codec
from services.contract.events import StageStarted, WindowClosed
from services.contract.ids import account_id_of
from services.feed.domain import values_of
from tests.support.log_builder import money_moved
from tests.support.written_log import WrittenLog


def test_publishes_each_event_framed_in_their_order() -> None:
    events = (StageStarted(stage=1), WindowClosed(window_number=3))
    entry = codec().decode_entry(WrittenLog().next_value("lead-1", *events))
    assert [codec().decode(value) for value in values_of(entry)] == list(events)


def test_reuses_the_bytes_of_the_log() -> None:
    entry = codec().decode_entry(WrittenLog().next_value("lead-1", StageStarted(stage=1)))
    [value] = values_of(entry)
    assert value[5:] == entry.events[0].body
    assert value == codec().encode(StageStarted(stage=1))


def test_publishes_what_happens_to_an_account_like_what_happens_to_a_lead() -> None:
    account, moved = account_id_of("oak"), money_moved()
    entry = codec().decode_entry(WrittenLog().next_value(account, moved))
    assert [codec().decode(value) for value in values_of(entry)] == [moved]
