"""What jobs took, and what is wrong with a node on which they fail."""

import csv
import pickle
import subprocess
import sys
from pathlib import Path

import cloudpickle
import pytest
from snakemake_executor_plugin_submitit.job import JobCommand
from snakemake_executor_plugin_submitit.trouble import read_trouble
from snakemake_executor_plugin_submitit.usage import Efficiency, ExitCode

from tests.disks import small_disk

ASKED = {"timeout_min": 240, "cpus_per_task": 6, "mem_gb": 7.8125, "gpus_per_node": 1}


def code_of(code: int, minutes: float, mb: int) -> ExitCode:
    measured = ExitCode(code)
    measured.minutes, measured.mb = minutes, mb
    return measured


# A process of its own, as a job's is: what other children of this one held would count as well.
JOB = """
import sys
from snakemake_executor_plugin_submitit.job import JobCommand
code = JobCommand(f'{sys.executable} -c "import time; held = bytearray(300 * 2**20); time.sleep(0.5)"')()
print(int(code), code.mb, code.minutes)
"""


def test_a_command_says_what_it_took() -> None:
    done = subprocess.run([sys.executable, "-c", JOB], capture_output=True, text=True, timeout=60)
    code, mb, minutes = map(float, done.stdout.split()[-3:])
    assert code == 0
    assert 300 <= mb < 600
    assert 0.5 / 60 <= minutes < 20 / 60


def test_what_a_command_took_survives_pickling() -> None:
    again = pickle.loads(cloudpickle.dumps(("success", code_of(0, 1.5, 300))))[1]
    assert again == 0
    assert isinstance(again, ExitCode)
    assert (again.minutes, again.mb) == (1.5, 300)


def test_the_table_holds_every_job_and_the_advice_what_succeeded_took(tmp_path: Path) -> None:
    path = tmp_path / "efficiency.tsv"
    efficiency = Efficiency(path)
    efficiency.note("train", "7_0", "node1", "succeeded", ASKED, code_of(0, 12.0, 1000))
    efficiency.note("train", "7_1", "node2", "succeeded", ASKED, code_of(0, 20.0, 800))
    efficiency.note("train", "7_2", "node2", "failed", ASKED, code_of(1, 200.0, 7000))
    # The next head process adds to the same table.
    Efficiency(path).note("train", "8", "", "interrupted", ASKED, None)
    rows = list(csv.DictReader(path.open(), delimiter="\t"))
    assert [(row["job"], row["ending"], row["minutes_used"], row["mb_used"]) for row in rows] == [
        ("7_0", "succeeded", "12.00", "1000"),
        ("7_1", "succeeded", "20.00", "800"),
        ("7_2", "failed", "200.00", "7000"),
        ("8", "interrupted", "", ""),
    ]
    assert {(row["minutes_asked"], row["mb_asked"], row["cpus"], row["gpus"]) for row in rows} == {
        ("240", "8000", "6", "1")
    }
    assert efficiency.advice() == [
        "train: 2 jobs took at most 20.0 of 240 min and 1000 of 8000 MB. Next time, ask for train:runtime=25 "
        "train:mem_mb=1300."
    ]


@pytest.mark.parametrize("name", ["TMPDIR", "HOME"])
def test_a_folder_that_cannot_be_written_is_named_where_a_command_fails(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, "/proc/nowhere")
    log = tmp_path / "log"
    assert JobCommand("true")() == 0
    log.write_text(capfd.readouterr().err)
    assert read_trouble(log) == ""
    assert JobCommand("exit 3")() == 3
    log.write_text(f"{capfd.readouterr().err}\nmore\n")
    assert f"{name} (/proc/nowhere) cannot be written: No such file or directory" in read_trouble(log)


def test_an_environment_that_the_node_does_not_see(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(
        "slurmstepd: error: execve(): /home/me/.venv/bin/python: No such file or directory\nsrun: error: node1\n"
    )
    assert read_trouble(tmp_path / "log").startswith("the node cannot run /home/me/.venv/bin/python (No such file")
    assert read_trouble(tmp_path / "none") == ""


def test_a_log_that_had_no_room_for_more(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64 << 10) as disk:
        (disk.path / "log").touch()
        disk.fill()
        assert read_trouble(disk.path / "log") == f"{disk.path} cannot be written: {disk.said}"
