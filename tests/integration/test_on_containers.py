"""`-m containers` chooses what can run on containers, says when it can't, and never means a local stack."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import WITH_SERVERS_OF_THEIR_OWN

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(400)

INTEGRATION = Path(__file__).parent
WITHOUT_SERVERS = {"test_bench_processes.py", "test_chaos_crew.py", "test_kafka_tls.py", Path(__file__).name}


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run pytest as its own process, without what this one was told."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "GAVEL_"))
    }
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=ROOT,
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_every_integration_test_that_needs_but_the_two_servers_runs_on_containers() -> None:
    listed = run("--collect-only", "-q", "-m", "containers", str(INTEGRATION)).stdout.splitlines()
    chosen = {Path(line.partition("::")[0]).name for line in listed if "::" in line}
    assert chosen == {file.name for file in INTEGRATION.glob("test_*.py")} - (
        WITH_SERVERS_OF_THEIR_OWN | WITHOUT_SERVERS
    )


@pytest.mark.parametrize("asked", ["containers and not long", "containers or e2e", "not containers"])
def test_an_expression_with_containers_in_it_is_refused(asked: str) -> None:
    done = run("--collect-only", "-q", "-m", asked, str(INTEGRATION / "test_migrations.py"))
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "`containers` stands alone" in done.stderr
    assert "::" not in done.stdout


def test_without_a_docker_daemon_tests_are_skipped_with_the_reason(tmp_path: Path) -> None:
    nowhere = f"unix://{tmp_path}/docker.sock"
    file = INTEGRATION / "test_market_store.py"
    done = run("-m", "containers", "-x", f"--basetemp={tmp_path / 'base'}", str(file), DOCKER_HOST=nowhere)
    assert done.returncode == pytest.ExitCode.OK, done.stdout
    assert "no Docker daemon answers" in done.stdout
    assert " passed" not in done.stdout
