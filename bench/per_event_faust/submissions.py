"""What a source may send, as pydantic models with the libraries that Gavel's own intake uses."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal

import phonenumbers
from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _email(text: str) -> str:
    try:
        return validate_email(text, check_deliverability=False).normalized
    except EmailNotValidError as error:
        raise ValueError(str(error)) from error


def _phone(text: str) -> str:
    try:
        number = phonenumbers.parse(text, "US")
    except phonenumbers.NumberParseException as error:
        raise ValueError(str(error)) from error
    if not phonenumbers.is_valid_number(number):
        raise ValueError("not a valid telephone number")
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


Text = Annotated[str, Field(min_length=1, max_length=200)]


class Strict(BaseModel):
    """A model that takes no key it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Contact(Strict):
    """Who asked."""

    first_name: Text
    last_name: Text
    email: Annotated[str, AfterValidator(_email)]
    phone: Annotated[str, AfterValidator(_phone)]
    street: Text


class Details(Strict):
    """What they asked for."""

    state: Annotated[str, Field(pattern="^[A-Z]{2}$")]
    zip: Annotated[str, Field(pattern="^[0-9]{5}$")]
    monthly_bill: Annotated[Decimal, Field(ge=0, decimal_places=2)]
    owns_home: Literal["yes", "no"]
    roof_age_years: Annotated[int, Field(ge=0)]


class Consent(Strict):
    """What they agreed to, when and where."""

    text: Annotated[str, Field(min_length=1, max_length=2_000)]
    at: datetime
    url: Text
    certificate: Text


class Submission(Strict):
    """A lead from a source."""

    reference: Text
    lead_type: Literal["solar"]
    created_at: datetime
    contact: Contact
    details: Details
    consent: Consent


def quality_of(details: Details) -> int:
    """Score a lead as the benchmark's market does."""
    owner = 40 if details.owns_home == "yes" else 0
    bill = 30 if details.monthly_bill >= 150 else 0
    return owner + bill + (30 if details.roof_age_years <= 15 else 0)
