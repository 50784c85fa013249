"""Everything that a real cluster does on its bad days, within one run: the study is made whole, with equal numbers."""

import re
import sys
from pathlib import Path

import pytest

from tests.slurm.accounting import ask, controller_away, kill_node, preempt, preempt_each, start_node, user_limit
from tests.slurm.runs import Study, Training, head, messages, queue, stand_in, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.accounting]

SQUARES = """
rule all:
    input: expand("out/{i}.txt", i=range(60))

rule square:
    output: "out/{i}.txt"
    resources: mem_mb=100, runtime=5
    shell: "echo $(({wildcards.i} * {wildcards.i})) >> {output}"
"""


def test_sixty_jobs_where_eight_may_be_submitted_in_arrays_of_six(folder: Path) -> None:
    (folder / "Snakefile").write_text(SQUARES)
    (folder / "empty.yaml").write_text("name: squares\n")
    with user_limit("MaxSubmitJobs", 8):
        process = head(folder, "--configfile", "empty.yaml", "--retries", "0")
        assert process.wait(timeout=500) == 0, messages(folder)
    numbers = [(folder / f"out/{i}.txt").read_text() for i in range(60)]
    assert numbers == [f"{i * i}\n" for i in range(60)]
    assert max(map(int, re.findall(r"Submitted (\d+) jobs", messages(folder)))) in range(2, 7)
    assert "Error in rule" not in messages(folder)


def test_a_job_that_is_preempted_five_times(folder: Path) -> None:
    training, expected = Training(folder, epochs=6000), folder / "undisturbed.nc"
    process = training.start("--retries", "0", resources=["train:slurm_partition=cancel"])
    for _ in range(5):
        training.wait_for_checkpoint(process)
        written = training.checkpoint.stat().st_mtime_ns
        wait_until(lambda: training.checkpoint.stat().st_mtime_ns != written)  # noqa: B023
        job = training.job_id()
        preempt(job)
        wait_until(lambda: job not in ask("squeue", "--noheader", "--format=%A", "--states=running").split())  # noqa: B023
        wait_until(lambda: "R" in ask("squeue", "--noheader", "--format=%t").split() or process.poll() is not None)
    alone = training.start_undisturbed(expected)
    assert process.wait(timeout=180) == 0, messages(folder)
    assert alone.wait(timeout=400) == 0
    assert "(5 of at most 20 times)" in messages(folder)
    assert "Error in rule" not in messages(folder)
    assert len(set(re.findall(r"Submitted 1 jobs .*\((.*)\)", messages(folder)))) == 1
    training.assert_numbers_of(expected)


def test_a_study_whose_jobs_are_preempted_five_times_each(folder: Path) -> None:
    study = Study(folder, epochs=20000)
    assert study.start_undisturbed().wait(timeout=900) == 0
    # Each has a node for itself, so that none is preempted with another.
    elsewhere = [f"{rule}:slurm_extra=--nodelist=node3" for rule in ("aggregate", "study")]
    # These two are over in a moment: now there is time to preempt them.
    program = Path(sys.executable).with_name("adamqlr")
    stand_in(folder, "adamqlr", f'[ "$1" != aggregate ] || sleep 5\nexec {program} "$@"')
    process = study.start("--retries", "0", "--set-resources", *elsewhere)

    def is_due(name: str, started: float) -> bool:
        return study.newest_checkpoint() > started if {"train", "tune"} & set(name.split("-")) else True

    restarts = preempt_each(5, is_due, process)
    assert process.wait() == 0, messages(folder)
    assert len(restarts) == 6
    assert min(restarts.values()) >= 5
    assert "Error in rule" not in messages(folder)
    assert "goes on from step" in (folder / "results/small/logs/train/epochs/digits/adam/seeds_0-0.log").read_text()
    study.assert_undisturbed_numbers()


def test_a_node_the_controller_and_the_head_die_in_one_run(folder: Path) -> None:
    study = Study(folder, epochs=12000)
    process = study.start("--retries", "0")
    wait_until(study.newest_checkpoint)
    node = ask("squeue", "--noheader", "--format=%N", "--states=running").split()[0]
    kill_node(node)
    written = study.newest_checkpoint()
    try:
        wait_until(lambda: study.newest_checkpoint() > written, 120)
    finally:
        start_node(node)
    process.kill()
    process.wait()
    with controller_away(120):
        alone = study.start_undisturbed()
        assert study.start("--unlock").wait(timeout=60) == 0, messages(folder)
        process = study.start("--retries", "0")
        wait_until(lambda: "the queue cannot be read" in messages(folder))
        assert alone.wait(timeout=600) == 0
    assert process.wait(timeout=600) == 0, messages(folder)
    assert "Error in rule" not in messages(folder)
    study.assert_undisturbed_numbers()
    # Nodes tell a controller only by and by of jobs that have ended while it was away.
    wait_until(lambda: queue() == "", 180)
