"""How one scalar of the market file is read and written: durations, money, shares, names, addresses and words.

Each reader takes text and gives the model's value or raises FieldError, saying what it expected; each writer
gives text that its reader reads back. Nothing here knows where in the file it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TypeVar
from urllib.parse import urlsplit
from zoneinfo import available_timezones

from services.contract.fields import NO, YES, FieldError
from services.contract.times import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from services.market.currencies import OTHER_DECIMALS, TWO_DECIMALS
from services.market.errors import did_you_mean, one_of

T = TypeVar("T")

DURATION_MAX_MS = 3_650 * DAY_MS
ID_MAX = 63
COUNT_MAX = 1_000_000
URL_MAX = 2_000
LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
"""What plain http may go to: nothing leaves the machine on the way there."""

_NO_PLACES = frozenset({"Factory", "localtime"})
"""Names in zone data that mean another time on each machine, or none; PostgreSQL does not know them all."""

_UNITS_MS: Mapping[str, int] = {"d": DAY_MS, "h": HOUR_MS, "m": MINUTE_MS, "s": SECOND_MS, "ms": 1}
_DURATION = re.compile(r"([0-9]{1,12})(ms|s|m|h|d)")
_MONEY = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,2}))?")
_PERCENT = re.compile(r"([0-9]{1,3})(?:\.([0-9]{1,2}))?%")
_WHOLE = re.compile(r"[0-9]{1,9}")
_ID = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_URL = re.compile(r"https?://[!-~]+")
_FIELD_NAME = re.compile(r"[a-z][a-z0-9_]*")


def duration_ms(text: str) -> int:
    """Read `500ms`, `10m`, `72h`, `30d`."""
    found = _DURATION.fullmatch(text)
    if not found or int(found[1]) * _UNITS_MS[found[2]] > DURATION_MAX_MS:
        raise FieldError("expected a duration of at most 3650d, as in 500ms, 10s, 10m, 72h or 30d")
    return int(found[1]) * _UNITS_MS[found[2]]


def positive_duration_ms(text: str) -> int:
    """Read a duration that is not nothing."""
    milliseconds = duration_ms(text)
    if milliseconds == 0:
        raise FieldError("expected a duration longer than nothing")
    return milliseconds


def duration_text(milliseconds: int) -> str:
    """Write a duration in the largest unit that leaves no rest: 72 hours are `3d`."""
    if milliseconds == 0:
        return "0s"
    unit = next(unit for unit, size in _UNITS_MS.items() if milliseconds % size == 0)
    return f"{milliseconds // _UNITS_MS[unit]}{unit}"


def price_cents(text: str) -> int:
    """Read an amount of the market's currency: a sale is always for money, so nothing is no price."""
    found = _MONEY.fullmatch(text)
    cents = int(found[1]) * 100 + int((found[2] or "").ljust(2, "0")) if found else 0
    if cents == 0:
        raise FieldError("expected an amount over zero with at most two decimals, as in 90.00")
    return cents


def share_basis_points(text: str) -> int:
    """Read a percentage over nothing, up to all of it: `50%` is 5,000."""
    found = _PERCENT.fullmatch(text)
    points = int(found[1]) * 100 + int((found[2] or "").ljust(2, "0")) if found else 0
    if not 0 < points <= 10_000:
        raise FieldError("expected a share over 0% and up to 100%, as in 50%")
    return points


def share_text(basis_points: int) -> str:
    """Write basis points as a percentage: 1,250 is `12.5%`."""
    decimals = f"{basis_points % 100:02d}".rstrip("0")
    return f"{basis_points // 100}{'.' if decimals else ''}{decimals}%"


def number_text(thousandths: int) -> str:
    """Write thousandths as a number: 1,500 is `1.5`."""
    whole_part, rest = divmod(abs(thousandths), 1_000)
    decimals = f"{rest:03d}".rstrip("0")
    return f"{'-' if thousandths < 0 else ''}{whole_part}{'.' if decimals else ''}{decimals}"


def yes_no(text: str) -> bool:
    """Read yes, no, true or false, in any case."""
    if text.lower() not in YES | NO:
        raise FieldError("expected yes or no")
    return text.lower() in YES


def whole(low: int, high: int = COUNT_MAX) -> Callable[[str], int]:
    """Make a reader of whole numbers from low to high."""

    def read(text: str) -> int:
        if not _WHOLE.fullmatch(text) or not low <= int(text) <= high:
            raise FieldError(f"expected a whole number from {low} to {high}")
        return int(text)

    return read


def identifier(text: str) -> str:
    """Read a name that topics and tables can carry."""
    if len(text) > ID_MAX or not _ID.fullmatch(text):
        raise FieldError(f"expected a name of at most {ID_MAX} of a-z, 0-9 and inner hyphens, as in sun-peak")
    return text


def field_name(text: str) -> str:
    """Read the name of a lead's field."""
    if len(text) > ID_MAX or not _FIELD_NAME.fullmatch(text):
        raise FieldError(f"expected a field name of at most {ID_MAX} of a-z, 0-9 and _, as in owns_home")
    return text


def currency_code(text: str) -> str:
    """Read an ISO 4217 code of a currency with two decimals."""
    if text in OTHER_DECIMALS:
        raise FieldError("expected a currency with two decimals: amounts are kept in hundredths")
    if text not in TWO_DECIMALS:
        raise FieldError(f"expected an ISO 4217 code, as in USD{did_you_mean(text.upper(), TWO_DECIMALS)}")
    return text


def timezone_name(text: str) -> str:
    """Read the name of a timezone that this machine's zone data knows."""
    if text not in _timezones():
        raise FieldError(f"expected a timezone, as in America/New_York{did_you_mean(text, _timezones())}")
    return text


def word(words: Mapping[str, T]) -> Callable[[str], T]:
    """Make a reader of one of these words."""

    def read(text: str) -> T:
        if text not in words:
            raise FieldError(one_of(words) + did_you_mean(text, words))
        return words[text]

    return read


def webhook_url(text: str) -> str:
    """Read the address that a buyer's records are posted to: https, or http to the machine itself."""
    expected = (
        "expected an https address without user, password and fragment, as in https://buyer.example/leads"
    )
    if len(text) > URL_MAX or not _URL.fullmatch(text):
        raise FieldError(expected)
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise FieldError(expected) from error
    if not host or parts.username is not None or parts.password is not None or parts.fragment:
        raise FieldError(expected)
    if parts.scheme == "http" and host not in LOCAL_HOSTS:
        raise FieldError("expected https: people's contact details would cross the net for anyone to read")
    return text


@lru_cache(maxsize=1)
def _timezones() -> frozenset[str]:
    return frozenset(available_timezones()) - _NO_PLACES
