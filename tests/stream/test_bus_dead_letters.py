"""Redriving on the in-memory bus: once, in order, and again only when told to."""

from __future__ import annotations

import pytest

from services.bus.dead_letters import (
    LETTER_BYTES_MAX,
    REDRIVEN_AT_ONCE,
    Choice,
    LettersRefused,
    Redriven,
    attempts_of,
    dead_letter,
    letters_in,
    redrive,
    show,
)
from services.bus.memory import Crash, Faults, MemoryKafka, MemoryProducer
from services.bus.ports import Message, Record
from tests.support.letters import MemoryLetters

TOPIC = "sources.sunform.leads"
LETTERS = f"{TOPIC}.dlq"
AT_MS = 1_790_000_000_000


class Desk:
    """An operator's desk: a topic, its dead letters, and a producer."""

    def __init__(self, count: int, *, crash_at: int | None = None) -> None:
        self.kafka = MemoryKafka({TOPIC: 2, LETTERS: 2})
        self.letters = MemoryLetters(self.kafka)
        self.producer = MemoryProducer(self.kafka, Faults(crash_at))
        for number in range(count):
            message = Message(
                TOPIC, number % 2, b"key %d" % number, b"bytes %d" % number, (("trace", b"%d" % number),)
            )
            self.bury(self.kafka.append(message))

    def bury(self, record: Record) -> None:
        """Put a record of the topic aside, as intake does."""
        letter = dead_letter(
            record,
            topic=LETTERS,
            partitions=2,
            stage="intake",
            error_class="Undecodable",
            message="not JSON",
            attempts=attempts_of(record),
            at_ms=AT_MS,
        )
        self.kafka.append(letter)

    def redrive(
        self, choice: Choice | None = None, *, limit: int = 1_000, again: bool = False, dry_run: bool = False
    ) -> Redriven:
        return redrive(
            self.letters,
            self.producer,
            LETTERS,
            choice or Choice(),
            at_ms=AT_MS,
            limit=limit,
            again=again,
            dry_run=dry_run,
        )

    def values(self) -> list[bytes]:
        return sorted(record.value or b"" for record in self.kafka.topic(TOPIC))


def test_a_letter_goes_back_as_the_record_that_it_was() -> None:
    desk = Desk(1)
    desk.redrive()
    original, back = desk.kafka.topic(TOPIC)
    assert (back.key, back.value, back.partition) == (original.key, original.value, original.partition)
    headers = dict(back.headers)
    assert headers.pop("trace") == b"0"
    assert headers == {"dlq.redrive.origin": f"{LETTERS}-0-0".encode(), "dlq.redrive.attempts": b"1"}


def test_a_letter_goes_back_once() -> None:
    desk = Desk(3)
    assert len(desk.redrive().sent) == 3
    second = desk.redrive()
    assert (len(second.sent), len(second.sent_before)) == (0, 3)
    assert len(desk.kafka.topic(TOPIC)) == 6


def test_a_letter_goes_back_again_when_told_to() -> None:
    desk = Desk(1)
    desk.redrive()
    assert len(desk.redrive(again=True).sent) == 1
    assert desk.values() == [b"bytes 0"] * 3


def test_a_letter_that_comes_back_is_a_new_letter_with_another_attempt() -> None:
    desk = Desk(1)
    desk.redrive()
    desk.bury(desk.kafka.topic(TOPIC)[-1])
    letters = letters_in(desk.letters.read(LETTERS))
    assert [(letter.attempts, letter.redriven) for letter in letters] == [(1, True), (2, False)]
    assert len(desk.redrive().sent) == 1


def test_a_dry_run_says_the_same_and_sends_nothing() -> None:
    desk = Desk(3)
    dry = desk.redrive(dry_run=True)
    assert len(desk.kafka.topic(TOPIC)) == 3
    assert len(desk.kafka.topic(LETTERS)) == 3
    assert dry.sent == desk.redrive().sent


def test_a_limit_leaves_the_rest_and_says_so() -> None:
    desk = Desk(5)
    first = desk.redrive(limit=3)
    assert (len(first.sent), first.more) == (3, True)
    second = desk.redrive(limit=3)
    assert (len(second.sent), second.more) == (2, False)
    assert len(desk.kafka.topic(TOPIC)) == 10


def test_only_what_was_chosen_goes_back() -> None:
    desk = Desk(4)
    assert [letter.record.offset for letter in desk.redrive(Choice(partition=1, from_offset=1)).sent] == [1]
    assert desk.values().count(b"bytes 3") == 2


@pytest.mark.parametrize("crash_at", range(1, 12))
def test_after_a_crash_at_any_point_every_letter_has_gone_back_at_least_once(crash_at: int) -> None:
    desk = Desk(3, crash_at=crash_at)
    try:
        desk.redrive()
    except Crash:
        desk.producer = MemoryProducer(desk.kafka)
        desk.redrive()
    assert all(desk.values().count(b"bytes %d" % number) >= 2 for number in range(3))
    assert desk.redrive().sent == ()


def test_what_a_crash_may_repeat_is_bounded() -> None:
    count = 2 * REDRIVEN_AT_ONCE
    desk = Desk(count, crash_at=count + REDRIVEN_AT_ONCE + 50)
    with pytest.raises(Crash):
        desk.redrive()
    desk.producer = MemoryProducer(desk.kafka)
    desk.redrive()
    assert len(desk.kafka.topic(TOPIC)) <= 2 * count + REDRIVEN_AT_ONCE


def test_shows_values_of_the_chosen_letters_only() -> None:
    desk = Desk(4)
    assert [letter.record.value for letter in show(desk.letters, LETTERS, Choice(partition=1), limit=1)] == [
        b"bytes 1"
    ]


def test_refuses_a_topic_that_holds_no_dead_letters() -> None:
    desk = Desk(1)
    with pytest.raises(LettersRefused, match="no topic of dead letters"):
        show(desk.letters, TOPIC, Choice(), limit=1)


def test_a_letter_without_its_bytes_never_goes_back() -> None:
    desk = Desk(1)
    large = Message(TOPIC, 0, b"key", b"x" * LETTER_BYTES_MAX)
    desk.bury(desk.kafka.append(large))
    done = desk.redrive(again=True)
    assert [letter.offset for letter in done.left_out] == [1]
    assert [letter.offset for letter in done.sent] == [0]
    assert b"" not in desk.values()
