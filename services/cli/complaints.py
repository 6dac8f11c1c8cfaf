"""What the command line says when it can't do what was asked: what, where, and what to do about it.

It decides no exit of its own: `__main__` prints a complaint and ends the process with its code.
"""

from __future__ import annotations

WENT_WRONG = 1
MISUSED = 2
INTERRUPTED = 130

_SERVERS = (
    "Look with `gavel stack doctor`; `gavel stack up` starts a local stack, GAVEL_KAFKA and GAVEL_DATABASE name "
    "others."
)

_RIGHTS = "`gavel setup` is for the owner of the tables, a worker for its step's user, a command for the operator's."


class Complaint(Exception):
    """What was asked can't be done: `what` says why, `advice` what to do."""

    def __init__(self, what: str, advice: str = "", *, exit_code: int = WENT_WRONG) -> None:
        """Exit code 1 is for what went wrong, 2 for what was wrongly asked."""
        super().__init__(what)
        self.what = what
        self.advice = advice
        self.exit_code = exit_code


def complaint_about(error: Exception) -> Complaint | None:
    """Put an exception into words; None for one that only a defect of ours explains."""
    import psycopg
    from confluent_kafka import KafkaException
    from kafka.errors import KafkaError

    from deploy.local.folder import StackError
    from services.bus.logins import LoginError
    from services.bus.migrations import MigrationError
    from services.bus.ports import BusFailed, PassingFault, Stopped
    from services.bus.settings import SettingsError
    from services.vault.keys import KeyFileError
    from services.vault.sealing import VaultError

    match error:
        case Complaint():
            return error
        case SettingsError():
            return Complaint(
                str(error), "Start a local stack with `gavel stack up`, or set it.", exit_code=MISUSED
            )
        case KeyFileError():
            return Complaint(str(error), exit_code=MISUSED)
        case StackError() | MigrationError() | Stopped() | VaultError():
            return Complaint(str(error))
        case LoginError():
            return Complaint(
                str(error),
                "deploy/docker/secrets.sh makes what is missing in the folder of GAVEL_DATABASE_USERS.",
            )
        case psycopg.errors.UndefinedTable() | psycopg.errors.InvalidSchemaName():
            return Complaint("The database is not set up.", "Run `gavel setup`.")
        case psycopg.errors.InsufficientPrivilege():
            return Complaint(
                f"The user of GAVEL_DATABASE may not do this: {error.diag.message_primary}", _RIGHTS
            )
        case psycopg.OperationalError() if "permission denied to set" in str(error):
            return Complaint(f"The user of GAVEL_DATABASE may not do this: {error}", _RIGHTS)
        case psycopg.OperationalError() if 'role "gavel_' in str(error):
            return Complaint("The database is not set up: its roles are missing.", "Run `gavel setup`.")
        case psycopg.OperationalError():
            return Complaint(f"The database does not answer: {error}", _SERVERS)
        case PassingFault():
            return Complaint(f"A server does not answer: {error}", _SERVERS)
        case BusFailed() | KafkaException() | KafkaError():
            return Complaint(f"Kafka does not do what was asked: {error}", _SERVERS)
        case _:
            return None
