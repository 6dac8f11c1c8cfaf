"""Which addresses a webhook may go to: the internet's, and never a machine of the house.

A buyer names its URL; without this guard it could make the gateway call a database, a metadata service or itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias
from urllib.parse import urlsplit

Network: TypeAlias = IPv4Network | IPv6Network
_NAT64 = ip_network("64:ff9b::/96")


class Forbidden(Exception):
    """A webhook that must not be called; the message says why, for its buyer's operator."""


def read_networks(text: str) -> tuple[Network, ...]:
    """Read networks with commas between, as in `127.0.0.0/8,::1/128`; raise ValueError."""
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


def require_url(url: str, allowed: Sequence[Network]) -> None:
    """Require https, a name and no password; http only where networks of the house are allowed. Raise `Forbidden`."""
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise Forbidden("not an https URL with a host")
    if parts.scheme == "http" and not allowed:
        raise Forbidden("http is for webhooks inside the house, and none are allowed")
    if parts.username or parts.password:
        raise Forbidden("a URL with a password in it")


def require_addresses(found: Sequence[str], allowed: Sequence[Network]) -> None:
    """Require that every address a name stands for may be called; raise `Forbidden`."""
    if not found:
        raise Forbidden("the name has no address")
    for text in found:
        address = ip_address(text.partition("%")[0])
        if not _may_be_called(address, allowed):
            raise Forbidden("the name stands for an address that is not the internet's")


def _may_be_called(address: IPv4Address | IPv6Address, allowed: Sequence[Network]) -> bool:
    plain = _unwrapped(address)
    if any(plain in network for network in allowed):
        return True
    return plain.is_global and not plain.is_multicast


def _unwrapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Take the IPv4 address out of an IPv6 one that only carries it."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address
