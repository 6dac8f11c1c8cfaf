"""What the billing worker is told by its environment. It reads nothing itself: `__main__` does."""

from __future__ import annotations

from pydantic import Field

from services.bus.settings import StepSettings


class BillingSettings(StepSettings):
    """The settings of all steps, with one default of billing's own.

    Nobody waits for a bill, so batches wait for company: a transaction costs over a millisecond, however few leads it
    has, which at 1,000 leads/s in batches of 2 ms would be a whole core.
    """

    batch_wait_ms: int = Field(
        default=100,
        ge=0,
        le=1_000,
        description="how long a step rests at most so that records gather: half of what its last batch took, if less",
    )
