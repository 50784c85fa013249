"""The workflow: its jobs, its checks, and a small study from end to end."""

import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml

from adamqlr.figures.contents import figures_of
from adamqlr.study.case import cases_of
from adamqlr.study.config import load_config
from adamqlr.study.optimizers import OPTIMIZERS
from adamqlr.study.paths import step_costs_file
from adamqlr.tables.contents import tables_of
from adamqlr.tuning.trials import read_trials

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


def pending(folder: Path, *arguments: object) -> dict[str, int]:
    done = snakemake(folder, "-n", "--quiet", "rules", *arguments)
    counts = job_counts(done.stdout + done.stderr)
    return {rule: count for rule, count in counts.items() if rule not in ("all", "total")}


def test_the_papers_study_has_the_jobs_that_it_should(tmp_path: Path) -> None:
    done = snakemake(tmp_path, "-n", "--quiet", "rules", "--configfile", ROOT / "workflow/config/paper.yaml")
    counts = job_counts(done.stdout + done.stderr)
    config = load_config(ROOT / "workflow/config/paper.yaml")
    cases = [case for suite in config.suites for case in cases_of(config, suite)]
    tuned = sum(case.is_tuned for case in cases)
    rosenbrock = sum(case.dataset == "rosenbrock" for case in cases)
    assert counts["aggregate"] == len(cases)
    assert counts["tune"] == tuned
    assert counts["tune_shard"] == 8 * tuned
    assert counts["train"] == 5 * (len(cases) - rosenbrock) + rosenbrock
    assert counts["fetch_data"] == 5
    assert counts["study"] == counts["claims"] == 1
    # AdamQLR: rescaling 11, batch size 7, damping 17, stepping factor 11, clipping 11; Adam 7 + 19; K-FAC 7 + 17.
    assert counts["aggregate_sweep"] == 57 + 26 + 24
    assert counts["sweep"] == 5 * 107


def test_what_would_run_is_told_without_writing_anything(tmp_path: Path) -> None:
    done = snakemake(tmp_path, "-n", "--quiet", "rules", "--configfile", ROOT / "workflow/config/miniature.yaml")
    assert job_counts(done.stdout + done.stderr)["study"] == 1
    # Snakemake keeps its own notes.
    assert [path.name for path in tmp_path.iterdir() if path.name != ".snakemake"] == []


@pytest.mark.parametrize(("device", "gpus"), [("cpu", 0), ("auto", 1)])
def test_who_wants_no_gpu_asks_for_none(device: str, gpus: int, tmp_path: Path) -> None:
    config = ["--configfile", ROOT / "workflow/config/quickstart.yaml", "--config", f"device={device}"]
    done = snakemake(tmp_path, "-n", "results/quickstart/cubes/epochs/digits/adamqlr.nc", *config)
    asked = re.findall(r"^rule (\w+):(?:\n .*)*?\n    resources: .*?\bgpu=(\d+)", done.stdout, re.MULTILINE)
    assert dict(asked) == {"tune": str(gpus), "train": str(gpus)}


def test_processes_of_a_job_are_no_more_than_its_share_of_the_trials(tmp_path: Path) -> None:
    settings = ("tuning={trials: 6, shards: 3, limit: 20}", "datasets={rosenbrock: {runs_per_gpu: 6}}", "device=cuda")
    config = ["--configfile", ROOT / "workflow/config/miniature.yaml", "--config", *settings]
    done = snakemake(tmp_path, "-n", "results/miniature/tuning/epochs/rosenbrock/adam/best.yaml", *config)
    asked = re.findall(
        r"^rule tune_shard:(?:\n .*)*?\n    resources: .*?\bcpus_per_task=(\d+)", done.stdout, re.MULTILINE
    )
    assert asked == ["2", "2", "2"]


def test_images_are_read_by_several_processes_and_nothing_else_is_changed_for_it(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("{name: small, datasets: [imagenet, digits], optimizers: [adam_untuned]}")
    done = snakemake(tmp_path, "-n", "--cores", 16, "--until", "train", "--configfile", tmp_path / "study.yaml")
    rule = r"^rule train:(?:\n .*)*?\n    output: \S*?/epochs/(\w+)/(?:.*\n .*)*?\n(?:    threads: (\d+)\n)?"
    asked = re.findall(rule + r"    resources: .*?\bcpus_per_task=(\d+)", done.stdout, re.MULTILINE)
    assert {dataset: own for dataset, *own in asked} == {"imagenet": ["8", "8"], "digits": ["", "1"]}


EDITS = {
    "other settings": "{name: small, datasets: [digits], optimizers: [sgd_full]}",
    "another name": "{name: other, datasets: [digits], optimizers: [adam]}",
    "half a file": "{name: small, datasets: [dig",
}


@pytest.mark.parametrize("edit", EDITS)
def test_jobs_keep_to_the_configuration_that_their_run_began_with(edit: str, tmp_path: Path) -> None:
    """The first job edits the file; the second is one of the study's, and a wrong file would have it fail."""
    (tmp_path / "study.yaml").write_text("{name: small, datasets: [digits], optimizers: [adam], device: cpu}")
    workflow = f'''
include: "{ROOT}/Snakefile"
rule edit:
    output: "edited"
    shell: "echo '{EDITS[edit].replace("{", "{{").replace("}", "}}")}' > study.yaml; touch {{output}}"
rule look:
    input: "edited"
    output: "looked"
    params: study=STUDY.name + " ".join(STUDY.optimizers)
    shell: "echo {{params.study}} > {{output}}"
'''
    (tmp_path / "Snakefile").write_text(workflow)
    settings = ("--snakefile", tmp_path / "Snakefile", "--configfile", tmp_path / "study.yaml")
    local = ("--executor", "submitit", "--submitit-cluster", "local", "--jobs", "1")
    snakemake(tmp_path, "looked", *settings, *local)
    assert (tmp_path / "looked").read_text() == "smalladam\n"
    assert (tmp_path / "study.yaml").read_text().strip() == EDITS[edit]


WITHOUT_THE_EXECUTOR = """
import sys
sys.path = [folder for folder in sys.path if not folder.endswith("workflow/plugins")]
from snakemake.cli import main
main(sys.argv[1:])
"""


def test_a_study_on_the_machine_at_hand_needs_no_executor_for_clusters(tmp_path: Path) -> None:
    """The executor is a distribution of its own."""
    options = ["--snakefile", ROOT / "Snakefile", "--directory", tmp_path, "--cores", "1", "--until", "fetch_data"]
    config = ["--configfile", ROOT / "workflow/config/quickstart.yaml"]
    command = [sys.executable, "-c", WITHOUT_THE_EXECUTOR, *map(str, [*options, *config])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "submitit" not in done.stdout + done.stderr
    assert (tmp_path / "results/quickstart/config.yaml").is_file()


def test_the_scheduler_has_no_limit_on_jobs_a_second(tmp_path: Path) -> None:
    workflow = f'''
include: "{ROOT}/Snakefile"
onsuccess: print("limit:", workflow.scheduler.job_rate_limiter)
rule nothing:
    output: "nothing"
    shell: "touch {{output}}"
'''
    (tmp_path / "Snakefile").write_text(workflow)
    settings = ("--snakefile", tmp_path / "Snakefile", "--configfile", ROOT / "workflow/config/quickstart.yaml")
    assert "limit: None" in snakemake(tmp_path, "nothing", *settings).stdout


def test_lint_is_clean() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--lint"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_typo_in_the_configuration_is_a_clear_error(tmp_path: Path) -> None:
    done = snakemake(tmp_path, "-n", "--config", "trainin=3", check=False)
    assert done.returncode == 1
    assert "configuration: trainin: unknown key" in done.stdout + done.stderr


def test_every_figure_and_table_is_made_by_a_rule(tmp_path: Path) -> None:
    """The maps in results/README.md: their files have rules, their commands name their files, nothing is left out."""
    text = (ROOT / "results" / "README.md").read_text()
    rows = re.findall(r"^\| [^|]+ \| `((?:figures|tables|claims)[^`]+)` \| `([^`]+)` \|$", text, re.MULTILINE)
    files = [file for file, _ in rows]
    assert len(set(files)) == len(rows) == 29 + 13
    for file, command in rows:
        assert command == f"snakemake --profile slurm --force results/paper/{file}"
    paper = ("--configfile", ROOT / "workflow/config/paper.yaml")
    snakemake(tmp_path, *(f"results/paper/{file}" for file in files), "-n", "--quiet", "all", *paper)
    for nonsense in ("figures/epochs/nonsense.pdf", "figures/nonsense/loss.pdf", "tables/sensitivity/nonsense.md"):
        refused = snakemake(tmp_path, f"results/paper/{nonsense}", "-n", *paper, check=False)
        assert refused.returncode != 0, "a file that no rule can make"
    misspelled = snakemake(tmp_path, "results/paper/figures/epochs/los.pdf", "-n", *paper, check=False)
    assert re.search(r"there is no 'los' of 'epochs', which has .*, loss, ", misspelled.stdout + misspelled.stderr)
    config = load_config(ROOT / "workflow/config/paper.yaml")
    for suite in ("epochs", "sensitivity"):
        for kind, catalog in (("figures", figures_of), ("tables", tables_of)):
            mapped = {Path(file).stem for file in files if file.startswith(f"{kind}/{suite}/")}
            assert mapped == set(catalog(config, suite, {}))
    for suite in ("runtime_train", "runtime_validation"):
        mapped = {Path(file).stem for file in files if f"/{suite}/" in file}
        assert mapped == {"performance", "loss", "learning_rate", "final_results", "best_hyperparameters"}


def test_the_appendix_is_switched_on_by_taking_comments_away(tmp_path: Path) -> None:
    text = (ROOT / "workflow/config/paper.yaml").read_text()
    config = tmp_path / "paper.yaml"
    switched_on = r"^  # (penn_treebank:|imagenet:|- sgd_scheduled:|  )"
    config.write_text(re.sub(switched_on, r"  \1", text, flags=re.MULTILINE))
    done = snakemake(tmp_path, "-n", "--quiet", "rules", "--configfile", config)
    counts = job_counts(done.stdout + done.stderr)
    assert counts["fetch_data"] == 5 + 2
    cases = cases_of(load_config(config), "epochs")
    beyond_the_paper = {"adamqlr_hessian_untuned", "adamqlr_clipped"}
    text_cases, image_cases = ([c for c in cases if c.dataset == added] for added in ("penn_treebank", "imagenet"))
    assert {case.optimizer for case in text_cases} == set(OPTIMIZERS) - beyond_the_paper
    assert all(len(case.seeds) == 10 for case in text_cases)
    # Three single runs, of which nothing is tuned.
    assert [case.optimizer for case in image_cases] == ["adam_untuned", "adamqlr_untuned", "sgd_scheduled"]
    assert all(len(case.seeds) == 1 and not case.is_tuned for case in image_cases)
    assert [case.dataset for case in cases if case.optimizer == "sgd_scheduled"] == ["imagenet"]
    plain = load_config(ROOT / "workflow/config/paper.yaml")
    before = [case for suite in plain.suites for case in cases_of(plain, suite)]
    assert counts["tune"] == sum(case.is_tuned for case in (*before, *text_cases))
    assert counts["aggregate"] == len(before) + len(text_cases) + 3
    assert not {"penn_treebank", "imagenet"} & {case.dataset for case in cases_of(load_config(config), "runtime_train")}


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
        "sensitivity": {
            "lr": {"dataset": "digits", "optimizer": "adam", "parameter": "lr", "values": [0.001, 0.01], "seeds": 1}
        },
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
        "runs/sensitivity/lr/0.01/seeds_0-0.nc",
        "figures/sensitivity/lr.png",
        "tables/epochs/final_results.tex",
        "claims.csv",
        "claims.md",
        "index.html",
        "claims.pdf",
        "claims.png",
        "claims_summary.csv",
        "claims_summary.html",
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
    subcategories = re.search(r'"2. Figures": (\{.*?\})', report)
    assert subcategories is not None
    first = min(json.loads(subcategories[1]).items(), key=lambda item: item[0].casefold())
    assert first[1] == ["results/small/claims.png"], "as the report sorts them"


def test_steps_are_measured_once_and_not_where_another_studys_costs_lie(tmp_path: Path) -> None:
    config = load_config(ROOT / "workflow/config/quickstart.yaml")
    tuned = [case for case in cases_of(config, "epochs") if case.is_tuned]
    in_steps = ("--configfile", ROOT / "workflow/config/quickstart.yaml", "--config", "tuning={unit: steps}")
    before = pending(tmp_path, *in_steps)
    assert before.pop("step_costs") == before["tune"] == len(tuned)
    for case in tuned:
        path = tmp_path / "results/quickstart" / step_costs_file(case)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("batch_size,seconds_per_step\n200,0.001\n")
    assert pending(tmp_path, *in_steps) == before


def test_another_studys_costs_are_kept_where_data_is_still_to_be_fetched(tmp_path: Path) -> None:
    config = ROOT / "workflow/config/energy.yaml"
    tuned = [case for case in cases_of(load_config(config), "epochs") if case.is_tuned]
    in_steps = ("--configfile", config, "--config", "tuning={unit: steps, trials: 2, shards: 1}")
    before = pending(tmp_path, *in_steps)
    assert before["fetch_data"] == 1
    assert before.pop("step_costs") == len(tuned)
    results = tmp_path / "results/energy"
    for case in tuned:
        path = results / step_costs_file(case)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("batch_size,seconds_per_step\n50,0.001\n")
        os.utime(path, (1e9, 1e9))
    assert pending(tmp_path, *in_steps) == before
    # Nor when it has been fetched, which is later than they were measured.
    receipt = results / "data/uci_energy.txt"
    receipt.parent.mkdir()
    receipt.touch()
    del before["fetch_data"]
    assert pending(tmp_path, *in_steps) == before


@pytest.mark.slow
def test_a_search_in_steps_is_repeated_by_who_copies_its_costs(tmp_path: Path) -> None:
    settings = {
        "name": "steps",
        "datasets": {"digits": {"epochs": 20}},
        "optimizers": ["adam"],
        "ablations": {},
        "tuning": {"trials": 4, "unit": "steps", "first_rung": 0.05, "limit": 0.2, "reduction_factor": 2, "shards": 1},
    }
    config = tmp_path / "steps.yaml"
    config.write_text(yaml.safe_dump(settings, sort_keys=False))
    costs, trials = Path("results/steps/step_costs"), Path("results/steps/tuning/epochs/digits/adam/trials.nc")
    here, there = tmp_path / "here", tmp_path / "there"
    snakemake(here, trials, "--configfile", config)
    shutil.copytree(here / costs, there / costs)
    snakemake(there, trials, "--configfile", config)
    copied = there / costs / "digits/adam.csv"
    assert copied.read_text() == (here / costs / "digits/adam.csv").read_text()
    assert not (there / "results/steps/logs/step_costs").exists()
    found, again = (read_trials(folder / trials) for folder in (here, there))
    xr.testing.assert_identical(found.drop_attrs(), again.drop_attrs())
    assert found.attrs["identity"] == again.attrs["identity"]


@pytest.mark.slow
def test_only_what_a_change_concerns_runs_again(small_study: tuple[Path, Path]) -> None:
    folder, config = small_study

    def jobs(*arguments: object) -> dict[str, int]:
        return pending(folder, "--configfile", config, *arguments)

    drawn = {"figure": 12, "table": 7, "claims": 1, "index": 1}
    # The study's file keeps the configuration, and claims are about that file.
    joined = {"study": 1, "claims": 1, "index": 1}
    # What shows a suite's cubes: neither its search, nor sensitivity studies.
    drawn_of_suite = {"figure": 10, "table": 7, "claims": 1, "index": 1}
    assert jobs("--config", "statistics={resamples: 40}") == {"figure": 12, "table": 7, **joined}
    assert jobs("--config", "claims={margin: 0.2}") == joined
    assert jobs("--config", "datasets={digits: {label: Handwriting}}") == {"study": 1, **drawn}
    changed = jobs("--config", "datasets={digits: {epochs: 3}}")
    again = {"tune_shard": 2, "tune": 1, "train": 4, "aggregate": 2, "sweep": 2, "aggregate_sweep": 2, "study": 1}
    assert changed == {**again, **drawn}
    without = {
        "cubes/epochs/digits/adam.nc": {"aggregate": 1, "study": 1, **drawn_of_suite},
        "cubes/sensitivity/lr/0.01.nc": {"aggregate_sweep": 1, "study": 1, "figure": 1, "claims": 1, "index": 1},
        "figures/epochs/loss.png": {"figure": 1, "index": 1},
        "figures/sensitivity/lr.csv": {"figure": 1, "index": 1},
        "tables/epochs/divergence.md": {"table": 1, "index": 1},
        "claims.csv": {"claims": 1, "index": 1},
        "index.html": {"index": 1},
        "claims.png": {"claims": 1, "index": 1},
        "claims_summary.md": {"claims": 1, "index": 1},
    }
    kept = folder / "kept"
    for name, expected in without.items():
        path = folder / "results/small" / name
        shutil.move(path, kept)
        try:
            assert jobs() == expected, name
        finally:
            shutil.move(kept, path)
    forced = jobs("--forcerun", *(f"results/small/runs/epochs/digits/adam/seeds_{part}.nc" for part in ("0-1", "2-2")))
    assert forced == {"train": 2, "aggregate": 1, "study": 1, **drawn_of_suite}


@pytest.mark.slow
def test_a_deleted_figure_is_made_again_and_nothing_else(small_study: tuple[Path, Path]) -> None:
    folder, config = small_study
    results = folder / "results" / "small"
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*.*") if path.suffix in (".nc", ".png", ".md")}
    (results / "figures/epochs/performance.png").unlink()
    snakemake(folder, "--configfile", config)
    changed = [path.name for path, time in before.items() if path.stat().st_mtime_ns != time]
    assert changed == ["performance.png"]


PUBLISHED = "suite,dataset,optimizer,metric,value,error\n"


@pytest.mark.slow
def test_published_values_remake_what_shows_them_and_nothing_else(small_study: tuple[Path, Path]) -> None:
    folder, config = small_study
    results = folder / "results" / "small"
    file = results / "published.csv"

    def jobs() -> dict[str, int]:
        return pending(folder, "--configfile", config)

    def publish(rows: str) -> dict[str, int]:
        file.write_text(PUBLISHED + rows)
        return jobs()

    assert publish("epochs,digits,kfac,test_loss,0.1,\n") == {}, "of an optimizer that the study has not"
    try:
        assert publish("epochs,digits,adam,test_loss,0.1,\n") == {"figure": 1, "table": 1, "index": 1}
        done = snakemake(folder, "--configfile", config)
        assert re.search(r"3 of 4 steps \(\d+%\) done", done.stdout + done.stderr), "and the rule all"
        assert (results / "figures/epochs/published.png").exists()
        assert "test loss 0.1" in (results / "tables/epochs/final_results.md").read_text()
        assert publish("epochs,digits,adam,test_loss,0.1,\n") == {}, "the same values"
        assert publish("epochs,digits,adam,test_loss,0.2,\n") == {"figure": 1, "table": 1, "index": 1}
    finally:
        file.unlink()
    assert jobs() == {"table": 1, "index": 1}, "whose column goes"
    snakemake(folder, "--configfile", config)
    assert "Published" not in (results / "tables/epochs/final_results.md").read_text()


def test_published_values_that_were_spoiled_meanwhile_fail_no_training(tmp_path: Path) -> None:
    """Every job reads the workflow itself, after its run has begun."""
    file = tmp_path / "results/quickstart/published.csv"
    file.parent.mkdir(parents=True)
    file.write_text("nonsense")
    target = "results/quickstart/runs/epochs/digits/adam_untuned/seeds_0-4.nc"
    done = snakemake(tmp_path, "-n", "--mode", "remote", "--allowed-rules", "train", "--", target)
    assert job_counts(done.stdout + done.stderr)["train"] == 1


def test_published_values_that_cannot_be_read_are_a_clear_error(tmp_path: Path) -> None:
    file = tmp_path / "results/quickstart/published.csv"
    file.parent.mkdir(parents=True)
    file.write_text(PUBLISHED + "epochs,digits,adam,loss,0.5,\n")
    done = snakemake(tmp_path, "-n", check=False)
    assert done.returncode == 1
    assert "results/quickstart/published.csv, line 2: unknown metric 'loss'" in done.stdout + done.stderr


def test_a_file_of_ones_own_is_missing_before_anything_runs_where_it_is_needed(tmp_path: Path) -> None:
    own = "{path: own.csv, loss: half_mse, epochs: 1, batch_size: 10, hidden: [5]}"
    (tmp_path / "study.yaml").write_text(
        f"name: own\ndevice: cpu\ndatasets: {{own: {own}}}\noptimizers: [adam_untuned]\ntraining: {{seeds: 1}}\n"
    )
    target = "results/own/cubes/epochs/own/adam_untuned.nc"
    run = partial(snakemake, tmp_path, target, "--configfile", tmp_path / "study.yaml")
    done = run("-n", check=False)
    assert (done.returncode, "affected files:\n        own.csv" in done.stdout + done.stderr) == (1, True)
    np.savetxt(tmp_path / "own.csv", np.random.default_rng(0).normal(size=(60, 4)))
    run()
    (tmp_path / "own.csv").unlink()
    assert "Nothing to be done" in run("-n").stdout
