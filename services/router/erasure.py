"""Forgetting a lead's person: the lead is off the market, its details go, and each holder is asked to follow.

What is deleted is deleted by whoever publishes the entry; what a holder says of it is on record. Pure.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from services.contract.events import (
    ErasureAcknowledged,
    ErasureReason,
    LeadErased,
    Outcome,
    RefusalReason,
    WithdrawalNoted,
    WithdrawalReason,
)
from services.contract.inputs import AcknowledgeErasure, EraseLead
from services.contract.times import DAY_MS
from services.router.deciding import Deciding
from services.router.lead import Lead, WithdrawnEarly

ERASED_WITHIN_DAYS: Final = 30
"""GDPR, Article 12(3): one month, of which we give the shortest that is safe to name."""

REVOKED_WITHIN_BUSINESS_DAYS: Final = 10
"""47 CFR 64.1200(a)(10). Holidays are counted as business days, which only makes the time shorter."""

_SATURDAY: Final = 5


def erase_lead(deciding: Deciding, command: EraseLead) -> None:
    """End a lead's selling and have it forgotten; asked again for the same, or for less, nothing changes."""
    state = deciding.state
    if _is_done(state, command.reason):
        return
    if state is None:
        deciding.record(WithdrawalNoted(reason=WithdrawalReason(command.reason)))
    elif isinstance(state, Lead) and state.outcome is None:
        deciding.close(state, Outcome.WITHDRAWN)
    deciding.record(
        LeadErased(
            reason=command.reason,
            holders=state.holders if isinstance(state, Lead) else (),
            acknowledge_by_ms=acknowledge_by_ms(
                command.reason, deciding.now_ms, deciding.conditions.market.timezone
            ),
        )
    )
    if not isinstance(state, Lead):
        deciding.state = WithdrawnEarly(reason=WithdrawalReason(command.reason))


def acknowledge_erasure(deciding: Deciding, command: AcknowledgeErasure) -> None:
    """Put on record that a holder has erased the lead; a repeat changes nothing."""
    told = None if command.by_operator else command.buyer_id
    lead = deciding.known_lead("acknowledge_erasure", told)
    sale = lead.sale_of(command.buyer_id) if lead is not None else None
    if lead is None:
        return
    if sale is None:
        deciding.refuse("acknowledge_erasure", told, RefusalReason.NOT_A_HOLDER)
    elif lead.erasure is None:
        deciding.refuse("acknowledge_erasure", told, RefusalReason.ERASURE_NOT_ASKED)
    elif command.buyer_id not in lead.erased_by:
        deciding.record(
            ErasureAcknowledged(
                sale_number=sale.number, buyer_id=command.buyer_id, by_operator=command.by_operator
            )
        )


def acknowledge_by_ms(reason: ErasureReason, now_ms: int, timezone: str) -> int:
    """Say until when a holder has to answer, in UTC milliseconds; business days are those of the market's zone."""
    if reason is ErasureReason.ERASED:
        return now_ms + ERASED_WITHIN_DAYS * DAY_MS
    day = datetime.fromtimestamp(now_ms / 1_000, tz=UTC).astimezone(ZoneInfo(timezone))
    left = REVOKED_WITHIN_BUSINESS_DAYS
    while left:
        day += timedelta(days=1)
        left -= day.weekday() < _SATURDAY
    return round(day.timestamp() * 1_000)


def _is_done(state: Lead | WithdrawnEarly | None, reason: ErasureReason) -> bool:
    """A person that is forgotten can't ask for less."""
    if isinstance(state, Lead):
        return state.erasure in (reason, ErasureReason.ERASED)
    return isinstance(state, WithdrawnEarly) and state.reason in (reason.value, WithdrawalReason.ERASED)
