"""A small explicit-state model checker: visits every state that a model can reach, breadth first.

A model gives its initial state, the steps from each state, and what must hold. A state is any hashable value. A step
that is marked as a fault may happen and may not, so nothing that must happen in the end may need one.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

S = TypeVar("S")


class Step(NamedTuple, Generic[S]):
    """One thing that can happen next: what it is called, and the state after it."""

    name: str
    after: S
    is_fault: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Model(Generic[S]):
    """What is checked.

    `wrong` says what is broken in a state, or None; `is_done` tells whether all that must happen has happened.
    """

    initial: S
    steps: Callable[[S], Iterable[Step[S]]]
    wrong: Callable[[S], str | None]
    is_done: Callable[[S], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counterexample:
    """What is broken, and the shortest way there."""

    wrong: str
    trace: tuple[str, ...]

    def __str__(self) -> str:
        """Tell it as numbered steps."""
        steps = [f"{number:3}. {name}" for number, name in enumerate(self.trace, start=1)]
        return "\n".join([self.wrong, *steps])


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How much was looked at, and what was found."""

    states: int
    steps: int
    done: int
    found: Counterexample | None


class TooManyStates(Exception):
    """The model is larger than it was said to be: nothing is known of the rest."""


@dataclass(slots=True)
class _Search(Generic[S]):
    """The states seen, in the order of their discovery; each knows the step that found it."""

    numbers: dict[S, int] = field(default_factory=dict)
    parents: array[int] = field(default_factory=lambda: array("l"))
    names: list[str] = field(default_factory=list)
    arrows: tuple[array[int], array[int]] = field(default_factory=lambda: (array("l"), array("l")))
    taken: int = 0

    def number(self, state: S, parent: int, name: str) -> int | None:
        """Number a state that is new; None for one that is known."""
        if state in self.numbers:
            return None
        number = self.numbers[state] = len(self.parents)
        self.parents.append(parent)
        self.names.append(name)
        return number

    def note(self, before: int, after: int, *, is_fault: bool) -> None:
        """Keep an arrow, if it may be counted on."""
        self.taken += 1
        if not is_fault:
            self.arrows[0].append(before)
            self.arrows[1].append(after)

    def trace(self, number: int) -> tuple[str, ...]:
        """Name the steps from the initial state to this one."""
        names: list[str] = []
        while number:
            names.append(self.names[number])
            number = self.parents[number]
        return (*reversed(names),)


def check(model: Model[S], *, states_max: int = 2_000_000) -> Result:
    """Visit every state; stop at the first that is wrong.

    When none is, look for states from which the end can't be reached without a fault: what hangs there hangs for good.
    Raise `TooManyStates` over `states_max`.
    """
    search: _Search[S] = _Search()
    done: list[int] = []
    search.number(model.initial, -1, "")
    frontier: list[S] = [model.initial]
    for state in _growing(frontier):
        number = search.numbers[state]
        wrong = model.wrong(state)
        if wrong is not None:
            return _result(search, done, Counterexample(wrong=wrong, trace=search.trace(number)))
        if model.is_done(state):
            done.append(number)
        for step in model.steps(state):
            if search.number(step.after, number, step.name) is not None:
                frontier.append(step.after)
            search.note(number, search.numbers[step.after], is_fault=step.is_fault)
        if len(frontier) > states_max:
            raise TooManyStates(f"over {states_max:,} states")
    stuck = _first_without_end(search, done)
    found = None
    if stuck is not None:
        found = Counterexample(wrong="it can't come to its end from here", trace=search.trace(stuck))
    return _result(search, done, found)


def _growing(items: list[S]) -> Iterator[S]:
    """Go through a list that grows meanwhile."""
    at = 0
    while at < len(items):
        yield items[at]
        at += 1


def _result(search: _Search[S], done: list[int], found: Counterexample | None) -> Result:
    return Result(states=len(search.parents), steps=search.taken, done=len(done), found=found)


def _first_without_end(search: _Search[S], done: list[int]) -> int | None:
    """Go back from the ends along the arrows; give the first state that none of them was reached from."""
    backwards: list[list[int]] = [[] for _ in search.parents]
    for before, after in zip(*search.arrows, strict=True):
        backwards[after].append(before)
    reached = bytearray(len(search.parents))
    waiting = list(done)
    for number in waiting:
        reached[number] = 1
    while waiting:
        for before in backwards[waiting.pop()]:
            if not reached[before]:
                reached[before] = 1
                waiting.append(before)
    first = reached.find(0)
    return None if first < 0 else first
