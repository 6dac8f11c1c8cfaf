"""Shows what became of bad days: for each what was done, seen and said, and a table of all."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from chaos.bad_days.playing import Played, Told

_COUNTED = ("leads in", "accepted", "sold", "declined", "dead letters", "violations", "at rest after")


def show(console: Console, played: Sequence[Played]) -> None:
    """Say it to people."""
    for each in played:
        _show_stories(console, each)
    if played:
        console.print(_table(played))


def _table(played: Sequence[Played]) -> Table:
    table = Table(title="Bad days", title_justify="left", box=box.SIMPLE, padding=(0, 1))
    table.add_column("day")
    for column in _COUNTED:
        table.add_column(column, justify="right")
    for each in played:
        names = "\n".join(f"{told.day.name}{' FAILED' if told.failure else ''}" for told in each.told)
        table.add_row(names, *_counted(each))
    return table


def _counted(played: Played) -> Sequence[str]:
    outcome = played.outcome
    if outcome is None or outcome.judgement is None:
        return ["-"] * len(_COUNTED)
    counts = outcome.judgement.counts
    declined = sum(count for name, count in counts.items() if name.startswith("answered declined"))
    numbers = (outcome.acknowledged, counts["leads accepted"], counts["sales"], declined, played.dead_letters)
    rest = "never" if outcome.rest_s is None else f"{outcome.rest_s:.0f} s"
    return [*(f"{number:,}" for number in numbers), str(len(outcome.judgement.violations)), rest]


def _show_stories(console: Console, played: Played) -> None:
    for told in played.told:
        _show_story(console, told)
    if played.outcome is not None:
        for ended in played.outcome.ended:
            console.print(f"  ended by itself: {ended.worker}: {ended.said}", style="dim", markup=False)
    for problem in played.problems:
        console.print(f"  PROBLEM: {problem}", style="red", markup=False)


def _show_story(console: Console, told: Told) -> None:
    console.print(f"\n{told.day.name}: {told.day.what}", style="bold", markup=False)
    scene = told.scene
    for title, lines in (("done", scene.done), ("seen", scene.seen), ("said", scene.said)):
        for line in lines:
            console.print(f"  {title}: {line}", markup=False, highlight=False)
    if told.failure is not None:
        console.print(f"  FAILED: {told.failure}", style="red", markup=False)
