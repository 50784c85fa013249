"""The jobs that a study's status counts are the workflow's."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from adamqlr.status.expected import jobs_of
from adamqlr.study.config import load_config

ROOT = Path(__file__).resolve().parents[2]
Described = tuple[str, tuple[str, ...], str, str]


def workflow_jobs(config: Path, folder: Path, *options: str) -> set[Described]:
    """What Snakemake says of each job that it would run: its rule, outputs, log and benchmark."""
    place = ("--snakefile", ROOT / "Snakefile", "--directory", folder, "--configfile", config)
    command = [sys.executable, "-m", "snakemake", "-n", "--cores", "1", *map(str, place), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    jobs = set()
    for rule, body in re.findall(r"^\w*rule (\w+):\n((?:    .*\n)+)", done.stdout + done.stderr, re.MULTILINE):
        fields = dict(re.findall(r"^    (output|log|benchmark): (.*)$", body, re.MULTILINE))
        if rule != "all":
            jobs.add((rule, tuple(fields["output"].split(", ")), fields["log"], fields["benchmark"]))
    return jobs


@pytest.mark.parametrize(("name", "unit"), [("paper", "seconds"), ("heuristics", "epochs"), ("quickstart", "steps")])
def test_every_job_of_the_workflow_is_expected_with_its_files(name: str, unit: str, tmp_path: Path) -> None:
    config = ROOT / f"workflow/config/{name}.yaml"
    study = load_config(config, [f"tuning.unit={unit}"])
    place = f"results/{study.name}/"
    expected = {
        (job.rule, tuple(place + output for output in job.outputs), place + job.log, place + job.benchmark)
        for job in jobs_of(study, {})
    }
    assert workflow_jobs(config, tmp_path, "--config", f"tuning={{unit: {unit}}}") == expected


def test_every_job_is_counted_once() -> None:
    outputs = [
        output for job in jobs_of(load_config(ROOT / "workflow/config/paper.yaml"), {}) for output in job.outputs
    ]
    assert len(outputs) == len(set(outputs))
