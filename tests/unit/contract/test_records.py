"""A quickly made record is in all but time what the dataclass was."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, dataclass, field, replace

import pytest

from services.contract.records import quickly_made


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """As dataclasses make it."""

    a: int
    b: str = "b"


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class Quick:
    """As we do."""

    a: int
    b: str = "b"


@quickly_made
@dataclass(frozen=True, slots=True)
class Positional:
    """With places."""

    a: int
    b: str = "b"


def test_is_made_equal_and_hashed_as_the_plain_one() -> None:
    assert (Quick(a=1).a, Quick(a=1).b, Quick(a=1, b="c").b) == (1, "b", "c")
    assert Quick(a=1) == Quick(a=1, b="b")
    assert Quick(a=1) != Quick(a=2)
    assert hash(Quick(a=1)) == hash(Quick(a=1))
    assert type(Quick(a=1)) is Quick
    assert repr(Quick(a=1)) == repr(Plain(a=1)).replace("Plain", "Quick")
    assert Positional(1, "c") == Positional(a=1, b="c")


def test_cannot_be_changed() -> None:
    made = Quick(a=1)
    with pytest.raises(FrozenInstanceError):
        made.a = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        del made.b


def test_is_copied_replaced_and_pickled() -> None:
    made = Quick(a=1)
    assert replace(made, b="c") == Quick(a=1, b="c")
    assert copy.copy(made) == made
    assert pickle.loads(pickle.dumps(made)) == made


@pytest.mark.parametrize("arguments", [{}, {"a": 1, "c": 2}])
def test_refuses_missing_and_unknown_arguments(arguments: dict[str, int]) -> None:
    with pytest.raises(TypeError):
        Quick(**arguments)  # type: ignore[arg-type]


def test_refuses_places_where_names_are_required() -> None:
    with pytest.raises(TypeError):
        Quick(1)  # type: ignore[call-arg]


def test_refuses_classes_that_do_more_when_they_are_made() -> None:
    @dataclass(frozen=True, slots=True)
    class WithFactory:
        a: list[int] = field(default_factory=list)

    @dataclass(frozen=True, slots=True)
    class WithAfterthought:
        a: int

        def __post_init__(self) -> None: ...

    for refused in (WithFactory, WithAfterthought):
        with pytest.raises(NotImplementedError):
            quickly_made(refused)
