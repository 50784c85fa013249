"""Fixtures of tests on a real Slurm."""

import getpass
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.runs import processes_in, queue, wait_until

ACCOUNTING = Path("/var/lib/adamqlr-slurm/accounting/slurm.conf")


@pytest.fixture(autouse=True)
def _cluster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("accounting"):
        monkeypatch.setenv("SLURM_CONF", str(ACCOUNTING))
    answers = shutil.which("squeue") and subprocess.run(["squeue"], capture_output=True).returncode == 0
    if not answers:
        assert not os.environ.get("ADAMQLR_NEEDS_SLURM"), "the test cluster does not answer"
        pytest.skip("no Slurm answers here: tests/slurm/cluster.sh install, then start")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder, with commands on the path that note their calls down; afterwards no job and no process may be left."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sbatch", "sacct"):
        real = shutil.which(name) or "false"
        (programs / name).write_text(f'#!/bin/sh\necho call >> {programs}/{name}.calls\nexec {real} "$@"\n')
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    yield tmp_path
    try:
        # Slurm's own processes take a moment to go after the last job.
        wait_until(lambda: queue() == "" and processes_in(tmp_path) == [], 20)
    finally:
        # What a test has left behind would fail the next ones as well.
        for process in processes_in(tmp_path):
            process.kill()
        subprocess.run(["scancel", f"--user={getpass.getuser()}"], check=True)
        wait_until(lambda: queue() == "", 60)
    # Accounting is off on the quiet cluster, and nobody may rely on it.
    assert request.node.get_closest_marker("accounting") or not (programs / "sacct.calls").exists()
