"""What a user types: `adamqlr status`, its errors, --json and --watch."""

import base64
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from adamqlr.errors import UserError
from adamqlr.stages.status import read_status
from adamqlr.status.expected import jobs_of
from adamqlr.status.states import State
from adamqlr.study.config import load_config

COMMAND = [sys.executable, "-m", "adamqlr", "status"]


@pytest.fixture
def folder(settings: dict[str, Any], tmp_path: Path) -> Path:
    """A study that has just begun."""
    folder = tmp_path / "results" / "small"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    return folder


def test_a_study_that_has_just_begun_waits(folder: Path) -> None:
    done = subprocess.run([*COMMAND, folder], capture_output=True, text=True, timeout=60, check=True)
    total = len(jobs_of(load_config(folder / "config.yaml"), {}))
    assert done.stdout.startswith(f"small: 0 of {total} jobs done, {total} waiting; no run holds its lock\n")
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml"]
    data = json.loads(subprocess.run([*COMMAND, folder, "--json"], capture_output=True, check=True).stdout)
    assert data["jobs"]["waiting"] == total


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ("none", "no such folder; name that of a study, results/<study>, where Snakemake was started"),
        ("empty", "no study's folder, as it holds no config.yaml, which Snakemake writes when it starts"),
        ("wrong", "trainin: unknown key"),
    ],
)
@pytest.mark.parametrize("options", [[], ["--json"], ["--watch"]])
def test_what_is_no_study_is_one_line(place: str, problem: str, options: list[str], tmp_path: Path) -> None:
    for name in ("empty", "wrong"):
        (tmp_path / name).mkdir()
    (tmp_path / "wrong" / "config.yaml").write_text(
        "name: wrong\ndatasets: {digits: }\noptimizers: [adam]\ntrainin: {}\n"
    )
    done = subprocess.run([*COMMAND, tmp_path / place, *options], capture_output=True, text=True, timeout=60)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert done.stderr.startswith(f"adamqlr: error: {tmp_path / place}")
    assert problem in done.stderr


def test_a_study_of_an_optimizer_that_is_gone_is_still_told_of(settings: dict[str, Any], folder: Path) -> None:
    own = [{"own": {"optimizer": "gone.py:Gone", "options": {"lr": 0.1}}}]
    (folder / "config.yaml").write_text(yaml.safe_dump(settings | {"optimizers": own, "ablations": {}}))
    assert read_status(folder).counts[State.WAITING] > 0


def test_what_may_not_be_read_is_named_instead_of_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    markers = folder.parents[1] / ".snakemake" / "incomplete"
    markers.mkdir(parents=True)
    marker = markers / base64.urlsafe_b64encode(b"results/small/study.nc").decode()
    marker.write_text('{"external_jobid": null}')

    def refuse(path: Path, *args: Any, **options: Any) -> str:
        if path == marker:
            raise PermissionError(13, "Permission denied", str(path))
        return read_text(path, *args, **options)

    read_text = Path.read_text
    # Root may read everything.
    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(UserError, match=r"5uYw==: may not be read; ask as the user who started the study"):
        read_status(folder)


def test_watching_prints_again_and_ends_with_ctrl_c_in_silence(folder: Path) -> None:
    command = [*COMMAND, str(folder), "--json", "--watch", "--every", "0.2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first, second = (json.loads(process.stdout.readline()) for _ in range(2))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
    assert first["jobs"] == second["jobs"]


def test_watching_on_a_terminal_renews_it_in_place(folder: Path) -> None:
    terminal, theirs = pty.openpty()
    command = [*COMMAND, str(folder), "--watch", "--every", "0.2"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "60"}
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown, deadline = b"", time.monotonic() + 60
        while shown.count(b"small: 0 of ") < 3 and time.monotonic() < deadline:
            # To read waits for as long as nothing is printed.
            if select.select([terminal], [], [], 1)[0]:
                shown += os.read(terminal, 65536)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
    os.close(terminal)
    assert process.returncode == 0
    assert b"\x1b[1A\x1b[2K" in shown, "the cursor goes up, and lines are cleared"
    assert b"Aborted" not in shown
    assert b"Traceback" not in shown
