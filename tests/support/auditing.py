"""Asks `gavel audit run` whether the guarantees hold, as an operator would: the second judge beside `checker`."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.support.running import Gavel

_WITHIN_S = 150.0


def audit_violations(gavel: Gavel, *canaries: str) -> list[str]:
    """Judge everything once nothing is under way, worker logs included; a sentence for each violation."""
    command = [sys.executable, "-m", "services.cli", "audit", "run", "--once", "--at-rest", "--json"]
    command += ["--logs", str(gavel.folder), *(f"--canary={canary}" for canary in canaries)]
    done = subprocess.run(
        command, env=gavel.environment(), capture_output=True, text=True, timeout=_WITHIN_S, check=False
    )
    assert done.stdout, done.stderr
    told = json.loads(done.stdout)
    assert done.returncode == (0 if told["holds"] else 1)
    assert told["entries"], "there were entries to judge"
    return [f"{each['rule']}: {each['what']} {each['where']}" for each in told["violations"]]
