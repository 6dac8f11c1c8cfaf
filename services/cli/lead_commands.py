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

import typer

from services.bus.kafka import LogProducer
from services.bus.ports import Message
from services.bus.settings import StepSettings
from services.cli.asking import partitions_inside
from services.cli.complaints import MISUSED, Complaint
from services.cli.lead_reading import read_lead
from services.cli.printing import answers, say, say_json
from services.cli.story import Chapter, Line, LocalClock, tell
from services.cli.surroundings import connect_as_auditor, settings
from services.cli.why_commands import replay_command, show_why
from services.contract.codec import codec
from services.contract.events import WithdrawalReason
from services.contract.ids import partition_of, trace_id_of
from services.contract.inputs import WithdrawLead
from services.contract.times import iso_time

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


app.command(
    "replay",
    epilog="Example: gavel lead replay 3f276050-d4f1-5f5c-bcc4-f72e1c5a5436",
)(replay_command)


@app.command(
    epilog="Examples: gavel lead show 3f276050-d4f1-5f5c-bcc4-f72e1c5a5436, and the same with --why sunpeak"
)
def show(
    lead_id: LeadId,
    timezone: Annotated[
        str,
        typer.Option(
            "--timezone", help="Tell times there, as in America/New_York; by default, where you are."
        ),
    ] = "",
    why: Annotated[
        str,
        typer.Option(
            "--why", metavar="BUYER", help="Instead, what decided for or against each order of this buyer."
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Tell a lead's story from the log: every decision, and what everybody was told."""
    clock = LocalClock(_zone(timezone))
    if why:
        show_why(settings(), str(lead_id), why, clock, as_json=as_json)
        return
    story = read_story(settings(), str(lead_id), clock)
    if as_json:
        say_json(story_json(story))
    else:
        say_story(story, clock)


@app.command(epilog="Example: gavel lead withdraw 3f276050-d4f1-5f5c-bcc4-f72e1c5a5436 --reason revoked")
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
    read = read_lead(found, lead_id)
    chapters = [Chapter(entry=entry, events=events) for entry, events in read.entries]
    return Story(
        lead_id=lead_id,
        partition=read.partition,
        read_from=read.read_from,
        lines=tell(chapters, partition=read.partition, clock=clock),
    )


def say_story(story: Story, clock: LocalClock) -> None:
    """Answer with the story: decisions by their time, and under each what was sent because of it."""
    from rich.table import Table
    from rich.text import Text

    zone = clock.name(story.lines[0].at_ms)
    say(f"Lead {story.lead_id}, partition {story.partition}, told from {story.read_from}; times are {zone}.")
    say(f"Its trace is {trace_id_of(story.lead_id)}.")
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
        "trace_id": trace_id_of(story.lead_id),
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


def _require_listed(found: StepSettings, lead_id: str) -> None:
    with connect_as_auditor(found.database) as connection:
        row = connection.execute("select from router.all_leads where lead_id = %s", [lead_id]).fetchone()
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
