"""`gavel source`: what a source does with any Kafka client, for trying things out: send leads, read receipts.

It sends what it is given and changes nothing of it; whether a lead is any good is for intake.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from services.cli.complaints import MISUSED, Complaint
from services.cli.door_commands import add_doors
from services.cli.outsiders import Outbox, read
from services.cli.pausing import Subject, add_pausing
from services.cli.printing import onlookers, remark, say, say_json, say_json_line
from services.cli.surroundings import outsider_settings
from services.contract.access import Family

LINE_BYTES_MAX = 1_000_000
"""Kafka takes no larger record by default; intake takes far smaller ones."""

app = typer.Typer(help="Do as a source does; pause one, and let it go on.", no_args_is_help=True)
add_pausing(app, Subject.SOURCE)
add_doors(app, Family.SOURCES)

SourceId = Annotated[str, typer.Argument(metavar="SOURCE", help="The source's id in the market.")]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


@app.command(epilog="Example: gavel source send sunform leads.jsonl")
def send(
    source: SourceId,
    file: Annotated[str, typer.Argument(metavar="FILE", help="One JSON object a line; - is standard input.")],
    raw: Annotated[bool, typer.Option("--raw", help="Send the lines as they are, JSON or not.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send leads to the source's topic; what becomes of them is on its receipts."""
    settings = outsider_settings(Family.SOURCES, source)
    topic = settings.topics.source_leads(source)
    if file != "-" and not raw:
        _check_all(file)
    with Outbox(settings.connection(), [topic]) as outbox:
        with _opened(file) as lines:
            for line in _watched(lines if raw else _checked(lines, file, outbox)):
                outbox.send(topic, line)
        outbox.settle()
        sent = outbox.acknowledged
    if as_json:
        say_json({"topic": topic, "sent": sent})
    else:
        say(f"Sent {sent:,} to {topic}. Their receipts: gavel source receipts {source}")


@app.command(epilog="Example: gavel source receipts sunform")
def receipts(
    source: SourceId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """Read the source's receipts from the beginning: accepted or declined, later sold and closed."""
    settings = outsider_settings(Family.SOURCES, source)
    topic = settings.topics.source_receipts(source)
    count = 0
    for batch in read(settings.connection(), [topic], follow=follow):
        for record in batch:
            count += 1
            if as_json:
                say_json_line(json.loads(record.value))
            else:
                say(receipt_line(json.loads(record.value)))
    if not count:
        remark(f"There are no receipts on {topic} yet.")


def receipt_line(receipt: Mapping[str, Any]) -> str:
    """Write a receipt for people."""
    happened = "; ".join(map(_happened, receipt["happened"]))
    reference = f"  {receipt['reference']}" if receipt.get("reference") else ""
    return f"{receipt['at']}  {receipt['lead_id']}  {happened}{reference}"


def _happened(item: Mapping[str, Any]) -> str:
    match item["type"]:
        case "declined":
            field = f" in {item['field']}" if item.get("field") else ""
            return f"declined: {str(item['reason']).replace('_', ' ')}{field}"
        case "sold":
            return f"sold {item['mode']}, number {item['sale_number']} of at most {item['sales_max']}"
        case "closed":
            return f"closed: {str(item['outcome']).replace('_', ' ')}, {item['sales']} sold"
        case kind:
            return str(kind)


def _check_all(file: str) -> None:
    """Look through a whole file before its first line is sent, so that it is sent whole or not at all."""
    with _opened(file) as lines:
        for _ in _checked(lines, file, None):
            pass


def _checked(lines: Iterable[bytes], file: str, outbox: Outbox | None) -> Iterator[bytes]:
    """Let only JSON objects through; raise `Complaint` with the number of the first line that is none."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        wrong = _wrong_with(line)
        if wrong:
            if outbox is not None:
                outbox.settle()
            sent = outbox.acknowledged if outbox is not None else 0
            raise Complaint(
                f"{'standard input' if file == '-' else file}, line {number}: {wrong}",
                f"{'Nothing was' if not sent else f'The {sent:,} lines before it were'} sent. --raw sends lines as "
                "they are.",
            )
        yield line.strip()


def _wrong_with(line: bytes) -> str:
    if len(line) > LINE_BYTES_MAX:
        return f"expected at most {LINE_BYTES_MAX:,} bytes"
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"not JSON ({error.__class__.__name__})"
    return "" if isinstance(found, dict) else 'expected a JSON object, as in {"lead_type": ...}'


def _watched(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Show how many have been sent."""
    from rich.progress import Progress, SpinnerColumn, TextColumn

    with Progress(
        SpinnerColumn(), TextColumn("{task.completed:,.0f} sent"), console=onlookers(), transient=True
    ) as progress:
        task = progress.add_task("send", total=None)
        for line in lines:
            yield line.rstrip(b"\r\n")
            progress.advance(task)


@contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        with Path(file).open("rb") as opened:
            yield opened
    except OSError as error:
        raise Complaint(f"{file} can't be read: {error.strerror}", exit_code=MISUSED) from error
