"""One description of a cluster serves every client library."""

from __future__ import annotations

import pytest

from services.bus.kafka import Connection

SECURE = Connection(
    bootstrap="one:9092,two:9092",
    properties=(
        ("security.protocol", "SASL_SSL"),
        ("sasl.mechanism", "SCRAM-SHA-512"),
        ("sasl.username", "router"),
        ("sasl.password", "secret"),
        ("ssl.ca.location", "/etc/ca.pem"),
    ),
)


def test_librdkafka_gets_the_properties_and_never_creates_topics() -> None:
    settings = SECURE.librdkafka(linger_ms=5)
    assert settings["bootstrap.servers"] == "one:9092,two:9092"
    assert settings["sasl.mechanism"] == "SCRAM-SHA-512"
    assert settings["linger.ms"] == 5
    assert settings["allow.auto.create.topics"] is False


def test_what_the_code_says_wins_over_the_file() -> None:
    connection = Connection(
        bootstrap="one:9092", properties=(("acks", "0"), ("bootstrap.servers", "elsewhere:1"))
    )
    assert connection.librdkafka(acks="all")["acks"] == "all"
    assert connection.librdkafka()["bootstrap.servers"] == "one:9092"


def test_kafka_python_gets_its_own_words() -> None:
    assert SECURE.kafka_python() == {
        "bootstrap_servers": ["one:9092", "two:9092"],
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "router",
        "sasl_plain_password": "secret",
        "ssl_cafile": "/etc/ca.pem",
    }


def test_refuses_security_that_one_client_would_ignore() -> None:
    with pytest.raises(ValueError, match=r"ssl\.crl\.location"):
        Connection(bootstrap="one:9092", properties=(("ssl.crl.location", "/etc/crl"),)).kafka_python()
