"""Gives contact details one spelling each: E.164 phones, normalised email addresses, trimmed text.

Nothing here asks the network, and no error repeats a value.
"""

from __future__ import annotations

import re
from functools import lru_cache

from email_validator import EmailNotValidError, validate_email
from phonenumbers import (
    NumberParseException,
    PhoneMetadata,
    PhoneNumberFormat,
    format_number,
    is_valid_number,
    parse,
)

PHONE_REGION = "US"
"""Where a number without a country code belongs."""

TEXT_MAX = 200
EMAIL_MAX = 254
_PHONE_MAX = 40
_DOMAINS_REMEMBERED = 4_096
_PLAIN_LOCAL_PART = re.compile(r"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*", re.ASCII)
# Ten digits as most Americans write them, and what the library's own data says that such a number may be. Nothing is
# refused by these two: whatever they don't take, the library judges, at twenty times the cost.
_TEN_DIGITS = re.compile(r"(?:\+?1[ .-]?)?(?:\((\d{3})\) ?|(\d{3})[ .-]?)(\d{3})[ .-]?(\d{4})", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _american_number() -> re.Pattern[str]:
    data = PhoneMetadata.metadata_for_region(PHONE_REGION)
    assert data is not None
    assert data.fixed_line is not None
    return re.compile(str(data.fixed_line.national_number_pattern))


_AMERICAN = _american_number()


class ContactError(ValueError):
    """A contact detail that is none."""


def phone(text: str) -> str:
    """Write a phone number as E.164; raise `ContactError`."""
    found = _TEN_DIGITS.fullmatch(text)
    if found:
        digits = "".join(part for part in found.groups() if part)
        if _AMERICAN.fullmatch(digits):
            return f"+1{digits}"
    if len(text) > _PHONE_MAX:
        raise ContactError("too long for a phone number")
    try:
        number = parse(text, PHONE_REGION)
    except NumberParseException:
        raise ContactError("not a phone number") from None
    if number.extension or not is_valid_number(number):
        raise ContactError("not a valid phone number")
    return format_number(number, PhoneNumberFormat.E164)


def email(text: str) -> str:
    """Write an email address as its domain's mail servers see it; raise `ContactError`."""
    local, _, domain = text.rpartition("@")
    if _PLAIN_LOCAL_PART.fullmatch(local) and len(text) <= EMAIL_MAX:
        address = f"{local}@{_domain(domain)}"
        if len(address) <= EMAIL_MAX:
            return address
    return _validated(text)


def plain(value: str) -> str:
    """Trim a name, a street or the like, and leave single spaces; raise `ContactError`."""
    trimmed = value if value.isalnum() else " ".join(value.split())
    if len(trimmed) > TEXT_MAX or not (trimmed.isprintable() or _CONTROL.search(trimmed) is None):
        raise ContactError("too long, or not text")
    return trimmed


@lru_cache(maxsize=_DOMAINS_REMEMBERED)
def _domain(domain: str) -> str:
    """Validate a domain once: few domains hold most addresses, and they cost most of the time."""
    return _validated(f"a@{domain}").rpartition("@")[2]


def _validated(address: str) -> str:
    try:
        return validate_email(address, check_deliverability=False).normalized
    except EmailNotValidError:
        raise ContactError("not an email address") from None
