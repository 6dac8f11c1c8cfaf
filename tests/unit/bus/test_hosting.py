"""What a worker is called at the broker."""

from __future__ import annotations

import os
import socket

import pytest

from services.bus.hosting import announcements_group


def test_workers_of_two_containers_hear_announcements_in_groups_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The process id is the same in each container, and with it the worker's name by default."""
    monkeypatch.setattr(os, "getpid", lambda: 7)
    groups = set()
    for host in ("1f0c", "99ab"):
        monkeypatch.setattr(socket, "gethostname", lambda host=host: host)
        groups.add(announcements_group("gavel.router", "router-7"))
    assert len(groups) == 2
    assert all(group.startswith("gavel.router.") for group in groups)  # what the step's user may read
