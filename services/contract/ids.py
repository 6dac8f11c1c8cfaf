"""Ids that anyone can compute again: lead, sale, account, partition. No id in Gavel is random."""

from __future__ import annotations

import hashlib
import zlib

_LEAD_NAMESPACE = bytes.fromhex("5f0d6a5b6c1f5d0e9a4bd1a0c3b7e812")
_ACCOUNT_NAMESPACE = bytes.fromhex("2d8e4b7a90c15f3e8b6d1c7a5e402f96")
_SALE_NAMESPACE = bytes.fromhex("8c2f1f0e7c4b5a6d8e9f0a1b2c3d4e5f")


def lead_id_of(source_id: str, reference: str) -> str:
    """Name the lead that a source calls `reference`: UUIDv5, so that sending it again is the same lead.

    A personal reference (an email address, a phone number) is to be keyed by the caller before it comes here.
    """
    return uuid5_of(_LEAD_NAMESPACE, f"{source_id}\n{reference}")


def sale_id_of(lead_id: str, sale_number: int) -> str:
    """Name the lead's k-th sale: UUIDv5 of lead id and sale number."""
    return uuid5_of(_SALE_NAMESPACE, f"{lead_id}\n{sale_number}")


def sale_ids_of(lead_id: bytes, sales: int) -> list[bytes]:
    """Name a lead's first so many sales, as `sale_id_of` does, all in ASCII: for who checks millions of them."""
    lead, ids = _SALE_NAMESPACE + lead_id, []
    for number in range(1, sales + 1):
        text = hashlib.sha1(lead + b"\n%d" % number, usedforsecurity=False).hexdigest()
        id = f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{_VARIANT[text[16]]}{text[17:20]}-{text[20:32]}"
        ids.append(id.encode())
    return ids


def trace_id_of(lead_id: str) -> str:
    """Name the trace of all that is done about a lead: the 16 bytes of its id, as W3C Trace Context writes them.

    A lead's id is a hash already, its last seven bytes all of it, so nothing need be sent along for anybody, outsiders
    included, to find a lead by its trace and a trace by its lead.
    """
    return lead_id.replace("-", "")


def account_id_of(buyer_id: str) -> str:
    """Name a buyer's account as a lead is named, so that its commands have a partition and its entries an id."""
    return uuid5_of(_ACCOUNT_NAMESPACE, buyer_id)


def partition_of(key: str, partitions: int) -> int:
    """Choose the partition of a lead id or account id: CRC-32 of its text, the same in every client."""
    return zlib.crc32(key.encode()) % partitions


def draw(*parts: str) -> int:
    """Draw a reproducible 64-bit number from the parts: how equal ranks and shares are dealt by lead id."""
    return int.from_bytes(hashlib.blake2b("\n".join(parts).encode(), digest_size=8).digest())


def uuid5_of(namespace: bytes, name: str) -> str:
    """Name by RFC 9562, section 5.5, what `namespace` (16 bytes) calls `name`, in a third of uuid.uuid5's time."""
    text = hashlib.sha1(namespace + name.encode(), usedforsecurity=False).hexdigest()
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{_VARIANT[text[16]]}{text[17:20]}-{text[20:32]}"


_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
"""The two highest bits of the ninth byte are 1 and 0 (RFC 9562, section 4.1)."""
