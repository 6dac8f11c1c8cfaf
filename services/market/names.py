"""Walks sections whose keys are names that people chose, and checks that topics and tables can carry those names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from services.contract.fields import FieldError
from services.market.fields import identifier
from services.market.tree import At, Keys

T = TypeVar("T")


def named(keys: Keys, section: str, read: Callable[[At, str], T]) -> dict[str, T]:
    """Read each entry of a section by its name; without the section there is none."""
    at = keys.node(section)
    if at is None:
        return {}
    found: dict[str, T] = {}
    for name, entry in at.named():
        _check_name(entry, name)
        found[name] = read(entry, name)
    return found


def _check_name(at: At, name: str) -> None:
    try:
        identifier(name)
    except FieldError as error:
        at.wrong(f"unfit name: {error}")
