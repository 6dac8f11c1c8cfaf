"""Reads all entries about one lead (or one account): from the router's table, else from the topic.

Whoever asks is told where it was read. The table is the origin and forgets old ranges; the database looks through a
partition there by itself, a second for some million rows. An index by lead would cost every sale half as much again as
its row in the log does. The topic keeps everything, and a whole partition of it is read and decoded here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import psycopg

from services.bus.settings import StepSettings
from services.cli.asking import partitions_inside
from services.cli.complaints import Complaint
from services.cli.log_reading import LogTable, LogTopic, Reader, entries_of
from services.cli.printing import remark
from services.cli.surroundings import connect_as_auditor
from services.contract.codec import codec
from services.contract.entries import Entry
from services.contract.events import Event, LeadClosed, LeadListed, Outcome
from services.contract.ids import partition_of

IN_TABLE = "the database (router.log)"

Told: TypeAlias = Sequence[tuple[Entry, Sequence[Event]]]
"""Entries with their events, in the order of the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeadEntries:
    """What the log tells of one lead, and where it was read."""

    lead_id: str
    partition: int
    read_from: str
    entries: Told


def read_lead(found: StepSettings, lead_id: str) -> LeadEntries:
    """Read a lead's entries; raise `Complaint` where the log knows no such lead."""
    read = read_about(found, lead_id)
    if not read.entries:
        raise Complaint(
            f"The log knows no lead {lead_id} (partition {read.partition}, read from {read.read_from}).",
            "The id is on its receipt (gavel source receipts SOURCE); a lead that was declined has no story.",
        )
    return read


def read_about(found: StepSettings, lead_id: str) -> LeadEntries:
    """Read the entries about a lead or an account; none, where there are none."""
    partition = partition_of(lead_id, partitions_inside())
    entries: Told | None = None
    read_from = IN_TABLE
    try:
        with connect_as_auditor(found.database) as connection:
            entries = _in_table(LogTable(connection), partition, lead_id)
    except psycopg.OperationalError as error:
        remark(f"The database does not answer ({str(error).strip()}): reading the topic instead.")
    if entries is None:
        read_from, entries = _in_topic(found, partition, lead_id)
    return LeadEntries(lead_id=lead_id, partition=partition, read_from=read_from, entries=entries)


def _in_table(table: LogTable, partition: int, lead_id: str) -> Told | None:
    """Read the table; None where it may have forgotten the beginning."""
    entries = [codec().decode_entry(item.value) for item in table.read_lead(partition, lead_id)]
    told = [(entry, codec().events_of(entry)) for entry in entries]
    # Asked last: what is there now was there when the entries were read.
    return told if table.has_all(partition) or _begins(told) else None


def _begins(told: Told) -> bool:
    """Tell whether these entries begin with the listing; one that was withdrawn early has an entry before it."""
    if not told:
        return False
    events = told[0][1]
    return isinstance(events[0], LeadListed) and not any(
        isinstance(event, LeadClosed) and event.outcome is Outcome.WITHDRAWN for event in events
    )


def _in_topic(found: StepSettings, partition: int, lead_id: str) -> tuple[str, Told]:
    reader = Reader(codec=codec())
    with LogTopic(found.connection(), found.topics.log) as topic:
        entries = entries_of(lead_id, topic.read(partition), reader)
    if reader.broken is not None:
        remark(
            f"The log breaks at entry {reader.broken.seq} ({reader.broken.why}): the story may go on after it."
        )
    return f"the topic ({topic.topic})", entries
