"""What tests on a real Slurm share: Snakemake with the profile, a trivial workflow, a training job, the queue."""

import contextlib
import os
import shutil
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import psutil
import xarray as xr
import yaml

ROOT = Path(__file__).resolve().parents[2]
TRIVIAL = """
rule all:
    input: expand("out/{i}.txt", i=range(int(config["jobs"])))

rule one:
    output: "out/{i}.txt"
    resources: mem_mb=100, runtime=5, gpu=int(config.get("gpu", 0))
    params: setting=config.get("setting", 0)
    shell:
        "touch started_{wildcards.i}; sleep {config[seconds]}; while [ -e held_{wildcards.i} ]; do sleep 0.1; done; "
        "echo ${{CUDA_VISIBLE_DEVICES:-none}} > {output}"
"""


def queue() -> str:
    return subprocess.run(["squeue", "--noheader"], capture_output=True, text=True, check=True).stdout


def sbatch_calls(folder: Path) -> int:
    path = folder / "bin" / "sbatch.calls"
    return len(path.read_text().splitlines()) if path.exists() else 0


def stand_in(folder: Path, name: str, text: str) -> None:
    """Put a shell script before one of Slurm's commands; ``$real`` is the command itself."""
    path = folder / "bin" / name
    real = shutil.which(name, path="/usr/bin:/usr/local/bin")
    path.write_text(f"#!/bin/bash\nreal={real}\nfolder={folder}\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


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
    folder: Path, *arguments: object, seconds: float = 0.1, jobs: int = 2, gpu: int = 0, setting: int = 0
) -> subprocess.Popen[str]:
    (folder / "Snakefile").write_text(TRIVIAL)
    (folder / "empty.yaml").write_text("name: trivial\n")
    config = ["--config", f"seconds={seconds}", f"jobs={jobs}", f"gpu={gpu}", f"setting={setting}"]
    return head(folder, "--configfile", "empty.yaml", *arguments, *config)


def hold(folder: Path, jobs: int) -> dict[str, Path]:
    """Have the first jobs of :func:`trivial` go on for as long as the file of each, by its wildcard, is there."""
    held = {str(i): folder / f"held_{i}" for i in range(jobs)}
    for file in held.values():
        file.touch()
    return held


def started(folder: Path) -> list[str]:
    """Return the wildcards of the jobs of :func:`trivial` that have started."""
    return [path.name.removeprefix("started_") for path in folder.glob("started_*")]


def small_study(folder: Path, epochs: int, optimizers: list[str], **sections: object) -> Path:
    """Write the configuration of a study of digits that often writes where it is, and return its path."""
    settings = {
        "name": "small",
        "device": "cpu",
        "datasets": {"digits": {"epochs": epochs}},
        "optimizers": optimizers,
        "training": {"seeds": 1, "checkpoint_seconds": 0.5},
        **sections,
    }
    config = folder / "small.yaml"
    config.write_text(yaml.safe_dump(settings, sort_keys=False))
    return config


class Training:
    """One training job of the study under Slurm, long enough to be disturbed."""

    def __init__(self, folder: Path, epochs: int) -> None:
        self.folder, self.config = folder, small_study(folder, epochs, ["adamqlr_untuned"])
        self.output = folder / "results/small/runs/epochs/digits/adamqlr_untuned/seeds_0-0.nc"
        self.checkpoint = self.output.with_name(f".{self.output.name}.checkpoint")
        self.log = folder / "results/small/logs/train/epochs/digits/adamqlr_untuned/seeds_0-0.log"

    def start(self, *arguments: object, resources: Sequence[str] = ()) -> subprocess.Popen[str]:
        snakefile = ["--snakefile", ROOT / "Snakefile", "--configfile", self.config]
        # The GPU that is allocated is pretended: only the CPU computes.
        asked = ["--set-resources", "train:gpu=1", *resources]
        return head(self.folder, self.output.relative_to(self.folder), *snakefile, *asked, *arguments)

    def wait_for_checkpoint(self, process: subprocess.Popen[str]) -> None:
        wait_until(lambda: self.checkpoint.exists() or process.poll() is not None)
        assert process.poll() is None, messages(self.folder)

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
        program = [sys.executable, "-m", "adamqlr", "train", "--config", str(self.config), "--dataset", "digits"]
        options = ["--optimizer", "adamqlr_untuned", "--seeds", "0", "--output", str(output)]
        return subprocess.Popen(
            [*program, *options], stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )


class Study:
    """A whole study in small: a search, training with what it found and without, cubes, and the file of it all."""

    def __init__(self, folder: Path, epochs: int) -> None:
        tuning = {"trials": 6, "unit": "epochs", "first_rung": 500, "limit": epochs, "shards": 1}
        self.folder, config = folder, small_study(folder, epochs, ["adam", "adamqlr_untuned"], tuning=tuning)
        self.output = folder / "results/small/study.nc"
        self._options = [self.output.relative_to(folder), "--snakefile", ROOT / "Snakefile"]
        self._options += ["--configfile", config]

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        return head(self.folder, *self._options, *arguments)

    def start_undisturbed(self) -> subprocess.Popen[bytes]:
        """Make the same study in processes of this machine, in a folder of its own."""
        (self.folder / "undisturbed").mkdir()
        program = [sys.executable, "-m", "snakemake", "--cores", "1", *map(str, self._options)]
        return subprocess.Popen(program, cwd=self.folder / "undisturbed", stderr=subprocess.DEVNULL)

    def newest_checkpoint(self) -> float:
        """Return when training or a search last wrote where it is, or 0."""
        times = [0.0]
        for path in self.folder.glob("results/small/*/epochs/digits/**/.*"):
            # What ends meanwhile removes its own.
            with contextlib.suppress(FileNotFoundError):
                times.append(path.stat().st_mtime)
        return max(times)

    def assert_undisturbed_numbers(self) -> None:
        """All numbers are those of :meth:`start_undisturbed`, but for times."""
        found, wanted = (
            xr.open_datatree(self.output),
            xr.open_datatree(self.folder / "undisturbed/results/small/study.nc"),
        )
        compared = Counter[str]()
        for path, group in wanted.to_dict().items():
            for name in ("value_by_step", "diverged", "final_step", "value", "state", "hyperparameter_lr"):
                if name in group and "time" not in group[name].dims:
                    np.testing.assert_array_equal(
                        found[path][name].values, group[name].values, err_msg=f"{path} {name}"
                    )
                    compared[name] += 1
        assert compared["value_by_step"] == 2
        assert compared["hyperparameter_lr"] == 1
