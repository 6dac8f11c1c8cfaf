"""Makes the vault of the keys that a process was given: one to seal with, and those that it replaced.

It reads key files and nothing else; which keys the rows need, their readers find out.
"""

from __future__ import annotations

from pathlib import Path

from services.bus.settings import SettingsError, StepSettings
from services.vault.keys import decoded_key, read_key
from services.vault.sealing import Vault


def vault_of(settings: StepSettings) -> Vault:
    """Read the key that seals and the older ones; raise `KeyFileError`, or `SettingsError` where none is named."""
    return Vault(_sealing_key(settings), older_keys=[read_key(path) for path in _older(settings)])


def _sealing_key(settings: StepSettings) -> bytes:
    path, text = settings.vault_key_file, settings.vault_key
    if path is not None and text is None:
        return read_key(path)
    if text is not None and path is None:
        return decoded_key(text.get_secret_value(), "GAVEL_VAULT_KEY")
    raise SettingsError(
        "GAVEL_VAULT_KEY_FILE names the file with the vault's master key, GAVEL_VAULT_KEY is the key itself: "
        f"{'neither is set' if path is None else 'both are set, and one must go'}"
    )


def _older(settings: StepSettings) -> list[Path]:
    return [Path(name.strip()) for name in settings.vault_older_key_files.split(",") if name.strip()]
