"""Runs a router worker: `python -m services.router`, or `gavel step run router`."""

from __future__ import annotations

import sys

from services.bus.hosting import run
from services.bus.settings import SettingsError, read_settings
from services.router.app import build_router_app
from services.router.settings import RouterSettings
from services.vault.keys import KeyFileError, read_key
from services.vault.sealing import Vault


def main() -> None:
    """Read the environment and run until told to stop."""
    try:
        settings = read_settings(RouterSettings, who="router")
        vault = Vault(read_key(settings.vault_key_file))
    except (SettingsError, KeyFileError) as error:
        sys.exit(f"the router can't start:\n{error}")
    run(build_router_app(settings, vault))


if __name__ == "__main__":
    main()
