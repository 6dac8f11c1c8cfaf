"""Settings come from the environment, and what is wrong with them is told without a value."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from services.bus.settings import SettingsError, StepSettings, read_settings, user_file


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Begin with an environment that suffices."""
    for field in StepSettings.model_fields:
        monkeypatch.delenv(f"GAVEL_{field.upper()}", raising=False)
    monkeypatch.setenv("GAVEL_KAFKA", "localhost:9092")
    monkeypatch.setenv("GAVEL_DATABASE", "postgresql://gavel:hunter2@localhost/gavel")
    return monkeypatch


def test_reads_what_is_set_and_has_a_default_for_the_rest(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("GAVEL_NAMESPACE", "test.")
    environment.setenv("GAVEL_BATCH_MAX", "100")
    settings = read_settings(StepSettings)
    assert (settings.kafka, settings.batch_max, settings.session_timeout_ms) == ("localhost:9092", 100, 6_000)
    assert settings.topics.log == "test.leads.log"
    assert settings.web_port is None


def test_settings_never_change() -> None:
    settings = read_settings(StepSettings)
    with pytest.raises(ValidationError):
        settings.batch_max = 1  # type: ignore[misc]


def test_names_each_missing_variable_and_what_it_is_for(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("GAVEL_KAFKA")
    environment.delenv("GAVEL_DATABASE")
    with pytest.raises(SettingsError) as refused:
        read_settings(StepSettings)
    lines = str(refused.value).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("GAVEL_KAFKA is not set: the brokers")
    assert lines[1].startswith("GAVEL_DATABASE is not set: the URL")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("GAVEL_BATCH_MAX", "many"),
        ("GAVEL_BATCH_MAX", "0"),
        ("GAVEL_NAMESPACE", "no-dot-at-the-end"),
        ("GAVEL_NAMESPACE", "UPPER."),
        ("GAVEL_WORKER", "two words"),
        ("GAVEL_WEB_PORT", "99999"),
        ("GAVEL_SESSION_TIMEOUT_MS", "1"),
        ("GAVEL_KAFKA", ""),
        ("GAVEL_DATABASE", "nonsense"),
        ("GAVEL_DATABASE", "postgresql://localhost:port:port/gavel?x"),
    ],
)
def test_refuses_a_wrong_value_by_the_name_of_its_variable(
    environment: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    environment.setenv(variable, value)
    with pytest.raises(SettingsError, match=variable):
        read_settings(StepSettings)


def test_shows_no_password(environment: pytest.MonkeyPatch) -> None:
    assert "hunter2" not in repr(read_settings(StepSettings))
    environment.setenv("GAVEL_BATCH_MAX", "many")
    with pytest.raises(SettingsError) as refused:
        read_settings(StepSettings)
    assert "hunter2" not in str(refused.value)
    environment.setenv("GAVEL_DATABASE", "postgresql://gavel:hunter2@localhost/gavel?hunter2")
    with pytest.raises(SettingsError, match="GAVEL_DATABASE") as refused:
        read_settings(StepSettings)
    assert "hunter2" not in str(refused.value)


def test_a_setting_of_one_step_is_asked_for_by_its_own_model() -> None:
    class WithKey(StepSettings):
        vault_key_file: Path

    with pytest.raises(SettingsError, match="GAVEL_VAULT_KEY_FILE is not set"):
        read_settings(WithKey)


def test_kafka_properties_come_from_a_file(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "kafka.properties"
    file.write_text("# SASL\nsecurity.protocol = SASL_SSL\nsasl.password=a=b\n\n")
    environment.setenv("GAVEL_KAFKA_CONFIG", str(file))
    connection = read_settings(StepSettings).connection()
    assert connection.librdkafka()["security.protocol"] == "SASL_SSL"
    assert connection.librdkafka()["sasl.password"] == "a=b"
    assert "a=b" not in repr(connection)


@pytest.mark.parametrize("text", ["no equals sign", "=no name"])
def test_refuses_a_file_that_is_not_one_of_properties(
    environment: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    file = tmp_path / "kafka.properties"
    file.write_text(f"client.id=x\n{text}\n")
    environment.setenv("GAVEL_KAFKA_CONFIG", str(file))
    with pytest.raises(SettingsError, match=r"GAVEL_KAFKA_CONFIG.*line 2"):
        read_settings(StepSettings).connection()


def test_a_folder_has_a_file_of_properties_for_each_user(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for user in ("t-1.gavel.router", "t-1.gavel.feed", "admin"):
        user_file(tmp_path, user).write_text(f"sasl.username={user}")
    environment.setenv("GAVEL_KAFKA_CONFIG", str(tmp_path))
    environment.setenv("GAVEL_NAMESPACE", "t-1.")
    settings = read_settings(StepSettings, who="router")
    assert settings.connection().properties == (("sasl.username", "t-1.gavel.router"),)
    assert settings.as_user("admin").connection().properties == (("sasl.username", "admin"),)
    with pytest.raises(SettingsError, match=r"t-1\.gavel\.intake\.properties.*`gavel setup` makes"):
        settings.as_insider("intake").connection()
    environment.setenv("GAVEL_KAFKA_USER", "t-1.gavel.feed")
    assert read_settings(StepSettings, who="router").kafka_user == "t-1.gavel.feed"


def test_a_single_file_serves_every_user(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "kafka.properties"
    file.write_text("sasl.username=one")
    environment.setenv("GAVEL_KAFKA_CONFIG", str(file))
    settings = read_settings(StepSettings, who="router")
    assert settings.users_folder is None
    assert settings.as_user("admin").connection() == settings.connection()


def test_refuses_a_file_of_properties_that_is_not_there(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("GAVEL_KAFKA_CONFIG", "/nowhere/kafka.properties")
    with pytest.raises(SettingsError, match="GAVEL_KAFKA_CONFIG=/nowhere"):
        read_settings(StepSettings).connection()
