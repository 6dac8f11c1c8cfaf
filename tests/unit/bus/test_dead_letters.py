"""A dead letter is its record, byte for byte, and says in headers of ours what went wrong."""

from __future__ import annotations

from services.bus.dead_letters import (
    LETTER_BYTES_MAX,
    MESSAGE_MAX,
    Choice,
    DeadLetter,
    attempts_of,
    bytes_of,
    dead_letter,
    letters_in,
    reasons,
)
from services.bus.ports import Message, Record

TOPIC = "sources.sunform.leads"
LETTERS = f"{TOPIC}.dlq"
AT_MS = 1_790_000_000_000
BYTES = bytes(range(256))


def record(
    value: bytes | None = BYTES, *, headers: tuple[tuple[str, bytes], ...] = (), offset: int = 41
) -> Record:
    return Record(TOPIC, 2, offset, b"their key", value, headers, AT_MS)


def letter_of(of: Record, *, error_class: str = "Undecodable", attempts: int = 1) -> Message:
    return dead_letter(
        of,
        topic=LETTERS,
        partitions=3,
        stage="intake",
        error_class=error_class,
        message="not JSON",
        attempts=attempts,
        at_ms=AT_MS,
    )


def appended(*letters: Message) -> list[Record]:
    return [
        Record(letter.topic, letter.partition, offset, letter.key, letter.value, letter.headers, AT_MS)
        for offset, letter in enumerate(letters)
    ]


def read(*letters: Message) -> list[DeadLetter]:
    return letters_in(appended(*letters))


def test_key_partition_and_bytes_are_those_of_the_record() -> None:
    letter = letter_of(record())
    assert (letter.topic, letter.partition, letter.key, letter.value) == (LETTERS, 2, b"their key", BYTES)


def test_says_where_when_and_why() -> None:
    assert dict(letter_of(record(), attempts=3).headers) == {
        "dlq.errors.topic": TOPIC.encode(),
        "dlq.errors.partition": b"2",
        "dlq.errors.offset": b"41",
        "dlq.errors.stage": b"intake",
        "dlq.errors.exception.class.name": b"Undecodable",
        "dlq.errors.exception.message": b"not JSON",
        "dlq.errors.attempts": b"3",
        "dlq.errors.at": b"2026-09-21T14:13:20.000Z",
    }


def test_the_records_own_headers_come_first_also_those_of_one_name() -> None:
    theirs = (("trace", b"1"), ("trace", b"2"))
    assert letter_of(record(headers=theirs)).headers[:2] == theirs


def test_what_an_outsider_writes_in_our_headers_is_left_out() -> None:
    forged = (("dlq.errors.topic", b"buyers.acme.answers"), ("dlq.redriven.offset", b"0"))
    headers = letter_of(record(headers=forged)).headers
    assert [value for name, value in headers if name == "dlq.errors.topic"] == [TOPIC.encode()]
    assert "dlq.redriven.offset" not in dict(headers)


def test_a_record_without_a_value_becomes_an_empty_letter() -> None:
    assert letter_of(record(None)).value == b""


def test_a_long_message_is_cut() -> None:
    letter = dead_letter(
        record(),
        topic=LETTERS,
        partitions=3,
        stage="intake",
        error_class="X",
        message="y" * 1_000,
        attempts=1,
        at_ms=AT_MS,
    )
    assert len(dict(letter.headers)["dlq.errors.exception.message"]) == MESSAGE_MAX


def test_a_record_that_is_too_large_is_told_of_without_its_bytes() -> None:
    large = record(b"x" * LETTER_BYTES_MAX, headers=(("trace", b"1"),))
    letter = letter_of(large)
    assert (letter.key, letter.value) == (None, b"")
    [read_again] = read(letter)
    assert (read_again.topic, read_again.partition, read_again.offset) == (TOPIC, 2, 41)
    assert read_again.left_out_bytes == bytes_of(large) > LETTER_BYTES_MAX


def test_a_letter_about_a_partition_that_was_added_goes_to_one_that_its_topic_has() -> None:
    letter = letter_of(record()._replace(partition=7))
    assert letter.partition == 1
    [read_again] = read(letter)
    assert read_again.partition == 7


def test_a_letter_reads_as_it_was_written() -> None:
    [letter] = read(letter_of(record(headers=(("trace", b"1"),))))
    assert (letter.topic, letter.partition, letter.offset) == (TOPIC, 2, 41)
    assert (letter.stage, letter.error_class, letter.message, letter.attempts) == (
        "intake",
        "Undecodable",
        "not JSON",
        1,
    )
    assert letter.original_headers == (("trace", b"1"),)
    assert not letter.redriven


def test_letters_are_listed_without_their_values() -> None:
    assert read(letter_of(record()))[0].record.value is None


def test_what_is_no_letter_is_passed_over() -> None:
    assert read(Message(LETTERS, 2, None, b"junk")) == []


def test_a_letter_that_names_another_topic_than_it_stands_in_is_no_letter() -> None:
    """Or a header could send a record anywhere."""
    foreign = letter_of(record())._replace(topic="buyers.acme.answers.dlq")
    assert read(foreign) == []


def test_a_letter_with_nonsense_for_numbers_is_read_all_the_same() -> None:
    letter = letter_of(record())
    broken = tuple((name, b"x" if name == "dlq.errors.offset" else value) for name, value in letter.headers)
    assert read(letter._replace(headers=broken))[0].offset == 0


def test_the_first_attempt_counts_one_and_nonsense_counts_nothing() -> None:
    assert attempts_of(record()) == 1
    assert attempts_of(record(headers=(("dlq.redrive.attempts", b"2"),))) == 3
    assert attempts_of(record(headers=(("dlq.redrive.attempts", b"-9"),))) == 1
    assert attempts_of(record(headers=(("dlq.redrive.attempts", b"9" * 5_000),))) == 1


def test_reasons_are_counted_apart() -> None:
    found = reasons(
        read(letter_of(record()), letter_of(record()), letter_of(record(), error_class="TooLarge"))
    )
    assert [(reason.error_class, reason.letters, reason.redriven) for reason in found] == [
        ("TooLarge", 1, 0),
        ("Undecodable", 2, 0),
    ]
    assert found[0].first_at == found[0].last_at == "2026-09-21T14:13:20.000Z"


def test_a_choice_takes_what_no_field_rules_out() -> None:
    letters = read(*(letter_of(record()) for _ in range(5)), letter_of(record(), error_class="TooLarge"))

    def chosen(choice: Choice) -> list[int]:
        return [letter.record.offset for letter in letters if choice.takes(letter)]

    assert chosen(Choice()) == [0, 1, 2, 3, 4, 5]
    assert chosen(Choice(from_offset=1, to_offset=3)) == [1, 2, 3]
    assert chosen(Choice(error_class="TooLarge")) == [5]
    assert chosen(Choice(partition=1)) == []
    assert chosen(Choice(partition=2, from_offset=5, error_class="Undecodable")) == []
