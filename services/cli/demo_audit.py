"""The demo's second judge: the auditor, which reads topics and tables anew and shares nothing with its checks."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

from services.audit.app import Asked
from services.audit.settings import AuditSettings
from services.bus.settings import StepSettings
from services.cli.audit_commands import Shown, audited
from services.cli.audit_telling import line_of
from services.cli.demo_checks import Check


def audit_check(found: StepSettings, logs: Path) -> Check:
    """Judge the whole demo, its workers' logs included; raise what `gavel audit run` complains of."""
    settings = AuditSettings(**found.model_dump()).as_insider("audit")
    silent = Shown(update=lambda _done, _total: None, note=lambda _: None)
    with tempfile.TemporaryDirectory() as folder:
        asked = Asked(state=Path(folder) / "audit.sqlite", logs=logs)
        told = audited(settings, asked, threading.Event(), silent, rebuild=False)
    return Check(
        guarantee="The auditor, which derives all of it from the log anew, finds every guarantee held.",
        looked_at=f"{told.audit.auditor.entries:,} entries, {told.audit.secrecy.records:,} records",
        against=tuple(map(line_of, told.audit.found.listed)),
    )
