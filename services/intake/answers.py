"""Reads what a buyer answered into the command that the router understands; the buyer is its topic's.

No free text and no header gets through, and no message here quotes what was sent.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from services.contract.events import Disposition, RejectionReason
from services.contract.inputs import AcceptOffer, RejectOffer, ReportDisposition
from services.intake.submission import Undecodable

ANSWER_BYTES_MAX = 4 * 1024
OFFER_NUMBER_MAX = 1_000_000
_CLOSED = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

OfferNumber: TypeAlias = Annotated[int, Field(strict=True, ge=1, le=OFFER_NUMBER_MAX)]
Answered: TypeAlias = AcceptOffer | RejectOffer | ReportDisposition


class _Accept(BaseModel):
    model_config = _CLOSED
    type: Literal["accept_offer"]
    lead_id: UUID
    offer_number: OfferNumber


class _Reject(BaseModel):
    model_config = _CLOSED
    type: Literal["reject_offer"]
    lead_id: UUID
    offer_number: OfferNumber
    reason: RejectionReason


class _Report(BaseModel):
    model_config = _CLOSED
    type: Literal["disposition"]
    lead_id: UUID
    disposition: Disposition


_ANSWER: TypeAdapter[_Accept | _Reject | _Report] = TypeAdapter(
    Annotated[_Accept | _Reject | _Report, Field(discriminator="type")]
)


def read_answer(value: bytes | None, *, buyer_id: str, answered_at_ms: int) -> Answered:
    """Read one record of `buyers.<id>.answers`; raise `Undecodable`."""
    match _parsed(value):
        case _Accept() as accept:
            return AcceptOffer(
                lead_id=str(accept.lead_id),
                buyer_id=buyer_id,
                offer_number=accept.offer_number,
                answered_at_ms=answered_at_ms,
            )
        case _Reject() as reject:
            return RejectOffer(
                lead_id=str(reject.lead_id),
                buyer_id=buyer_id,
                offer_number=reject.offer_number,
                reason=reject.reason,
            )
        case _Report() as report:
            return ReportDisposition(
                lead_id=str(report.lead_id), buyer_id=buyer_id, disposition=report.disposition
            )


def _parsed(value: bytes | None) -> _Accept | _Reject | _Report:
    if not value or len(value) > ANSWER_BYTES_MAX:
        raise Undecodable(f"empty, or more than {ANSWER_BYTES_MAX} bytes")
    try:
        return _ANSWER.validate_json(value)
    except ValidationError:
        raise Undecodable("no answer of a known type and shape") from None
