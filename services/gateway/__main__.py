"""Runs a worker of the gateway: reads the environment and the key, opens connections and the port, nothing else."""

from __future__ import annotations

import os
import socket
import sys
import time

from psycopg import Connection

from services.bus.database import connect
from services.bus.hosting import run
from services.bus.settings import SettingsError, read_settings
from services.contract.identity import IdentityKeys
from services.gateway.app import STEP, Opened, build
from services.gateway.appending import Appender
from services.gateway.desk_store import DeskStore
from services.gateway.fetching import KafkaFetcher
from services.gateway.settings import GatewaySettings
from services.gateway.signing import WebhookSecrets
from services.gateway.store import PostgresGatewayStore
from services.gateway.web import Listening, listen
from services.vault.keys import KeyFileError, read_key


def main() -> None:
    """Run until told to stop."""
    try:
        settings = read_settings(GatewaySettings, who=STEP)
        opened = _opened(settings)
    except (SettingsError, KeyFileError) as error:
        sys.exit(str(error))
    worker = build(settings, opened)
    worker.web.start()
    try:
        run(worker.app)
    finally:
        worker.web.end()
        opened.appender.end()


def _opened(settings: GatewaySettings) -> Opened:
    client_id = settings.worker or f"{STEP}-{os.getpid()}"
    key = read_key(settings.fingerprint_key_file)

    def connected() -> Connection:
        return connect(
            settings.database, role="gavel_gateway", application_name=f"gavel {STEP} {settings.worker}"
        )

    return Opened(
        store=lambda: PostgresGatewayStore(connected),
        desk_store=DeskStore(connected),
        appender=Appender(settings.connection(), client_id=f"{client_id}-http"),
        fetcher=KafkaFetcher(settings.connection(), client_id=f"{client_id}-again"),
        keys=IdentityKeys(key),
        secrets=WebhookSecrets(key),
        listening=Listening(listener=_listener(settings), requests_max=settings.http_requests_max),
        now_ms=lambda: time.time_ns() // 1_000_000,
    )


def _listener(settings: GatewaySettings) -> socket.socket:
    try:
        return listen(settings.http_host, settings.http_port)
    except OSError as error:
        raise SettingsError(
            f"{settings.http_host} port {settings.http_port} can't be listened on: {error.strerror}. "
            "GAVEL_HTTP_HOST and GAVEL_HTTP_PORT say where HTTP is served"
        ) from None


if __name__ == "__main__":
    main()
