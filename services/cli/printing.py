"""How the command line speaks: answers on standard output, everything else on standard error.

Progress is for people who watch: it goes to standard error, and is silent when that is no terminal. Rich itself
heeds NO_COLOR. Nothing here knows what is said.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console

PIPED_WIDTH = 120


def say(text: str = "") -> None:
    """Answer with a line of text."""
    typer.echo(text)


def say_json(answer: object) -> None:
    """Answer with one JSON document for machines."""
    typer.echo(json.dumps(answer, indent=2, ensure_ascii=False, default=str))


def say_json_line(answer: object) -> None:
    """Answer with one of many JSON documents, on a line of its own and at once."""
    typer.echo(json.dumps(answer, ensure_ascii=False, default=str))
    sys.stdout.flush()


def remark(text: str) -> None:
    """Say to people what isn't part of the answer."""
    typer.echo(text, err=True)


def say_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Answer with a table; columns whose name begins with `#` hold numbers."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", expand=False)
    for column in columns:
        table.add_column(column.removeprefix("#"), justify="right" if column.startswith("#") else "left")
    for row in rows:
        table.add_row(*map(str, row))
    answers().print(table)


@lru_cache(maxsize=1)
def answers() -> Console:
    """Give the console of standard output, wide enough for tables where it is no terminal."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    return (
        console
        if console.is_terminal
        else Console(highlight=False, markup=False, emoji=False, width=PIPED_WIDTH)
    )


@lru_cache(maxsize=1)
def onlookers() -> Console:
    """Give the console of progress; what is written to it is seen on a terminal only."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    return Console(stderr=True, highlight=False, quiet=not console.is_terminal)
