"""Users, access lists and quotas at the brokers: makes what is to be there, and takes away what is not to be any more.

It decides on no permission: `services.contract.access` derives them. Passwords pass through and are kept nowhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    KafkaAdminClient,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)
from kafka.errors import NoError, SecurityDisabledError
from kafka.protocol.admin import AlterClientQuotasRequest, DescribeClientQuotasRequest

from services.bus.administration import administrator
from services.bus.kafka import Connection
from services.bus.ports import BusFailed
from services.contract.access import Grant, Operation, Resource

MECHANISM: Final = "SCRAM-SHA-512"
ITERATIONS: Final = 8_192
"""How often the broker hashes a password (SCRAM); Kafka's least is 4,096."""

_IN_FORCE_WITHIN_S: Final = 10.0
_LOOK_EVERY_S: Final = 0.05
_EXACT: Final = 0
_PRINCIPAL: Final = "User:"
_ANONYMOUS: Final = _PRINCIPAL + "ANONYMOUS"  # whom Kafka takes those for who do not say who they are


class NoDoors(BusFailed):
    """This Kafka asks nobody who they are: access to it is its operator's business."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What one user may ask of each broker: bytes in a second, and per cent of one of its threads' time."""

    producer_bytes_per_s: int
    consumer_bytes_per_s: int
    request_percent: int

    def values(self) -> dict[str, float]:
        """Write it in the broker's words."""
        return {
            "producer_byte_rate": float(self.producer_bytes_per_s),
            "consumer_byte_rate": float(self.consumer_bytes_per_s),
            "request_percentage": float(self.request_percent),
        }


OUTSIDERS_QUOTA: Final = Quota(
    producer_bytes_per_s=2_000_000, consumer_bytes_per_s=10_000_000, request_percent=50
)
"""Some thousand leads a second, which one outsider does not send: it keeps one from using up the brokers."""


class Doors:
    """The users of one cluster, what they may do, and how much of it."""

    def __init__(self, admin: KafkaAdminClient) -> None:
        """Use an administrator's client, which stays its owner's."""
        self._admin = admin

    def require(self) -> None:
        """Raise `NoDoors` where Kafka has no access lists."""
        self._held(_ANONYMOUS)

    def let_in(self, grants: Collection[Grant]) -> int:
        """Grant what is not granted yet, wait until it is in force, and count it."""
        missing = self._missing([_acl(grant) for grant in sorted(grants)])
        if missing:
            answer = self._admin.create_acls(missing)
            if answer["failed"]:
                raise BusFailed(f"access lists can't be written: {answer['failed'][0].__name__}")
            self._wait(lambda: not self._missing(missing))
        return len(missing)

    def lacking(self, grants: Collection[Grant]) -> int:
        """Count what is not granted."""
        return len(self._missing([_acl(grant) for grant in sorted(grants)]))

    def surplus(self, users: Collection[str], declared: Callable[[Collection[str]], Iterable[Grant]]) -> int:
        """Count what these users may do besides what is `declared` for the names that they hold anything on."""
        return len(self._surplus(users, declared))

    def keep_only(
        self, users: Collection[str], declared: Callable[[Collection[str]], Iterable[Grant]]
    ) -> int:
        """Take away the surplus, wait until that is in force, and count it."""
        surplus = self._surplus(users, declared)
        if surplus:
            for _, _, error in self._admin.delete_acls(surplus):
                if error is not NoError:
                    raise BusFailed(f"access lists can't be deleted: {error.__name__}")
            self._wait(lambda: not self._surplus(users, declared))
        return len(surplus)

    def shut_out(self, user: str) -> int:
        """Take away all that a user may do, and count it; each of its requests is refused from then on."""
        principal = _PRINCIPAL + user
        count = len(self._held(principal))
        if count:
            ((_, _, error),) = self._admin.delete_acls([_any_of(principal)])
            if error is not NoError:
                raise BusFailed(f"{user}'s access lists can't be deleted: {error.__name__}")
            self._wait(lambda: not self._held(principal))
        return count

    def users(self) -> Sequence[str]:
        """List all users with a password."""
        return sorted(self._admin.describe_user_scram_credentials())

    def has_user(self, user: str) -> bool:
        """Tell whether there is a user with a password."""
        return user in self.users()

    def set_passwords(self, passwords: Mapping[str, str]) -> None:
        """Make users, or give them other passwords: the old ones open no connection from then on."""
        if not passwords:
            return
        self._alter(
            UserScramCredentialUpsertion(user, MECHANISM, password, iterations=ITERATIONS)
            for user, password in passwords.items()
        )
        self._wait(lambda: passwords.keys() <= {*self.users()})

    def forget_user(self, user: str) -> bool:
        """Delete the user; False where there is none."""
        if not self.has_user(user):
            return False
        self._alter([UserScramCredentialDeletion(user, MECHANISM)])
        self._wait(lambda: not self.has_user(user))
        return True

    def quota_of(self, user: str) -> Mapping[str, float]:
        """Look up a user's quota in the broker's words; empty where it has none."""
        asked = DescribeClientQuotasRequest(components=[("user", _EXACT, user)], strict=True)
        answer = self._send(asked)
        return {value.key: value.value for entry in answer.entries or () for value in entry.values}

    def limit(self, user: str, quota: Quota | None) -> bool:
        """Give a user this quota, or none; False where it has it already."""
        has, wanted = self.quota_of(user), quota.values() if quota else {}
        if has == wanted:
            return False
        changes = [(key, value, False) for key, value in wanted.items()]
        changes += [(key, 0.0, True) for key in has if key not in wanted]
        answer = self._send(
            AlterClientQuotasRequest(entries=[([("user", user)], changes)], validate_only=False)
        )
        for entry in answer.entries:
            if entry.error_code:
                raise BusFailed(f"{user}'s quota can't be set: {entry.error_message or entry.error_code}")
        return True

    def _missing(self, wanted: Sequence[ACL]) -> list[ACL]:
        principals = {acl.principal for acl in wanted}
        # One answer with everybody's is faster than one of each.
        held = {*map(_key, self._held(principals.pop() if len(principals) == 1 else None))}
        return [acl for acl in wanted if _key(acl) not in held]

    def _surplus(
        self, users: Collection[str], declared: Callable[[Collection[str]], Iterable[Grant]]
    ) -> list[ACL]:
        """What is denied is not ours: an operator has said so, and nothing here denies."""
        principals = {_PRINCIPAL + user for user in users}
        held = [
            acl
            for acl in self._held(None)
            if acl.principal in principals and acl.permission_type is ACLPermissionType.ALLOW
        ]
        kept = {_key(_acl(grant)) for grant in declared({acl.resource_pattern.resource_name for acl in held})}
        return [acl for acl in held if _key(acl) not in kept]

    def _held(self, principal: str | None) -> Sequence[ACL]:
        try:
            found, _ = self._admin.describe_acls(_any_of(principal))
        except SecurityDisabledError as error:
            raise NoDoors("this Kafka has no access lists: no authorizer is configured") from error
        return list(found)

    def _alter(self, changes: Iterable[UserScramCredentialUpsertion | UserScramCredentialDeletion]) -> None:
        for user, error in self._admin.alter_user_scram_credentials(list(changes)).items():
            if error:
                raise BusFailed(f"user {user} can't be changed: {error}")

    def _send(self, request: Any) -> Any:
        """Send what kafka-python has the messages for and no method (3.0)."""
        manager = self._admin._manager
        return manager.run(manager.send, request)

    def _wait(self, is_so: Callable[[], bool]) -> None:
        """Wait until the broker has taken in what its controller decided."""
        deadline_s = time.monotonic() + _IN_FORCE_WITHIN_S
        while not is_so():
            if time.monotonic() > deadline_s:
                raise BusFailed(f"a change of access is not in force after {_IN_FORCE_WITHIN_S:g} s")
            time.sleep(_LOOK_EVERY_S)


@contextmanager
def open_doors(connection: Connection) -> Iterator[Doors]:
    """Connect as who may change access; raise `BusFailed` where Kafka does not answer or refuses."""
    with administrator(connection) as admin:
        yield Doors(admin)


def _any_of(principal: str | None) -> ACLFilter:
    return ACLFilter(
        principal=principal,
        host=None,
        operation=ACLOperation.ANY,
        permission_type=ACLPermissionType.ANY,
        resource_pattern=ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY),
    )


_RESOURCES: Final = {Resource.TOPIC: ResourceType.TOPIC, Resource.GROUP: ResourceType.GROUP}
_OPERATIONS: Final = {
    Operation.READ: ACLOperation.READ,
    Operation.WRITE: ACLOperation.WRITE,
    Operation.DESCRIBE: ACLOperation.DESCRIBE,
}


def _acl(grant: Grant) -> ACL:
    pattern = ACLResourcePatternType.PREFIXED if grant.is_prefix else ACLResourcePatternType.LITERAL
    return ACL(
        principal=_PRINCIPAL + grant.user,
        host="*",
        operation=_OPERATIONS[grant.operation],
        permission_type=ACLPermissionType.ALLOW,
        resource_pattern=ResourcePattern(_RESOURCES[grant.resource], grant.name, pattern),
    )


def _key(acl: ACL) -> tuple[Any, ...]:
    """What makes two permissions the same."""
    pattern = acl.resource_pattern
    return (
        acl.principal,
        acl.host,
        acl.operation,
        acl.permission_type,
        pattern.resource_type,
        pattern.resource_name,
        pattern.pattern_type,
    )
