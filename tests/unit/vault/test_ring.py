"""Which keys a process is given: a file or the environment, older ones beside it, and never a silent lack of one."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from pydantic import SecretStr

from services.bus.settings import SettingsError, StepSettings
from services.vault.keys import KeyFileError, make_key, read_key
from services.vault.ring import vault_of
from services.vault.sealing import key_id_of

KEY = base64.b64encode(bytes(range(32))).decode()


def _settings(**given: object) -> StepSettings:
    return StepSettings.model_validate(
        {"kafka": "k:1", "database": "postgresql:///g", "vault_key_file": None, **given}
    )


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    first, second = tmp_path / "one.key", tmp_path / "two.key"
    assert make_key(first)
    assert make_key(second)
    return first, second


def test_seals_with_the_file_and_opens_with_the_older_ones_too(files: tuple[Path, Path]) -> None:
    new, old = files
    vault = vault_of(_settings(vault_key_file=new, vault_older_key_files=f" {old} ,"))
    assert vault.key_id == key_id_of(read_key(new))
    assert vault.key_ids == {key_id_of(read_key(new)), key_id_of(read_key(old))}


def test_takes_the_key_itself_from_the_environment_and_shows_it_nowhere() -> None:
    settings = _settings(vault_key=SecretStr(KEY))
    assert vault_of(settings).key_id == key_id_of(bytes(range(32)))
    assert KEY not in repr(settings)


def test_says_that_no_key_is_set_or_that_two_are(files: tuple[Path, Path]) -> None:
    with pytest.raises(SettingsError, match=r"GAVEL_VAULT_KEY_FILE.*neither is set"):
        vault_of(_settings())
    with pytest.raises(SettingsError, match="both are set"):
        vault_of(_settings(vault_key_file=files[0], vault_key=SecretStr(KEY)))


def test_says_which_older_file_is_missing(files: tuple[Path, Path]) -> None:
    with pytest.raises(KeyFileError, match=r"gone\.key: there is no such key file"):
        vault_of(_settings(vault_key_file=files[0], vault_older_key_files="gone.key"))


def test_says_of_a_bad_key_in_the_environment_where_it_stands_without_quoting_it() -> None:
    with pytest.raises(KeyFileError, match="GAVEL_VAULT_KEY") as raised:
        vault_of(_settings(vault_key=SecretStr("s3cret!")))
    assert "s3cret" not in str(raised.value)
