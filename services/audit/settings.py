"""What the auditor is told by its environment. It reads nothing itself: the command line does."""

from __future__ import annotations

from pydantic import Field

from services.bus.settings import StepSettings


class AuditSettings(StepSettings):
    """The settings of all steps, and how often the auditor looks at what."""

    audit_round_s: int = Field(
        default=5, ge=1, le=3_600, description="so many seconds after a look at the topics comes the next"
    )
    audit_tables_s: int = Field(
        default=300,
        ge=1,
        le=86_400,
        description="so many seconds after a comparison with the tables comes the next",
    )
    audit_leads_kept: int = Field(
        default=200_000,
        ge=1_000,
        le=10_000_000,
        description="so many leads are held in memory, 1 kB each at most",
    )
