"""Runs a router worker: `python -m services.router`, or `gavel step run router`."""

from __future__ import annotations

import sys

from services.bus.hosting import run
from services.bus.settings import SettingsError, StepSettings, read_settings
from services.router.app import build_router_app
from services.vault.keys import KeyFileError
from services.vault.ring import vault_of


def main() -> None:
    """Read the environment and run until told to stop."""
    try:
        settings = read_settings(StepSettings, who="router")
        vault = vault_of(settings)
    except (SettingsError, KeyFileError) as error:
        sys.exit(f"the router can't start:\n{error}")
    run(build_router_app(settings, vault))


if __name__ == "__main__":
    main()
