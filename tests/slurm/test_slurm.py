"""The executor on a quiet Slurm (tests/slurm/cluster.sh): what it survives, and that it leaves nothing behind."""

import contextlib
import csv
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import yaml

from tests.slurm.runs import (
    ROOT,
    Training,
    head,
    hold,
    messages,
    processes_in,
    queue,
    sbatch_calls,
    started,
    trivial,
    wait_until,
)

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

EPOCHS = 4000


def test_many_jobs_are_one_array_with_the_gpus_asked_for(folder: Path) -> None:
    process = trivial(folder, jobs=8, gpu=1)
    assert process.wait(timeout=180) == 0, messages(folder)
    assert sbatch_calls(folder) == 1
    assert {(folder / f"out/{i}.txt").read_text().strip() for i in range(8)} <= {"0", "1"}
    assert [path.name for path in (folder / "results/trivial/logs/slurm").iterdir()] == ["efficiency.tsv"]


def test_what_jobs_asked_for_and_took(folder: Path) -> None:
    """A table with a row for each job, failed ones too, and a line that asks for what is needed."""
    (folder / "large.py").write_text("import time\nx = b'1' * (250 * 2**20)\ntime.sleep(3)\n")
    (folder / "Snakefile").write_text(
        'rule all:\n    input: expand("out/{i}.txt", i=range(2))\n\n'
        'rule large:\n    output: "out/{i}.txt"\n    resources: mem_mb=2000, runtime=30\n'
        '    shell: "if mkdir failed_{wildcards.i}; then exit 3; fi; python3 large.py && touch {output}"\n'
    )
    (folder / "empty.yaml").write_text("name: large\n")
    assert head(folder, "--configfile", "empty.yaml", "--retries", "1").wait(timeout=120) == 0, messages(folder)
    with (folder / "results/large/logs/slurm/efficiency.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert sorted(row["ending"] for row in rows) == ["failed", "failed", "succeeded", "succeeded"]
    assert {(row["rule"], row["minutes_asked"], row["mb_asked"], row["cpus"], row["gpus"]) for row in rows} == {
        ("large", "30", "2000", "1", "0")
    }
    assert all(row["node"] for row in rows)
    took = [(float(row["minutes_used"]), int(row["mb_used"])) for row in rows if row["ending"] == "succeeded"]
    assert all(3 / 60 <= minutes < 1 and 250 <= mb < 600 for minutes, mb in took)
    advice = re.search(r"Next time, ask for (large:runtime=1 large:mem_mb=\d+)\.", messages(folder))
    assert advice, messages(folder)
    again = head(folder, "--configfile", "empty.yaml", "--forceall", "--set-resources", *advice.group(1).split())
    assert again.wait(timeout=60) == 0, messages(folder)


def test_short_jobs_share_one_job_of_the_clusters(folder: Path) -> None:
    """As the operator's guide says: groups that ask for what one of their jobs does, under both profiles."""
    shutil.copytree(ROOT / "profiles" / "default", folder / "profiles" / "default")
    groups = ["--groups", "one=short", "--group-components", "short=4", "--cores", "1"]
    process = trivial(folder, *groups, jobs=8)
    assert process.wait(timeout=90) == 0, messages(folder)
    assert len(list(folder.glob("out/*.txt"))) == 8
    assert "Submitted 2 jobs of short_one as slurm job " in messages(folder)
    assert "(20 min, 1 cpu, 100 MB)" in messages(folder)
    profile = (ROOT / "profiles" / "slurm" / "config.yaml").read_text()
    assert all(option in profile for option in ("# groups:", "# group-components:", "--cores 1 on the command line"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the training that is to be disturbed gives undisturbed."""
    output = tmp_path_factory.mktemp("undisturbed") / "out.nc"
    assert Training(output.parent, epochs=EPOCHS).start_undisturbed(output).wait() == 0
    return output


@pytest.mark.parametrize("disturbance", ["killed", "requeued", "canceled"])
def test_a_disturbed_training_job_ends_with_the_numbers_of_an_undisturbed_one(
    disturbance: str, undisturbed: Path, folder: Path
) -> None:
    training = Training(folder, epochs=EPOCHS)
    process = training.start()
    training.wait_for_checkpoint(process)
    job = training.job_id()
    if disturbance == "killed":
        for member in processes_in(folder):
            # Those whose parents are killed first may be gone by their turn.
            with contextlib.suppress(psutil.NoSuchProcess):
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


def test_a_time_limit_in_the_middle_of_training(undisturbed: Path, folder: Path) -> None:
    """Training rests until Slurm says that the limit is near, with a SIGCONT first: no machine is too fast for it."""
    training = Training(folder, epochs=EPOCHS)
    process = training.start(resources=["train:runtime=1"])
    training.wait_for_checkpoint(process)
    next(member for member in processes_in(folder) if member.name() == "adamqlr").suspend()
    assert process.wait(timeout=400) == 0, messages(folder)
    assert sbatch_calls(folder) == 1, "it was submitted anew instead of requeued"
    assert "goes on from step" in training.log.read_text()
    training.assert_numbers_of(undisturbed)


def test_ctrl_c_empties_the_queue(folder: Path) -> None:
    process = trivial(folder, seconds=300, jobs=6)
    wait_until(lambda: len(list(folder.glob("started_*"))) >= 2)
    process.send_signal(signal.SIGINT)
    pressed = time.monotonic()
    wait_until(lambda: queue() == "", 10)
    wait_until(lambda: processes_in(folder) == [], 10 - (time.monotonic() - pressed))
    assert process.wait(timeout=10) != 0


def test_jobs_of_a_head_process_that_was_killed_are_taken_up(folder: Path) -> None:
    held = hold(folder, 3)
    process = trivial(folder, jobs=3)
    wait_until(lambda: len(started(folder)) >= 2)
    process.kill()
    process.wait()
    # The first two end while nobody watches.
    for name in started(folder):
        held.pop(name).unlink()
    wait_until(lambda: len(list(folder.glob("out/*.txt"))) == 2)
    assert trivial(folder, "--unlock", jobs=3).wait(timeout=60) == 0
    process = trivial(folder, jobs=3)
    wait_until(lambda: "of an earlier run" in messages(folder) or process.poll() is not None)
    for file in held.values():
        file.unlink()
    assert process.wait(timeout=120) == 0, messages(folder)
    assert sbatch_calls(folder) == 1
    assert "of an earlier run" in messages(folder)
    assert len(list(folder.glob("out/*.txt"))) == 3
    assert not (folder / ".snakemake/submitit/ledger.jsonl").exists()
    # What has ended meanwhile is no substitute for a job that is wanted again.
    assert trivial(folder, "--forceall", jobs=3).wait(timeout=60) == 0
    assert sbatch_calls(folder) == 2


def test_jobs_of_a_dead_head_process_do_not_end_after_those_of_other_settings(folder: Path) -> None:
    held = hold(folder, 2)
    process = trivial(folder, jobs=2)
    wait_until(lambda: len(started(folder)) == 2)
    process.kill()
    process.wait()
    assert trivial(folder, "--unlock", jobs=2).wait(timeout=60) == 0
    process = trivial(folder, jobs=2, setting=1)
    wait_until(lambda: "are canceled" in messages(folder) or process.poll() is not None)
    wait_until(lambda: sbatch_calls(folder) == 2)
    for file in held.values():
        file.unlink()
    assert process.wait(timeout=120) == 0, messages(folder)
    assert "2 slurm jobs of an earlier run make the same files from other settings" in messages(folder)
    assert len(list(folder.glob("out/*.txt"))) == 2


def test_a_second_head_in_the_folder_is_sent_away(folder: Path) -> None:
    """At once and in one line; the first one's jobs are not touched."""
    held = hold(folder, 2)
    first = trivial(folder, jobs=2)
    wait_until(lambda: len(started(folder)) == 2)
    second = trivial(folder, jobs=2)
    assert second.wait(timeout=30) == 1
    assert "Directory cannot be locked" in messages(folder)
    for file in held.values():
        file.unlink()
    assert first.wait(timeout=60) == 0, messages(folder)
    assert sbatch_calls(folder) == 1
    assert len(list(folder.glob("out/*.txt"))) == 2


@pytest.mark.parametrize(
    ("resource", "said"),
    [("one:slurm_partition=nope", "set slurm_partition"), ("one:gpu=5", "ask for what a node of the partition has")],
)
def test_what_slurm_refuses_is_said_in_one_line(resource: str, said: str, folder: Path) -> None:
    process = trivial(folder, "--set-resources", resource)
    assert process.wait(timeout=120) == 1, messages(folder)
    lines = [line for line in messages(folder).splitlines() if "Slurm refused a job" in line]
    assert len(lines) == 1, messages(folder)
    assert said in lines[0]
    assert "Traceback" not in messages(folder)


def test_one_rule_for_one_dataset_again(folder: Path) -> None:
    """The operator's guide's line, on a study of two datasets without its figures."""
    settings = {
        "name": "small",
        "device": "cpu",
        "datasets": {"digits": {"epochs": 2}, "diabetes": {"epochs": 2}},
        "optimizers": ["adam_untuned"],
        "training": {"seeds": 2},
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    study = ["results/small/study.nc", "--snakefile", ROOT / "Snakefile", "--configfile", "small.yaml"]
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
