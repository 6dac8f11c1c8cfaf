"""`gavel key`: who may speak HTTP. Makes, lists and revokes API keys, and shows the secret that signs webhooks.

A key is printed once and kept as a hash. A buyer's webhook secret follows from the fingerprint key, so it can be shown
again; what is kept of it is its number alone.
"""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime
from typing import Annotated

import typer
from psycopg import Connection

from services.bus.database import connect
from services.bus.settings import StepSettings
from services.cli.complaints import MISUSED, Complaint
from services.cli.printing import remark, say, say_json, say_table
from services.cli.surroundings import settings
from services.contract.market import Market
from services.gateway.key_store import (
    add_key,
    call_again,
    list_keys,
    revoke_key,
    rotate_secret,
    secret_number,
)
from services.gateway.signing import WebhookSecrets
from services.gateway.tokens import (
    PREFIX_BYTES,
    SECRET_BYTES,
    Kind,
    StoredKey,
    hash_of,
    make_token,
)
from services.market.store import load_current
from services.vault.keys import read_key

app = typer.Typer(help="API keys and webhook secrets, for those who speak HTTP.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


@app.command()
def add(
    source: Annotated[str, typer.Option("--source", help="The source whose key it is.")] = "",
    buyer: Annotated[str, typer.Option("--buyer", help="The buyer whose key it is.")] = "",
    note: Annotated[str, typer.Option("--note", help="What it is for, for people.")] = "",
    as_json: AsJson = False,
) -> None:
    """Make a key for one source or one buyer, and print it, once."""
    if bool(source) == bool(buyer):
        raise Complaint(
            "A key is either a source's or a buyer's.", "Say --source ID or --buyer ID.", exit_code=MISUSED
        )
    kind, owner_id = (Kind.SOURCE, source) if source else (Kind.BUYER, buyer)
    token = make_token(
        kind,
        prefix_bytes=secrets.token_bytes(PREFIX_BYTES),
        secret_text=secrets.token_urlsafe(SECRET_BYTES),
    )
    with _connected(settings()) as connection:
        _require_owner(connection, kind, owner_id)
        add_key(
            connection,
            StoredKey(
                prefix=token.prefix,
                secret_sha256=hash_of(token.secret),
                kind=kind,
                owner_id=owner_id,
                note=note,
                created_at_ms=_now_ms(),
            ),
        )
    key = f"{token.prefix}_{token.secret}"
    if as_json:
        say_json({"key": key, "prefix": token.prefix, "kind": kind, "owner": owner_id})
        return
    say(key)
    remark(f"Of {kind} {owner_id}. It is not shown again; `gavel key revoke {token.prefix}` ends it.")


@app.command("list")
def list_all(as_json: AsJson = False) -> None:
    """List the keys by their prefixes, revoked ones, too."""
    with _connected(settings()) as connection:
        found = list_keys(connection)
    rows = [
        (key.prefix, key.kind.value, key.owner_id, _day(key.created_at_ms), _day(key.revoked_at_ms), key.note)
        for key in found
    ]
    names = ("prefix", "kind", "owner", "made", "revoked", "note")
    if as_json:
        say_json({"keys": [dict(zip(names, row, strict=True)) for row in rows]})
    else:
        say_table("Keys", names, [[cell or "" for cell in row] for row in rows])


@app.command()
def revoke(
    prefix: Annotated[str, typer.Argument(metavar="PREFIX", help="What stands before the key's `_`.")],
    as_json: AsJson = False,
) -> None:
    """End a key: within seconds, every gateway refuses it."""
    # Whoever pastes the whole key means its prefix.
    prefix = prefix.partition("_")[0]
    with _connected(settings()) as connection:
        found = revoke_key(connection, prefix, _now_ms())
    if not found:
        raise Complaint(f"There is no key {prefix}.", "`gavel key list` has them.")
    if as_json:
        say_json({"revoked": prefix})
    else:
        say(f"Revoked: {prefix}.")


@app.command()
def webhook(
    buyer: Annotated[str, typer.Argument(metavar="BUYER", help="The buyer's id in the market.")],
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Give it a new secret; the old one signs, too, for a day.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Call its URL again, which said it was gone.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print the secret that signs a buyer's webhooks."""
    found = settings()
    if found.fingerprint_key_file is None:
        raise Complaint(
            "GAVEL_FINGERPRINT_KEY_FILE is not set.", "The secret follows from that key.", exit_code=MISUSED
        )
    own = WebhookSecrets(read_key(found.fingerprint_key_file))
    with _connected(found) as connection:
        _require_owner(connection, Kind.BUYER, buyer)
        if rotate:
            rotate_secret(connection, buyer, _now_ms())
        if again:
            call_again(connection, buyer)
        secret = own.secret(buyer, secret_number(connection, buyer))
    if as_json:
        say_json({"buyer": buyer, "secret": secret})
    else:
        say(secret)


def _require_owner(connection: Connection, kind: Kind, owner_id: str) -> None:
    market = load_current(connection)
    if market is None or owner_id not in _owners(market, kind):
        raise Complaint(f"The market has no {kind} {owner_id}.", "`gavel market show` has them.")


def _owners(market: Market, kind: Kind) -> frozenset[str]:
    return frozenset(market.sources if kind is Kind.SOURCE else market.buyers)


def _connected(found: StepSettings) -> Connection:
    return connect(found.database, role="gavel_gateway", application_name="gavel key")


def _day(at_ms: int | None) -> str | None:
    return None if at_ms is None else datetime.fromtimestamp(at_ms / 1_000, tz=UTC).isoformat()[:16]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
