"""Reads and makes key files: 32 random bytes in base64, for its owner alone.

A key is never logged, and no message here repeats a file's content.
"""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path

from services.vault.sealing import KEY_BYTES


class KeyFileError(Exception):
    """A key file that is missing, readable by others, or no key."""


def read_key(path: Path) -> bytes:
    """Read one key; raise `KeyFileError`, which says what to do about it."""
    try:
        mode, text = path.stat().st_mode, path.read_text(encoding="ascii")
    except FileNotFoundError:
        raise KeyFileError(f"{path}: there is no such key file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"{path}: can't be read as a key file ({type(error).__name__})") from None
    if mode & 0o007:
        raise KeyFileError(f"{path}: others can read this key: chmod 600 {path}")
    return decoded_key(text, str(path))


def make_key(path: Path) -> bool:
    """Make a file with a new key, readable by its owner alone; False where one is there, which is left as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "wb") as file:
        file.write(base64.b64encode(os.urandom(KEY_BYTES)) + b"\n")
    return True


def decoded_key(text: str, where: str) -> bytes:
    """Read a key's text; raise `KeyFileError`, which says `where` it stood."""
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except binascii.Error:
        raise KeyFileError(f"{where}: a key is written in base64, and this one isn't") from None
    if len(key) != KEY_BYTES:
        raise KeyFileError(f"{where}: a key has {KEY_BYTES} bytes, and this one {len(key)}")
    return key
