"""Connections to PostgreSQL as a step: with its role, with limits on everything that can wait, opened again when lost.

It holds no statement of any step. The limits are rule 7 of the protocol: a worker that is paused inside a transaction
(SIGSTOP, a debugger, a machine asleep) would otherwise hold hot rows for ever, and a connection whose other end is
gone would be noticed after hours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from services.bus.ports import PassingFault

TRANSACTION_MS = 3_000
IDLE_IN_TRANSACTION_MS = 1_000
LOCK_MS = 1_000
CONNECT_S = 5

NOW_MS = "(extract(epoch from statement_timestamp()) * 1000)::bigint"
"""The time in SQL, of the type of the columns that hold times: one of another type would be looked up by no index."""

_ROLE = re.compile(r"[a-z_][a-z0-9_]{0,62}")

# A dead peer is noticed after 3 + 3 x 1 seconds of silence, unacknowledged data after 6. libpq passes these to the
# kernel and ignores them on a Unix socket, where a dead peer is noticed at once.
_KEEPALIVES = {
    "keepalives": 1,
    "keepalives_idle": 3,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 6_000,
}


def connect(
    url: str,
    *,
    role: str,
    application_name: str,
    autocommit: bool = True,
    transaction_timeout_ms: int = TRANSACTION_MS,
    idle_in_transaction_timeout_ms: int = IDLE_IN_TRANSACTION_MS,
    lock_timeout_ms: int = LOCK_MS,
) -> psycopg.Connection:
    """Connect as `role` (`gavel_<step>`), which the user of the URL must be a member of; 0 switches a timeout off.

    The settings are part of the connection's start, so that no statement can run without them and a rollback can't
    undo them. By default each statement commits by itself and `with connection.transaction()` says where a
    transaction is: an open one is never left behind by a forgotten commit. Parameters are bound by the server, so a
    cursor may ask for binary results, and COPY for binary rows.

    Raises psycopg.OperationalError when there is no connection. A timeout ends the session, and is told by the next
    statement as psycopg.errors.TransactionTimeout or IdleInTransactionSessionTimeout, both of them InternalErrors and
    no OperationalErrors; `connection.broken` is true then.
    """
    if not _ROLE.fullmatch(role):
        raise ValueError(f"not the name of a role: {role!r}")
    settings = {
        "role": role,
        "timezone": "UTC",
        "transaction_timeout": transaction_timeout_ms,
        "idle_in_transaction_session_timeout": idle_in_transaction_timeout_ms,
        "lock_timeout": lock_timeout_ms,
    }
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    given = conninfo_to_dict(url).get("options")
    conninfo = make_conninfo(
        url,
        application_name=application_name,
        # Ours come last, so that they hold: of two options with one name PostgreSQL takes the later.
        options=f"{given} {options}" if given else options,
        connect_timeout=CONNECT_S,
        **_KEEPALIVES,
    )
    return psycopg.connect(conninfo, autocommit=autocommit)


_PASSING = (errors.OperationalError, errors.IdleInTransactionSessionTimeout, errors.TransactionTimeout)


_ON_EVERY_DISK = "select pg_logical_emit_message(true, 'gavel', '')"
"""A commit of nothing. It returns when a synchronous standby has it on its disk, and with it all that came before.

A commit that waited for the standby when the server ended is there when it starts again, though the standby lacks it.
Whoever read it then and told others of it would be ahead of the standby, if the primary were lost for good.
"""


class Session:
    """One session, opened when there is work and again after it was lost; for one thread."""

    def __init__(
        self,
        connect: Callable[[], psycopg.Connection[Any]],
        *,
        on_opened: Callable[[psycopg.Connection[Any]], object] = lambda _: None,
    ) -> None:
        """Take how to connect, autocommit on, and what to do first on each connection."""
        self._connect = connect
        self._on_opened = on_opened
        self._connection: psycopg.Connection[Any] | None = None

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        """Give the connection for some work.

        Raise `PassingFault` where it was lost (also in COMMIT: only the database knows what was done), where there is
        none at present, or where a deadlock or a limit on waiting has ended the work.
        """
        try:
            yield self.opened()
        except psycopg.Error as error:
            if not isinstance(error, _PASSING) and not self.is_lost():
                raise
            raise PassingFault(said(error)) from error

    def opened(self) -> psycopg.Connection[Any]:
        """Give the connection; raise psycopg.OperationalError where there is none at present."""
        if self._connection is None or self._connection.closed:
            self.close()
            connection = self._connect()
            connection.execute(_ON_EVERY_DISK)
            self._on_opened(connection)
            self._connection = connection
        return self._connection

    def is_lost(self) -> bool:
        """Tell whether there is no session any more: a timeout of rule 7 ends it, whatever class its error has."""
        return self._connection is None or self._connection.closed

    def close(self) -> None:
        """Close the connection; another is opened when there is work again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()


def said(error: psycopg.Error) -> str:
    """Put a fault into words that quote the client's library alone: what the server says may quote a row."""
    if error.sqlstate is not None:
        return f"the database has ended the work: {type(error).__name__}"
    return f"the database does not answer: {(str(error).splitlines() or [type(error).__name__])[0]}"
