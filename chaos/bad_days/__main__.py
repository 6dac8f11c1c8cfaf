"""Plays bad days on servers of their own: `python -m chaos.bad_days`, what `make bad-days` does.

Exit code 0: each was told clearly, nothing was lost and nothing broken; 1: something was, or a day could not be
played; 2: wrongly asked; 130: interrupted.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import fields

from confluent_kafka import KafkaException
from rich.console import Console

from bench.command_line import count, end_in_order_on, positive
from chaos.__main__ import LOGS, NOT_OURS
from chaos.bad_days import report
from chaos.bad_days.day import BadDay
from chaos.bad_days.days import DAYS
from chaos.bad_days.playing import Played, play
from chaos.bad_days.size import Size
from chaos.servers import own_servers
from deploy.local.stack import StackError
from services.bus.ports import BusFailed


def main() -> int:
    """Play them, show the table; return the exit code."""
    runs, size = _arguments(sys.argv[1:])
    end_in_order_on((signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    for name in NOT_OURS:
        os.environ.pop(
            name, None
        )  # servers are stopped and starved here: never those that somebody else runs
    console = Console(stderr=True)
    played: list[Played] = []
    try:
        for days in runs:
            played.append(_played(days, size, console))
    except (StackError, BusFailed, KafkaException, OSError) as error:
        console.print(f"The days could not be played. {error}", style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted; everything that was started is stopped.")
        return 130
    finally:
        report.show(console, played)
    return 0 if all(each.is_well for each in played) else 1


def _played(days: Sequence[BadDay], size: Size, console: Console) -> Played:
    """Play days on servers of their own: what is done to them is nobody else's trouble."""
    folder = LOGS / "-".join(day.name for day in days)
    folder.mkdir(parents=True, exist_ok=True)
    for log in folder.glob("*.log*"):
        log.unlink()
    console.print(f"{', '.join(day.name for day in days)}. Logs: {folder}", markup=False)

    def say(message: str) -> None:
        console.print(message, style="dim", markup=False, highlight=False, soft_wrap=True)

    with own_servers(1, folder, say, keep=False) as servers:
        return play(days, size, servers, folder, say)


def _arguments(words: Sequence[str]) -> tuple[Sequence[Sequence[BadDay]], Size]:
    parser = argparse.ArgumentParser(prog="python -m chaos.bad_days", description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=tuple(DAYS), default=tuple(DAYS), help="(default: all)")
    parser.add_argument("--together", action="store_true", help="one after the other on one Gavel")
    for each in fields(Size):
        kind = count if isinstance(each.default, int) else positive
        flag = f"--{each.name.replace('_', '-')}"
        parser.add_argument(flag, type=kind, default=each.default, help=f"(default {each.default})")
    given = parser.parse_args(words)
    chosen = [DAYS[name] for name in given.only]
    size = Size(**{each.name: getattr(given, each.name) for each in fields(Size)})
    return [chosen] if given.together else [[day] for day in chosen], size


if __name__ == "__main__":
    sys.exit(main())
