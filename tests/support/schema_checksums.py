"""Holds stored schemas as they are: `python -m tests.support.schema_checksums` adds the lines of new ones.

`schemas/checksums.txt` has a line for each schema that was ever stored: its id, its file, and the file's SHA-256. It
only grows: this command refuses where a stored schema was edited, renumbered or taken away.
"""

from __future__ import annotations

import hashlib
import sys

import yaml

from services.contract.codec import SCHEMAS

CHECKSUMS = SCHEMAS / "checksums.txt"


def stored_lines() -> list[str]:
    """Read the lines of what was stored."""
    return CHECKSUMS.read_text().splitlines() if CHECKSUMS.exists() else []


def checksum_lines() -> list[str]:
    """Make the lines of what the registry names now, by id."""
    rows = yaml.safe_load((SCHEMAS / "registry.yaml").read_text())["schemas"]
    return [
        _line(row["id"], f"{row['type']}.v{row['version']}.avsc")
        for row in sorted(rows, key=lambda row: row["id"])
    ]


def missing_or_changed(stored: list[str], now: list[str]) -> list[str]:
    """List stored lines that what is there now does not have."""
    return [line for line in stored if line not in now]


def _line(schema_id: int, file: str) -> str:
    digest = hashlib.sha256((SCHEMAS / "avro" / file).read_bytes()).hexdigest()
    return f"{schema_id} {file} {digest}"


def main() -> None:
    """Add what is new; exit with 1 and change nothing where history would change."""
    now = checksum_lines()
    if lost := missing_or_changed(stored_lines(), now):
        sys.exit("A stored schema may not change; make a new version of it:\n" + "\n".join(lost))
    CHECKSUMS.write_text("".join(f"{line}\n" for line in now))


if __name__ == "__main__":
    main()
