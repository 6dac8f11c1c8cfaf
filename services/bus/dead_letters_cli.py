"""`gavel dlq`: what could not be processed, and its way back. It prints no content of a record unless asked to.

Only an operator redrives, and only what was chosen: nothing goes back by itself. No rule stands here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from services.bus.dead_letters import (
    Choice,
    DeadLetter,
    KafkaLetters,
    LettersRefused,
    letters_in,
    reasons,
)
from services.bus.dead_letters import redrive as redrive_letters
from services.bus.dead_letters import show as show_letters
from services.bus.kafka import LogProducer
from services.bus.settings import StepSettings, read_settings

MISUSED = 2
LIMIT_MAX = 10_000
PIPED_WIDTH = 120

T = TypeVar("T")

app = typer.Typer(
    help="What intake could not read: list, show and redrive dead letters.", no_args_is_help=True
)


class DeadLetterSettings(StepSettings):
    """Kafka is all that dead letters need."""

    database: str = ""


TopicName = Annotated[str, typer.Argument(help="A topic of dead letters, as `gavel dlq list` names it.")]
Partition = Annotated[int | None, typer.Option("--partition", min=0, help="Of this partition only.")]
FromOffset = Annotated[int | None, typer.Option("--from", min=0, help="From this offset on.")]
ToOffset = Annotated[int | None, typer.Option("--to", min=0, help="Up to this offset, itself included.")]
ErrorClass = Annotated[str | None, typer.Option("--error", help="With this kind of error only.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=LIMIT_MAX, help="So many letters at most.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


@app.command("list")
def list_command(as_json: AsJson = False) -> None:
    """Count dead letters by topic and reason; tells nothing of their contents."""
    letters = _open(_settings())
    found = [reason for topic in letters.topics() for reason in reasons(letters_in(letters.read(topic)))]
    if as_json:
        _say_json([asdict(reason) for reason in found])
    elif not found:
        typer.echo("no dead letters")
    else:
        rows = [
            (reason.topic, reason.stage, reason.error_class, reason.letters, reason.redriven, reason.last_at)
            for reason in found
        ]
        _say_table(("topic", "stage", "error", "letters", "redriven", "last at"), rows)


@app.command("show")
def show_command(
    topic: TopicName,
    partition: Partition = None,
    from_offset: FromOffset = None,
    to_offset: ToOffset = None,
    error_class: ErrorClass = None,
    limit: Limit = 20,
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Print key, headers and value too: they may hold personal data.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what went wrong with each dead letter of a topic."""
    letters = _open(_settings())
    choice = Choice(
        partition=partition, from_offset=from_offset, to_offset=to_offset, error_class=error_class
    )
    found = _refusing(lambda: show_letters(letters, topic, choice, limit=limit))
    facts = [_facts(letter, reveal=reveal) for letter in found]
    if as_json:
        _say_json(facts)
        return
    for fact in facts:
        typer.echo("\n".join(f"{name}: {value}" for name, value in fact.items()) + "\n")
    typer.echo(f"{len(facts)} dead letters" + (f" (the first {limit})" if len(facts) == limit else ""))


@app.command("redrive")
def redrive_command(
    topic: TopicName,
    partition: Partition = None,
    from_offset: FromOffset = None,
    to_offset: ToOffset = None,
    error_class: ErrorClass = None,
    limit: Limit = 1_000,
    again: Annotated[bool, typer.Option("--again", help="Send back also what went back before.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would go back, and send nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Send dead letters back to the topic that they came from. What went back before is left, and counted."""
    settings = _settings()
    letters = _open(settings)
    choice = Choice(
        partition=partition, from_offset=from_offset, to_offset=to_offset, error_class=error_class
    )
    producer = LogProducer(settings.connection(), client_id="gavel-dlq")
    done = _refusing(
        lambda: redrive_letters(
            letters, producer, topic, choice, at_ms=_now_ms(), limit=limit, again=again, dry_run=dry_run
        )
    )
    if as_json:
        _say_json(
            {
                "topic": topic,
                "dry_run": dry_run,
                "sent": [_place(letter) for letter in done.sent],
                "sent_before": [_place(letter) for letter in done.sent_before],
                "left_out": [_place(letter) for letter in done.left_out],
                "more": done.more,
            }
        )
        return
    typer.echo(
        f"{len(done.sent)} dead letters {'would go' if dry_run else 'went'} back to {topic.removesuffix('.dlq')}"
    )
    if done.sent_before:
        typer.echo(f"{len(done.sent_before)} went back before and were left; --again sends them once more")
    if done.left_out:
        typer.echo(f"{len(done.left_out)} were too large to be put aside: they are in their own topic alone")
    if done.more:
        typer.echo(f"more than {limit} were chosen: redrive again for the rest")


def _settings() -> StepSettings:
    return read_settings(DeadLetterSettings, who="operator")


def _open(settings: StepSettings) -> KafkaLetters:
    return KafkaLetters(settings.connection(), settings.topics)


def _refusing(ask: Callable[[], T]) -> T:
    try:
        return ask()
    except LettersRefused as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(MISUSED) from error


def _facts(letter: DeadLetter, *, reveal: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {
        **_place(letter),
        "from": f"{letter.topic} partition {letter.partition} offset {letter.offset}",
        "at": letter.at,
        "stage": letter.stage,
        "error": letter.error_class,
        "message": letter.message,
        "attempts": letter.attempts,
        "redriven": letter.redriven,
        "left_out_bytes": letter.left_out_bytes,
    }
    return facts | (_contents(letter) if reveal else {})


def _contents(letter: DeadLetter) -> dict[str, Any]:
    return {
        "key": _readable(letter.record.key),
        "headers": {name: _readable(value) for name, value in letter.original_headers},
        "value": _readable(letter.record.value),
    }


def _place(letter: DeadLetter) -> dict[str, int]:
    return {"partition": letter.record.partition, "offset": letter.record.offset}


def _readable(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="backslashreplace")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000  # noqa: TID251  # a command line is where the clock enters


def _say_json(answer: object) -> None:
    typer.echo(json.dumps(answer, indent=2, ensure_ascii=False))


def _say_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    table = Table()
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*map(str, row))
    console = Console(highlight=False, markup=False)
    (console if console.is_terminal else Console(highlight=False, markup=False, width=PIPED_WIDTH)).print(
        table
    )
