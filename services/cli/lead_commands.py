"""`gavel lead`: one lead's whole story from the log, and taking it off the market.

It decides nothing: a withdrawal is a command for the router, and the story is what the log tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import psycopg
import typer

from services.bus.kafka import LogProducer
from services.bus.ports import Message
from services.bus.settings import StepSettings
from services.cli.complaints import MISUSED, Complaint
from services.cli.log_reading import LogTable, LogTopic, Reader, entries_of
from services.cli.printing import answers, remark, say, say_json
from services.cli.story import Chapter, Line, LocalClock, tell
from services.cli.surroundings import connect_as_auditor, settings
from services.contract.codec import codec
from services.contract.events import WithdrawalReason
from services.contract.ids import partition_of
from services.contract.inputs import WithdrawLead
from services.contract.times import iso_time
from services.contract.topics import declarations

app = typer.Typer(help="One lead.", no_args_is_help=True)

LeadId = Annotated[
    UUID, typer.Argument(metavar="LEAD_ID", help="The lead, as receipts and deliveries name it.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


class Withdrawal(StrEnum):
    """Why an operator takes a lead off the market."""

    OPERATOR = "operator"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """A lead's story, and where it was read."""

    lead_id: str
    partition: int
    read_from: str
    lines: Sequence[Line]


@app.command()
def show(
    lead_id: LeadId,
    timezone: Annotated[
        str,
        typer.Option(
            "--timezone", help="Tell times there, as in America/New_York; by default, where you are."
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Tell a lead's story from the log: every decision, and what everybody was told."""
    clock = LocalClock(_zone(timezone))
    story = read_story(settings(), str(lead_id), clock)
    if as_json:
        say_json(story_json(story))
    else:
        say_story(story, clock)


@app.command()
def withdraw(
    lead_id: LeadId,
    reason: Annotated[Withdrawal, typer.Option("--reason", help="Why.")] = Withdrawal.OPERATOR,
    early: Annotated[
        bool,
        typer.Option("--early", help="Also a lead that is not listed yet: it will be closed on arrival."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Take a lead off the market: the router closes it, and tells its holders and its source."""
    found = settings()
    if not early:
        _require_listed(found, str(lead_id))
    topic = found.topics.commands
    partition = partition_of(str(lead_id), partitions_inside())
    record = WithdrawLead(lead_id=str(lead_id), reason=WithdrawalReason(reason.value))
    producer = LogProducer(found.connection(), client_id="gavel-cli")
    producer.publish(
        [Message(topic, partition, str(lead_id).encode(), codec().encode(record))], timeout_s=10.0
    )
    if as_json:
        say_json({"topic": topic, "partition": partition, "lead_id": str(lead_id), "reason": reason.value})
    else:
        say(f"Asked the router to withdraw it. What comes of it: gavel lead show {lead_id}")


def read_story(found: StepSettings, lead_id: str, clock: LocalClock) -> Story:
    """Read a lead's story from the router's table, or, where that does not go back far enough, from the topic."""
    partition = partition_of(lead_id, partitions_inside())
    reader = Reader(codec=codec())
    read_from, entries = "the database (router.log)", None
    try:
        with connect_as_auditor(found.database) as connection:
            table = LogTable(connection)
            if table.has_all(partition):
                entries = entries_of(lead_id, table.read(partition), reader)
    except psycopg.OperationalError as error:
        remark(f"The database does not answer ({str(error).strip()}): reading the topic instead.")
    if entries is None:
        with LogTopic(found.connection(), found.topics.log) as topic:
            read_from, entries = (
                f"the topic ({topic.topic})",
                entries_of(lead_id, topic.read(partition), reader),
            )
    if reader.broken is not None:
        remark(
            f"The log breaks at entry {reader.broken.seq} ({reader.broken.why}): the story may go on after it."
        )
    if not entries:
        raise Complaint(
            f"The log knows no lead {lead_id} (partition {partition}, read from {read_from}).",
            "The id is on its receipt (gavel source receipts SOURCE); a lead that was declined has no story.",
        )
    chapters = [Chapter(entry=entry, events=events) for entry, events in entries]
    return Story(
        lead_id=lead_id,
        partition=partition,
        read_from=read_from,
        lines=tell(chapters, partition=partition, clock=clock),
    )


def say_story(story: Story, clock: LocalClock) -> None:
    """Answer with the story: decisions by their time, and under each what was sent because of it."""
    from rich.table import Table
    from rich.text import Text

    zone = clock.name(story.lines[0].at_ms)
    say(f"Lead {story.lead_id}, partition {story.partition}, told from {story.read_from}; times are {zone}.")
    table = Table.grid(padding=(0, 2))
    previous = None
    for line in story.lines:
        when = "" if line.at_ms == previous else clock.moment(line.at_ms)
        previous = line.at_ms
        sentence = Text(f"→ {line.sentence}", style="dim") if line.is_message else Text(line.sentence)
        table.add_row(Text(when, style="cyan"), sentence)
    answers().print(table)


def story_json(story: Story) -> dict[str, Any]:
    """Write the story for machines."""
    return {
        "lead_id": story.lead_id,
        "partition": story.partition,
        "read_from": story.read_from,
        "lines": [
            {
                "at": iso_time(line.at_ms),
                "seq": line.seq,
                "kind": line.kind,
                "sentence": line.sentence,
                "fact": dict(line.fact),
            }
            for line in story.lines
        ],
    }


def partitions_inside() -> int:
    """Say how many partitions the topics inside have, which is declared, and fixed for good."""
    return next(found.partitions for found in declarations() if found.name == "leads.log")


def _require_listed(found: StepSettings, lead_id: str) -> None:
    with connect_as_auditor(found.database) as connection:
        row = connection.execute("select from router.leads where lead_id = %s", [lead_id]).fetchone()
    if row is None:
        raise Complaint(
            f"The router knows no lead {lead_id}.",
            "Is the id right? --early withdraws a lead that is on its way: it will be closed on arrival.",
        )


def _zone(name: str) -> tzinfo:
    if not name:
        return datetime.now(tz=UTC).astimezone().tzinfo or UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise Complaint(
            f"There is no timezone {name!r}.", "Names are as in America/New_York.", exit_code=MISUSED
        ) from error
