"""The executor on a real Slurm (tests/slurm/cluster.sh): what it survives, and that it leaves nothing behind."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import xarray as xr
import yaml

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 4000
TRIVIAL = """
rule all:
    input: expand("out/{i}.txt", i=range(int(config["jobs"])))

rule one:
    output: "out/{i}.txt"
    resources: mem_mb=100, runtime=5, gpu=int(config.get("gpu", 0))
    shell: "touch started_{wildcards.i}; sleep {config[seconds]}; echo ${{CUDA_VISIBLE_DEVICES:-none}} > {output}"
"""


@pytest.fixture(autouse=True, scope="module")
def _cluster() -> None:
    answers = shutil.which("squeue") and subprocess.run(["squeue"], capture_output=True).returncode == 0
    if not answers:
        assert not os.environ.get("ADAMQLR_NEEDS_SLURM"), "the test cluster does not answer"
        pytest.skip("no Slurm answers here: tests/slurm/cluster.sh install, then start")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder, with commands on the path that note their calls down; afterwards no job and no process may be left."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sbatch", "sacct"):
        real = shutil.which(name) or "false"
        (programs / name).write_text(f'#!/bin/sh\necho call >> {programs}/{name}.calls\nexec {real} "$@"\n')
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    yield tmp_path
    # Slurm's own processes take a moment to go after the last job.
    wait_until(lambda: queue() == "" and processes_in(tmp_path) == [], 20)
    # Accounting is off on the test cluster, and nobody may rely on it.
    assert not (programs / "sacct.calls").exists()


def queue() -> str:
    return subprocess.run(["squeue", "--noheader"], capture_output=True, text=True, check=True).stdout


def sbatch_calls(folder: Path) -> int:
    path = folder / "bin" / "sbatch.calls"
    return len(path.read_text().splitlines()) if path.exists() else 0


def processes_in(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_until(condition: Callable[[], object], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def head(folder: Path, *arguments: object) -> subprocess.Popen[str]:
    """Start Snakemake with the profile, its messages in head.log."""
    program = [sys.executable, "-m", "snakemake", "--profile", str(ROOT / "profiles" / "slurm")]
    options = ["--submitit-poll-seconds", "1", "--latency-wait", "5", *map(str, arguments)]
    with (folder / "head.log").open("a") as log:
        return subprocess.Popen([*program, *options], cwd=folder, stdout=log, stderr=subprocess.STDOUT, text=True)


def messages(folder: Path) -> str:
    return (folder / "head.log").read_text()


def trivial(
    folder: Path, *arguments: object, seconds: float = 0.1, jobs: int = 2, gpu: int = 0
) -> subprocess.Popen[str]:
    (folder / "Snakefile").write_text(TRIVIAL)
    (folder / "empty.yaml").write_text("name: trivial\n")
    config = ["--config", f"seconds={seconds}", f"jobs={jobs}", f"gpu={gpu}"]
    return head(folder, "--configfile", "empty.yaml", *arguments, *config)


class Training:
    """One training job of the study under Slurm, long enough to be disturbed."""

    def __init__(self, folder: Path, epochs: int) -> None:
        self.folder = folder
        settings = {
            "name": "small",
            "device": "cpu",
            "datasets": {"digits": {"epochs": epochs}},
            "optimizers": ["adamqlr_untuned"],
            "training": {"seeds": 1, "checkpoint_seconds": 0.5},
        }
        self.config = folder / "small.yaml"
        self.config.write_text(yaml.safe_dump(settings, sort_keys=False))
        self.output = folder / "results/small/runs/epochs/digits/adamqlr_untuned/seeds_0-0.nc"
        self.checkpoint = self.output.with_name(f".{self.output.name}.checkpoint")
        self.log = folder / "results/small/logs/train/epochs/digits/adamqlr_untuned/seeds_0-0.log"

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        snakefile = ["--snakefile", ROOT / "Snakefile", "--configfile", self.config]
        return head(self.folder, self.output.relative_to(self.folder), *snakefile, *arguments)

    def job_id(self) -> str:
        return subprocess.run(["squeue", "--noheader", "--format=%A"], capture_output=True, text=True).stdout.split()[0]

    def assert_numbers_of(self, undisturbed: Path) -> None:
        """The run file holds what another process computed that nobody disturbed, and a GPU was allocated."""
        found, wanted = xr.load_dataset(self.output), xr.load_dataset(undisturbed)
        for name in ("value", "step", "diverged"):
            np.testing.assert_array_equal(found[name].values, wanted[name].values, err_msg=name)
        assert found.attrs["slurm_job"]
        assert found.attrs["slurm_gpus"] in ("0", "1")
        assert not self.checkpoint.exists()

    def start_undisturbed(self, output: Path) -> subprocess.Popen[bytes]:
        """Start the same training in a process of its own."""
        program = [sys.executable, "-m", "adamqlr", "train", "--config", self.config, "--dataset", "digits"]
        options = ["--optimizer", "adamqlr_untuned", "--seeds", "0", "--output", output]
        return subprocess.Popen(
            [*program, *options], stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )


def test_many_jobs_are_one_array_with_the_gpus_asked_for(folder: Path) -> None:
    process = trivial(folder, jobs=8, gpu=1)
    assert process.wait(timeout=180) == 0, messages(folder)
    assert sbatch_calls(folder) == 1
    assert {(folder / f"out/{i}.txt").read_text().strip() for i in range(8)} <= {"0", "1"}
    assert not list((folder / "results/trivial/logs/slurm").iterdir())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the training that is to be disturbed gives undisturbed."""
    output = tmp_path_factory.mktemp("undisturbed") / "out.nc"
    assert Training(output.parent, epochs=EPOCHS).start_undisturbed(output).wait() == 0
    return output


@pytest.mark.parametrize("disturbance", ["killed", "requeued", "cancelled"])
def test_a_disturbed_training_job_ends_with_the_numbers_of_an_undisturbed_one(
    disturbance: str, undisturbed: Path, folder: Path
) -> None:
    training = Training(folder, epochs=EPOCHS)
    process = training.start()
    wait_until(training.checkpoint.exists)
    job = training.job_id()
    if disturbance == "killed":
        for member in processes_in(folder):
            if "SLURM_JOB_ID" in member.environ():
                member.kill()
    elif disturbance == "requeued":
        subprocess.run(["scontrol", "requeue", job], check=True)
    else:
        subprocess.run(["scancel", job], check=True)
    assert process.wait(timeout=180) == 0, messages(folder)
    if disturbance == "requeued":
        assert sbatch_calls(folder) == 1
        assert "Error in rule" not in messages(folder)
    else:
        assert sbatch_calls(folder) == 2
        assert "Error in rule train" in messages(folder)
        assert f"slurm job {job} ended as " in messages(folder) or f"slurm job {job} is gone" in messages(folder)
    assert "goes on from step" in training.log.read_text()
    training.assert_numbers_of(undisturbed)


def test_a_time_limit_in_the_middle_of_training(folder: Path) -> None:
    training, expected = Training(folder, epochs=30000), folder / "undisturbed.nc"
    process = training.start("--set-resources", "train:runtime=1")
    alone = training.start_undisturbed(expected)
    assert process.wait(timeout=400) == 0, messages(folder)
    assert sbatch_calls(folder) == 1, "it was submitted anew instead of requeued"
    assert "goes on from step" in training.log.read_text(), "the time limit was not reached"
    assert alone.wait(timeout=200) == 0
    training.assert_numbers_of(expected)


def test_ctrl_c_empties_the_queue(folder: Path) -> None:
    process = trivial(folder, seconds=300, jobs=6)
    wait_until(lambda: len(list(folder.glob("started_*"))) >= 2)
    process.send_signal(signal.SIGINT)
    pressed = time.monotonic()
    wait_until(lambda: queue() == "", 10)
    wait_until(lambda: processes_in(folder) == [], 10 - (time.monotonic() - pressed))
    assert process.wait(timeout=10) != 0


def test_jobs_of_a_head_process_that_was_killed_are_taken_up(folder: Path) -> None:
    process = trivial(folder, seconds=12, jobs=3)
    wait_until(lambda: len(list(folder.glob("started_*"))) >= 2)
    process.kill()
    process.wait()
    # The first two end while nobody watches.
    wait_until(lambda: len(list(folder.glob("out/*.txt"))) >= 1)
    assert trivial(folder, "--unlock", seconds=12, jobs=3).wait(timeout=60) == 0
    assert trivial(folder, seconds=12, jobs=3).wait(timeout=120) == 0, messages(folder)
    assert sbatch_calls(folder) == 1
    assert "of an earlier run" in messages(folder)
    assert len(list(folder.glob("out/*.txt"))) == 3
    assert not (folder / ".snakemake/submitit/ledger.jsonl").exists()
    # What has ended meanwhile is no substitute for a job that is wanted again.
    assert trivial(folder, "--forceall", jobs=3).wait(timeout=60) == 0
    assert sbatch_calls(folder) == 2


@pytest.mark.parametrize(
    ("resource", "said"),
    [("one:slurm_partition=nope", "set slurm_partition"), ("one:gpu=5", "no node of the partition can meet this")],
)
def test_what_slurm_refuses_is_said_in_one_line(resource: str, said: str, folder: Path) -> None:
    process = trivial(folder, "--set-resources", resource)
    assert process.wait(timeout=120) == 1, messages(folder)
    lines = [line for line in messages(folder).splitlines() if "Slurm refused a job" in line]
    assert len(lines) == 1, messages(folder)
    assert said in lines[0]
    assert "Traceback" not in messages(folder)


def test_one_rule_for_one_dataset_again(folder: Path) -> None:
    """The operator's guide's line, on a study of two datasets."""
    settings = {
        "name": "small",
        "device": "cpu",
        "datasets": {"digits": {"epochs": 2}, "diabetes": {"epochs": 2}},
        "optimizers": ["adam_untuned"],
        "training": {"seeds": 2},
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    study = ["--snakefile", ROOT / "Snakefile", "--configfile", "small.yaml"]
    assert head(folder, *study).wait(timeout=300) == 0, messages(folder)
    runs = {
        name: folder / f"results/small/runs/epochs/{name}/adam_untuned/seeds_0-1.nc" for name in settings["datasets"]
    }
    before = {name: path.stat().st_mtime_ns for name, path in runs.items()}
    guide = (ROOT / "profiles" / "README.md").read_text()
    line = "--forcerun results/paper/runs/epochs/uci_energy/*/seeds_*.nc"
    assert line in guide
    again = [path.relative_to(folder) for path in folder.glob("results/small/runs/epochs/digits/*/seeds_*.nc")]
    (folder / "head.log").unlink()
    assert head(folder, *study, "--forcerun", *again).wait(timeout=300) == 0, messages(folder)
    after = {name: path.stat().st_mtime_ns for name, path in runs.items()}
    assert after["digits"] > before["digits"]
    assert after["diabetes"] == before["diabetes"]
    assert "1 jobs of train" in messages(folder).replace("Submitted ", "")
