"""How the text of a lead's detail is read, compared and matched: one rule for intake, router and market file.

A detail travels as canonical text, so that two spellings of one value are one value. Nothing here knows a lead
or an order, and no message here repeats a value: it may be somebody's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from services.contract.market import AnyOf, Between, Condition, FieldKind, FieldType, ScoreRule, Where

QUALITY = "quality"
AGE = "age"
DERIVED = frozenset({QUALITY, AGE})
"""Names of conditions on the lead itself; no detail may be called so."""

ORDERED = frozenset({FieldType.AMOUNT, FieldType.NUMBER})
"""Types of details that a condition may compare with bounds."""

QUALITY_MAX = 100
TEXT_MAX = 200

_STATES = (
    "AL AK AZ AR CA CO CT DE FL GA HI ID IL IN IA KS KY LA ME MD MA MI MN MS MO MT NE NV NH NJ NM NY NC ND"
)
_MORE_STATES = "OH OK OR PA RI SC SD TN TX UT VT VA WA WV WI WY DC AS GU MP PR VI"
US_STATES = frozenset(f"{_STATES} {_MORE_STATES}".split())
"""USPS codes of the states, the District of Columbia and the five inhabited territories."""

YES = frozenset({"yes", "true"})
NO = frozenset({"no", "false"})

_ZIP = re.compile(r"[0-9]{5}")
_AMOUNT = re.compile(r"0*([0-9]{1,12})(?:\.([0-9]{1,2}))?")
_NUMBER = re.compile(r"(-?)0*([0-9]{1,12})(?:\.([0-9]{1,3}))?")


class FieldError(ValueError):
    """A text that its field's kind can't take; the message says what was expected, and not what was found."""


def canonical(kind: FieldKind, text: str) -> str:
    """Give the one spelling of a detail's value.

    `us_state`: two upper-case letters; `us_zip`: five digits; `amount`: two decimals (150.00); `number`: no
    needless zeros (1.5); `yes_no`: yes or no; `choice`: one of the kind's choices. Raises FieldError.
    """
    stripped = text.strip()
    if len(stripped) > TEXT_MAX:
        raise FieldError(f"expected at most {TEXT_MAX} characters")
    return _CANONICAL[kind.type](kind, stripped)


def comparable(kind: FieldKind, canonical_text: str) -> int:
    """Give a canonical amount in minor units, a canonical number in thousandths: the units of `Between`."""
    if kind.type is FieldType.AMOUNT:
        return int(canonical_text.replace(".", ""))
    if kind.type is FieldType.NUMBER:
        whole, _, decimals = canonical_text.partition(".")
        return int(whole + decimals.ljust(3, "0"))
    raise FieldError(f"expected an amount or a number: a {kind.type} has no order")


def matches(
    where: Where,
    values: Mapping[str, str],
    kinds: Mapping[str, FieldKind],
    quality: int,
    age_ms: int,
) -> bool:
    """Tell whether a lead meets every condition. `values` is canonical text; a missing field meets none."""
    return all(_meets(name, condition, values, kinds, quality, age_ms) for name, condition in where)


def quality_of(score: Sequence[ScoreRule], values: Mapping[str, str], kinds: Mapping[str, FieldKind]) -> int:
    """Add up the points of the rules that apply, to at most 100."""
    return min(QUALITY_MAX, sum(rule.points for rule in score if matches(rule.when, values, kinds, 0, 0)))


def _meets(
    name: str,
    condition: Condition,
    values: Mapping[str, str],
    kinds: Mapping[str, FieldKind],
    quality: int,
    age_ms: int,
) -> bool:
    if name in DERIVED:
        return _holds_derived(condition, quality if name == QUALITY else age_ms)
    text = values.get(name)
    if text is None:
        return False
    if isinstance(condition, AnyOf):
        return text in condition.values
    return _is_between(condition, comparable(kinds[name], text))


def _holds_derived(condition: Condition, value: int) -> bool:
    if isinstance(condition, AnyOf):
        raise ValueError("conditions on quality and age are bounds: a market file can't say otherwise")
    return _is_between(condition, value)


def _is_between(bounds: Between, value: int) -> bool:
    above = bounds.low is None or bounds.low <= value
    return above and (bounds.high is None or value <= bounds.high)


def _us_state(_: FieldKind, text: str) -> str:
    code = text.upper()
    if code not in US_STATES:
        raise FieldError("expected the two letters of a US state or territory, as in AZ")
    return code


def _us_zip(_: FieldKind, text: str) -> str:
    if not _ZIP.fullmatch(text):
        raise FieldError("expected a zip code of five digits, as in 01234")
    return text


def _amount(_: FieldKind, text: str) -> str:
    found = _AMOUNT.fullmatch(text)
    if not found:
        raise FieldError("expected an amount with at most two decimals, as in 150.00")
    return f"{int(found[1])}.{(found[2] or '').ljust(2, '0')}"


def _number(_: FieldKind, text: str) -> str:
    found = _NUMBER.fullmatch(text)
    if not found:
        raise FieldError("expected a number with at most three decimals, as in 15 or 1.5")
    decimals = (found[3] or "").rstrip("0")
    size = f"{int(found[2])}.{decimals}" if decimals else str(int(found[2]))
    return size if size == "0" else found[1] + size


def _yes_no(_: FieldKind, text: str) -> str:
    word = text.lower()
    if word in YES or word in NO:
        return "yes" if word in YES else "no"
    raise FieldError("expected yes or no")


def _choice(kind: FieldKind, text: str) -> str:
    if text not in kind.choices:
        raise FieldError(f"expected one of {', '.join(kind.choices)}")
    return text


_CANONICAL: Mapping[FieldType, Callable[[FieldKind, str], str]] = {
    FieldType.US_STATE: _us_state,
    FieldType.US_ZIP: _us_zip,
    FieldType.AMOUNT: _amount,
    FieldType.NUMBER: _number,
    FieldType.YES_NO: _yes_no,
    FieldType.CHOICE: _choice,
}
