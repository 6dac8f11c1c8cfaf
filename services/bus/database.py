"""Opens connections to PostgreSQL as a step: with the step's role, and with limits on everything that can wait.

It holds no statement of any step. The limits are rule 7 of the protocol: a worker that is paused inside a transaction
(SIGSTOP, a debugger, a machine asleep) would otherwise hold hot rows for ever, and a connection whose other end is
gone would be noticed after hours.
"""

from __future__ import annotations

import re

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

TRANSACTION_MS = 3_000
IDLE_IN_TRANSACTION_MS = 1_000
LOCK_MS = 1_000
CONNECT_S = 5

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
