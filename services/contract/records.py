"""Makes frozen, slotted dataclasses as fast to construct as a hot path needs: the same class, another `__init__`.

A frozen dataclass sets each of its fields by a call of `object.__setattr__`, which for an event of 21 fields takes six
times as long as plain assignment. Here an instance is a writable twin of the same layout while it is filled, and the
frozen class from then on. Nothing else about the class changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from typing import Any, TypeVar

_T = TypeVar("_T")


def quickly_made(record_type: type[_T]) -> type[_T]:
    """Give a frozen, slotted dataclass a fast `__init__` with the same parameters.

    Raise `NotImplementedError` for a class with `__post_init__` or default factories.
    """
    parts = fields(record_type)  # type: ignore[arg-type]  # it is a dataclass, which TypeVar can't say
    names: dict[str, Any] = {
        "become": object.__setattr__,
        "thawed": thawed_twin(record_type),
        "frozen": record_type,
        **{f"default_{part.name}": part.default for part in parts if part.default is not MISSING},
    }
    lines = [f"    self.{part.name} = {part.name}" for part in parts]
    source = "\n".join(
        [
            f"def __init__({', '.join(_parameters(parts))}):",
            "    become(self, '__class__', thawed)",
            *lines,
            "    self.__class__ = frozen",
        ]
    )
    exec(source, names)
    made: Callable[..., None] = names["__init__"]
    made.__qualname__ = f"{record_type.__qualname__}.__init__"
    made.__doc__ = record_type.__init__.__doc__
    type.__setattr__(record_type, "__init__", made)
    return record_type


def thawed_twin(record_type: type) -> type:
    """Make a class of the same layout as a frozen, slotted dataclass, whose instances can be written to."""
    if hasattr(record_type, "__post_init__"):
        raise NotImplementedError(f"{record_type.__name__} does something when it is made")
    return type(record_type.__name__, (), {"__slots__": tuple(item.name for item in fields(record_type))})


def _parameters(parts: tuple[Field[Any], ...]) -> list[str]:
    positional = [_parameter(part) for part in parts if not part.kw_only]
    by_name = [_parameter(part) for part in parts if part.kw_only]
    return ["self", *positional, *(["*", *by_name] if by_name else [])]


def _parameter(part: Field[Any]) -> str:
    if part.default_factory is not MISSING:
        raise NotImplementedError(f"{part.name} has a default factory")
    return part.name if part.default is MISSING else f"{part.name}=default_{part.name}"


def quick_copier(record_type: type[_T]) -> Callable[[_T], _T]:
    """Make a function that copies an instance of a slotted dataclass, a fraction as long as `copy.copy` takes."""
    names: dict[str, Any] = {"new": object.__new__, "record_type": record_type}
    lines = [f"    made.{part.name} = record.{part.name}" for part in fields(record_type)]  # type: ignore[arg-type]  # it is a dataclass, which TypeVar can't say
    source = "\n".join(["def copied(record):", "    made = new(record_type)", *lines, "    return made"])
    exec(source, names)
    copied: Callable[[_T], _T] = names["copied"]
    return copied
