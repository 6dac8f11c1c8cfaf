"""`gavel log`: verify the log as every reader takes it, and publish committed entries again.

The router is the log's only writer; publishing again (protocol.md, rule 20) sends nothing but bytes that it committed
and has published before, so that a reader drops what it has and finds what it missed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Annotated, Any

import psycopg
import typer

from services.bus.kafka import LogProducer
from services.bus.ports import Message
from services.bus.settings import StepSettings
from services.cli.complaints import WENT_WRONG, Complaint
from services.cli.log_reading import ROWS_AT_ONCE, Break, LogTable, LogTopic, Reader, Value
from services.cli.printing import onlookers, remark, say, say_json, say_table
from services.cli.surroundings import connect_as_auditor, settings
from services.contract.codec import codec
from services.contract.entries import Entry, Position, hash_of

app = typer.Typer(help="The log of all decisions.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
PUBLISH_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What the database says of a partition."""

    seq: int
    hash: bytes
    published_seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What a reading of the whole log found, by partition."""

    topic: str
    readers: Mapping[int, Reader]
    differences: Mapping[int, str]

    @property
    def breaks(self) -> dict[int, Break]:
        """The partitions that no reader can read to the end, and where they break."""
        return {at: reader.broken for at, reader in self.readers.items() if reader.broken is not None}

    @property
    def is_whole(self) -> bool:
        """Tell whether every reader can read everything, and it is what the database decided."""
        return not self.breaks and not self.differences

    @property
    def events(self) -> dict[str, int]:
        """The events by type."""
        counted: Counter[str] = Counter()
        for reader in self.readers.values():
            counted.update(reader.events)
        return dict(sorted(counted.items()))


@app.command()
def verify(as_json: AsJson = False) -> None:
    """Read the whole log as every reader does, check its chain, and compare its end with the database's heads."""
    verified = verify_log(settings())
    if as_json:
        say_json(_verified_json(verified))
    else:
        _say_verified(verified)
    raise typer.Exit(0 if verified.is_whole else WENT_WRONG)


@app.command()
def republish(
    partition: Annotated[int, typer.Option("--partition", min=0, help="Of which partition.")],
    from_seq: Annotated[int, typer.Option("--from", min=1, help="The first entry to publish again.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be published, and publish nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Publish entries again from the database's bytes, up to the last that was published: readers drop repeats."""
    found = settings()
    topic = found.topics.log
    with connect_as_auditor(found.database) as connection:
        head = _heads(connection).get(partition)
        _require_range(head, partition, from_seq)
        assert head is not None
        messages = _messages(LogTable(connection), topic, partition, from_seq, head.published_seq)
        count = sum(1 for _ in messages) if dry_run else _publish(found, messages)
    answer = {
        "topic": topic,
        "partition": partition,
        "from": from_seq,
        "to": from_seq + count - 1,
        "entries": count,
        "dry_run": dry_run,
    }
    if as_json:
        say_json(answer)
    else:
        would = "would be published" if dry_run else "were published"
        say(f"{count:,} entries of partition {partition} {would} again, {from_seq} to {answer['to']}.")


def verify_log(found: StepSettings) -> Verified:
    """Read every partition, and compare it with the head that the database had before."""
    with connect_as_auditor(found.database) as connection:
        heads = _heads(connection)
    with LogTopic(found.connection(), found.topics.log) as topic:
        count = topic.partitions()
        if not count:
            raise Complaint(f"There is no topic {topic.topic}.", "Run `gavel setup`.")
        readers = {partition: _read(topic, partition) for partition in _watched(count)}
    differences = {
        partition: difference
        for partition, reader in readers.items()
        if (difference := difference_from(heads.get(partition), reader)) is not None
    }
    return Verified(topic=found.topics.log, readers=readers, differences=differences)


def difference_from(head: Head | None, reader: Reader) -> str | None:
    """Say how the topic's end differs from what the database had before the reading began, if it does (rule 22)."""
    if head is None:
        return "the database has no head for it"
    if reader.position.seq < head.published_seq:
        return f"the database has published entry {head.published_seq}, the topic ends with {reader.position.seq}"
    if reader.position.seq == head.seq and head.seq and reader.position.hash != head.hash:
        return f"entry {head.seq} is another one than the database's"
    return None


def chained(values: Iterator[Value], from_seq: int) -> Iterator[tuple[Entry, bytes]]:
    """Let a table's entries through as long as each follows its predecessor; raise `Complaint` where one does not."""
    position: Position | None = None
    for offset, value in values:
        entry = codec().decode_entry(value)
        expected = from_seq if position is None else position.seq + 1
        if entry.seq != expected or (position is not None and entry.prev_hash != position.hash):
            raise Complaint(
                f"router.log has no entry {expected} that follows its predecessor: nothing from there on is published.",
                "Rows are dropped a week after they were published; then the topic is the only copy.",
            )
        position = Position(offset=offset, seq=entry.seq, hash=hash_of(value))
        yield entry, value


def _messages(table: LogTable, topic: str, partition: int, from_seq: int, to_seq: int) -> Iterator[Message]:
    values = (item for item in table.read(partition, from_seq=from_seq))
    for entry, value in chained(values, from_seq):
        if entry.seq > to_seq:
            return
        yield Message(topic, partition, entry.lead_id.encode(), value)


def _publish(found: StepSettings, messages: Iterator[Message]) -> int:
    # Nobody else may write the log.
    producer = LogProducer(found.as_insider("router").connection(), client_id="gavel-republish")
    count = 0
    while batch := list(islice(messages, ROWS_AT_ONCE)):
        producer.publish(batch, timeout_s=PUBLISH_S)
        count += len(batch)
    return count


def _require_range(head: Head | None, partition: int, from_seq: int) -> None:
    if head is None:
        raise Complaint(f"The database has no partition {partition}.", "`gavel log verify` lists them.")
    if from_seq > head.published_seq:
        raise Complaint(
            f"Partition {partition} is published up to entry {head.published_seq}; entry {from_seq} is not.",
            "What is committed and not published yet, the router publishes by itself.",
        )


def _heads(connection: psycopg.Connection) -> Mapping[int, Head]:
    rows = connection.execute("select partition, seq, hash, published_seq from router.heads")
    return {
        partition: Head(seq=seq, hash=bytes(digest), published_seq=published_seq)
        for partition, seq, digest, published_seq in rows
    }


def _read(topic: LogTopic, partition: int) -> Reader:
    reader = Reader(codec=codec())
    for entry, _ in reader.taken(topic.read(partition)):
        reader.count_events(entry)
        if reader.broken is not None:
            break
    reader.miss()
    return reader


def _watched(count: int) -> Iterator[int]:
    from rich.progress import track

    return iter(
        track(range(count), description="Reading the log", console=onlookers(), transient=True, total=count)
    )


def _verified_json(verified: Verified) -> dict[str, Any]:
    return {
        "topic": verified.topic,
        "whole": verified.is_whole,
        "entries": sum(reader.position.seq for reader in verified.readers.values()),
        "events": verified.events,
        "partitions": [
            {
                "partition": partition,
                "entries": reader.position.seq,
                "records": reader.records,
                "repeats": reader.repeats,
                "ahead": reader.ahead,
                "hash": reader.position.hash.hex(),
                "break": asdict(reader.broken) if reader.broken else None,
                "difference": verified.differences.get(partition),
            }
            for partition, reader in verified.readers.items()
        ],
    }


def _say_verified(verified: Verified) -> None:
    say_table(
        f"{verified.topic}, partition by partition",
        ("#partition", "#entries", "#repeats", "#ahead", "last hash"),
        (
            (at, f"{reader.position.seq:,}", reader.repeats, reader.ahead, reader.position.hash.hex()[:16])
            for at, reader in verified.readers.items()
        ),
    )
    say_table(
        "Events", ("event", "#count"), ((name, f"{count:,}") for name, count in verified.events.items())
    )
    for partition, found in verified.breaks.items():
        where = "" if found.offset is None else f", offset {found.offset}"
        remark(f"BROKEN: partition {partition}{where}, entry {found.seq}: {found.why}.")
        if found.is_missing:
            remark(f"  gavel log republish --partition {partition} --from {found.seq}")
    for partition, difference in verified.differences.items():
        remark(f"DIFFERENT: partition {partition}: {difference}.")
    if verified.is_whole:
        say("The log is whole: every entry follows its predecessor, up to the database's last.")
