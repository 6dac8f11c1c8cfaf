"""Reads what a buyer answered into the command that the router understands; the buyer is its topic's.

No free text and no header gets through, and no message here quotes what was sent.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self, TypeAlias, assert_never
from uuid import UUID

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from services.contract.events import Disposition, NoBidReason, RejectionReason, ReturnReason
from services.contract.inputs import (
    AcceptOffer,
    AcknowledgeErasure,
    DeclineToBid,
    PlaceBid,
    RejectOffer,
    ReportDisposition,
    ReturnLead,
    UpgradeSale,
)
from services.contract.times import amount_in_cents
from services.intake.submission import Undecodable

ANSWER_BYTES_MAX = 4 * 1024
OFFER_NUMBER_MAX = 1_000_000
AUCTION_NUMBER_MAX = 1_000_000
BID_CENTS_MAX = 100_000_000

PRICE_PATTERN = r"^(?!0(\.0{1,2})?$)((0|[1-9][0-9]{0,5})(\.[0-9]{1,2})?|1000000(\.0{1,2})?)$"
"""0.01 to 1000000.00 with at most two decimals; the published schema has the same."""

_PRICE = re.compile(PRICE_PATTERN)
_CLOSED = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
_OURS = "answer"
"""The type of the errors below, whose messages quote nothing: they alone are passed on."""


def _cents(price: object) -> int | None:
    """Read a price into minor units: a string, since a JSON number is a binary fraction to many a client."""
    if price is None:
        return None
    if not isinstance(price, str):
        raise PydanticCustomError(_OURS, 'a price is to be a string such as "85.00", not a number')
    if "\n" in price or not _PRICE.match(price):
        raise PydanticCustomError(
            _OURS, "a price is to be a decimal from 0.01 to 1000000.00, with at most two decimals"
        )
    return amount_in_cents(price)


OfferNumber: TypeAlias = Annotated[int, Field(strict=True, ge=1, le=OFFER_NUMBER_MAX)]
AuctionNumber: TypeAlias = Annotated[int, Field(strict=True, ge=1, le=AUCTION_NUMBER_MAX)]
BidCents: TypeAlias = Annotated[int | None, BeforeValidator(_cents)]
Answered: TypeAlias = (
    AcceptOffer
    | RejectOffer
    | ReportDisposition
    | PlaceBid
    | DeclineToBid
    | UpgradeSale
    | ReturnLead
    | AcknowledgeErasure
)


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


class _Bid(BaseModel):
    model_config = _CLOSED
    type: Literal["bid"]
    lead_id: UUID
    auction_number: AuctionNumber
    exclusive: BidCents = None
    shared: BidCents = None

    @model_validator(mode="after")
    def _names_a_price(self) -> Self:
        if self.exclusive is None and self.shared is None:
            raise PydanticCustomError(_OURS, "a bid is to name a price: exclusive, shared or both")
        return self


class _NoBid(BaseModel):
    model_config = _CLOSED
    type: Literal["no_bid"]
    lead_id: UUID
    auction_number: AuctionNumber
    reason: NoBidReason


class _Upgrade(BaseModel):
    model_config = _CLOSED
    type: Literal["upgrade"]
    lead_id: UUID


class _Return(BaseModel):
    model_config = _CLOSED
    type: Literal["return"]
    lead_id: UUID
    reason: ReturnReason


class _Erased(BaseModel):
    model_config = _CLOSED
    type: Literal["erased"]
    lead_id: UUID


_Answer: TypeAlias = _Accept | _Reject | _Report | _Bid | _NoBid | _Upgrade | _Return | _Erased
_ANSWER: TypeAdapter[_Answer] = TypeAdapter(Annotated[_Answer, Field(discriminator="type")])


def read_answer(value: bytes | None, *, buyer_id: str, answered_at_ms: int) -> Answered:
    """Read one record of `buyers.<id>.answers`, appended at `answered_at_ms`; raise `Undecodable`."""
    answer = _parsed(value)
    lead_id = str(answer.lead_id)
    match answer:
        case _Accept():
            return AcceptOffer(
                lead_id=lead_id,
                buyer_id=buyer_id,
                offer_number=answer.offer_number,
                answered_at_ms=answered_at_ms,
            )
        case _Reject():
            return RejectOffer(
                lead_id=lead_id, buyer_id=buyer_id, offer_number=answer.offer_number, reason=answer.reason
            )
        case _Report():
            return ReportDisposition(lead_id=lead_id, buyer_id=buyer_id, disposition=answer.disposition)
        case _Bid():
            return PlaceBid(
                lead_id=lead_id,
                buyer_id=buyer_id,
                auction_number=answer.auction_number,
                exclusive_cents=answer.exclusive,
                shared_cents=answer.shared,
                answered_at_ms=answered_at_ms,
            )
        case _NoBid():
            return DeclineToBid(
                lead_id=lead_id,
                buyer_id=buyer_id,
                auction_number=answer.auction_number,
                reason=answer.reason,
                answered_at_ms=answered_at_ms,
            )
        case _Upgrade():
            return UpgradeSale(lead_id=lead_id, buyer_id=buyer_id, answered_at_ms=answered_at_ms)
        case _Return():
            return ReturnLead(
                lead_id=lead_id, buyer_id=buyer_id, reason=answer.reason, answered_at_ms=answered_at_ms
            )
        case _Erased():
            return AcknowledgeErasure(lead_id=lead_id, buyer_id=buyer_id, by_operator=False)
        case _:
            assert_never(answer)


def _parsed(value: bytes | None) -> _Answer:
    if not value or len(value) > ANSWER_BYTES_MAX:
        raise Undecodable(f"empty, or more than {ANSWER_BYTES_MAX} bytes")
    try:
        return _ANSWER.validate_json(value)
    except ValidationError as invalid:
        raise Undecodable(_why(invalid)) from None


def _why(invalid: ValidationError) -> str:
    """Say what is wrong with a bid's prices; of any other error pydantic's words may quote what was sent."""
    found = invalid.errors(include_url=False, include_context=False, include_input=False)
    ours = next((error["msg"] for error in found if error["type"] == _OURS), None)
    return ours or "no answer of a known type and shape"
