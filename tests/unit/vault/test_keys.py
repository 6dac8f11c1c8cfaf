"""Key files: made once, for their owner alone, and every mistake is told without the key."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from services.vault.keys import KeyFileError, make_key, read_key


def test_makes_a_key_for_its_owner_alone_and_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "master.key"
    make_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(read_key(path)) == 32


def test_never_replaces_a_key(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    make_key(path)
    before = path.read_bytes()
    make_key(path)
    assert path.read_bytes() == before


def test_says_that_the_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="no such key file"):
        read_key(tmp_path / "master.key")


def test_refuses_a_file_that_anyone_can_read(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    make_key(path)
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        read_key(path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "32 bytes, and this one 0"),
        (base64.b64encode(bytes(31)), "32 bytes, and this one 31"),
        (b"s3cret!", "written in base64"),
        (b"\xff\xfe", "can't be read"),
    ],
)
def test_refuses_what_is_no_key_without_quoting_it(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "master.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match=complaint) as raised:
        read_key(path)
    assert "s3cret" not in str(raised.value)
