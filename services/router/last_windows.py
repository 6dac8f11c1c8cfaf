"""When the last window of a closed lead is over: until then a command may still change what somebody was promised.

It knows the lead and the terms that it was accepted under. What comes later is answered all the same, and refused or
noted as it would have been; so this says what is worth keeping at hand, and not what is still possible.
"""

from __future__ import annotations

from services.contract.market import Returns
from services.router.lead import Lead, Returning, State


def last_moment_ms(state: State, returns: Returns | None, closed_at_ms: int) -> int | None:
    """Give the last moment of a lead's windows; None where it has none yet.

    An open lead has none, nor one that a buyer waits to give back: an operator decides on that at any time.
    """
    if not isinstance(state, Lead) or state.outcome is None:
        return None
    if any(sale.returning is Returning.PENDING for sale in state.sales):
        return None
    within_ms = returns.within_ms if returns is not None else 0
    ends_ms = [closed_at_ms, *(window.due_at_ms for window in state.windows)]
    for sale in state.sales:
        ends_ms += (sale.sold_at_ms + within_ms, sale.exclusive_until_ms or 0)
    return max(ends_ms)
