"""The workflow: its jobs, its checks, and a small study from end to end."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


def snakemake(folder: Path, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [*program, "--cores", "2", *map(str, arguments)], capture_output=True, text=True, env=environment, timeout=600
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def job_counts(text: str) -> dict[str, int]:
    lines = text.partition("Job stats:")[2].splitlines()[3:]
    rows = (line.split() for line in lines[: lines.index("") if "" in lines else None])
    return {row[0]: int(row[1]) for row in rows if len(row) == 2}


def test_the_papers_study_has_the_jobs_that_it_should(tmp_path: Path) -> None:
    done = snakemake(tmp_path, "-n", "--quiet", "rules", "--configfile", ROOT / "workflow/config/paper.yaml")
    counts = job_counts(done.stdout + done.stderr)
    from adamqlr.config import load_config

    config = load_config(ROOT / "workflow/config/paper.yaml")
    pairs = [(dataset, optimizer) for suite in config.suites for dataset, optimizer in config.pairs(suite)]
    tuned = sum(config.is_tuned(optimizer, dataset) for dataset, optimizer in pairs)
    rosenbrock = sum(dataset == "rosenbrock" for dataset, _ in pairs)
    assert counts["aggregate"] == len(pairs)
    assert counts["tune"] == tuned
    assert counts["tune_shard"] == 8 * tuned
    assert counts["train"] == 5 * (len(pairs) - rosenbrock) + rosenbrock
    assert counts["fetch_data"] == 5
    assert counts["study"] == 1


def test_lint_is_clean() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--lint"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_typo_in_the_configuration_is_a_clear_error(tmp_path: Path) -> None:
    done = snakemake(tmp_path, "-n", "--config", "trainin=3", check=False)
    assert done.returncode == 1
    assert "configuration: trainin: unknown key" in done.stdout + done.stderr


@pytest.fixture(scope="module")
def small_study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A finished study, and its configuration."""
    folder = tmp_path_factory.mktemp("workflow")
    config = folder / "small.yaml"
    settings = {
        "name": "small",
        "datasets": {"rosenbrock": {"epochs": 10}, "digits": {"epochs": 2}},
        "optimizers": ["adam", "adamqlr_untuned"],
        "tuning": {"trials": 2, "unit": "epochs", "first_rung": 1, "limit": 2, "reduction_factor": 2, "shards": 2},
        "training": {"seeds": 3, "seeds_per_job": 2},
    }
    config.write_text(yaml.safe_dump(settings, sort_keys=False))
    snakemake(folder, "--configfile", config)
    return folder, config


@pytest.mark.slow
def test_a_study_runs_from_end_to_end_and_then_has_nothing_to_do(small_study: tuple[Path, Path]) -> None:
    folder, config = small_study
    results = folder / "results" / "small"
    for made in (
        "study.nc",
        "config.yaml",
        "cubes/epochs/digits/adam.nc",
        "runs/epochs/digits/adam/seeds_0-1.nc",
        "runs/epochs/digits/adam/seeds_2-2.nc",
        "tuning/epochs/digits/adam/best.yaml",
        "figures/epochs/performance.pdf",
        "tables/epochs/final_results.tex",
        "logs/train/epochs/digits/adam/seeds_0-1.log",
        "benchmarks/train/epochs/digits/adam/seeds_0-1.tsv",
    ):
        assert (results / made).stat().st_size > 0
    assert not list(results.rglob("*.checkpoint"))
    again = snakemake(folder, "--configfile", config)
    assert "Nothing to be done" in again.stdout + again.stderr
    snakemake(folder, "--configfile", config, "--report", "report.html")
    report = (folder / "report.html").read_text()
    assert "Performance against training time" in report


@pytest.mark.slow
def test_only_what_a_change_concerns_runs_again(small_study: tuple[Path, Path]) -> None:
    folder, config = small_study

    def jobs(*arguments: object) -> dict[str, int]:
        done = snakemake(folder, "-n", "--quiet", "rules", "--configfile", config, *arguments)
        counts = job_counts(done.stdout + done.stderr)
        counts.pop("total", None)
        counts.pop("all", None)
        return counts

    assert jobs("--config", "statistics={resamples: 40}") == {"figure": 4, "table": 3}
    changed = jobs("--config", "datasets={digits: {epochs: 3}}")
    assert changed == {"tune_shard": 2, "tune": 1, "train": 4, "aggregate": 2, "study": 1, "figure": 4, "table": 3}
    cube = folder / "results/small/cubes/epochs/digits/adam.nc"
    kept = folder / "kept.nc"
    shutil.move(cube, kept)
    try:
        assert jobs() == {"aggregate": 1, "study": 1, "figure": 4, "table": 3}
    finally:
        shutil.move(kept, cube)
    forced = jobs("--forcerun", *(f"results/small/runs/epochs/digits/adam/seeds_{part}.nc" for part in ("0-1", "2-2")))
    assert forced == {"train": 2, "aggregate": 1, "study": 1, "figure": 4, "table": 3}
