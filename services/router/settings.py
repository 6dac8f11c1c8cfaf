"""What the router is told by its environment."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from services.bus.settings import StepSettings


class RouterSettings(StepSettings):
    """The settings of all steps, and the vault's key, with which deliveries are opened."""

    vault_key_file: Path = Field(description="the file with the vault's master key")
