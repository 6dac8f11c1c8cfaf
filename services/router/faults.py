"""The router's passing faults: one committed nothing, after the other only the database knows what was committed."""

from __future__ import annotations

from services.bus.ports import PassingFault


class TryAgain(PassingFault):
    """A deadlock, a lock timeout: nothing was committed, the same commit may succeed."""


class StartAgain(PassingFault):
    """The connection was lost, perhaps in COMMIT: what was committed is known to the database alone (rule 4)."""
