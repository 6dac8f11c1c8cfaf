"""`gavel log`: verify the log as every reader takes it, publish committed entries again, skip what nobody can read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

from services.bus.settings import StepSettings
from services.cli.complaints import WENT_WRONG, Complaint
from services.cli.log_publishing import Head, heads_of, messages_of, publish
from services.cli.log_reading import Break, LogTable, LogTopic, Reader
from services.cli.log_skipping import skip
from services.cli.printing import onlookers, remark, say, say_json, say_table
from services.cli.surroundings import connect_as_auditor, settings
from services.contract.codec import codec

app = typer.Typer(help="The log of all decisions.", no_args_is_help=True)
app.command()(skip)

AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


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
        head = heads_of(connection).get(partition)
        _require_range(head, partition, from_seq)
        assert head is not None
        messages = messages_of(LogTable(connection), topic, partition, from_seq, head.published_seq)
        count = sum(1 for _ in messages) if dry_run else publish(found, messages)
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
        heads = heads_of(connection)
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


def _require_range(head: Head | None, partition: int, from_seq: int) -> None:
    if head is None:
        raise Complaint(f"The database has no partition {partition}.", "`gavel log verify` lists them.")
    if from_seq > head.published_seq:
        raise Complaint(
            f"Partition {partition} is published up to entry {head.published_seq}; entry {from_seq} is not.",
            "What is committed and not published yet, the router publishes by itself.",
        )


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
