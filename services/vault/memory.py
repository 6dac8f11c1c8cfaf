"""The in-memory twin of the vault's table, sealed like the real one, for tests and simulation.

It must not outlive its process, nor hand out anything but what `services.vault.table` would.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from services.vault.sealing import Sealed, Vault


@dataclass(slots=True)
class MemoryVault:
    """Rows of `vault.leads` by lead id."""

    vault: Vault
    rows: dict[str, Sealed] = field(default_factory=dict)

    def read(self, lead_ids: Collection[str]) -> dict[str, bytes]:
        """Open the rows of these leads; an erased or unknown lead is missing. Raise `VaultError`."""
        found = [lead_id for lead_id in lead_ids if lead_id in self.rows]
        return {lead_id: self.vault.open(lead_id, self.rows[lead_id]) for lead_id in found}

    def erase(self, lead_ids: Collection[str]) -> int:
        """Delete the rows of these leads; return how many there were."""
        return sum(self.rows.pop(lead_id, None) is not None for lead_id in set(lead_ids))
