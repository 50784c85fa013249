"""What ends jobs on a real Slurm: preemption, nodes that go, a time limit without a checkpoint."""

import re
from pathlib import Path

import pytest

from tests.slurm.accounting import ask, kill_node, preempt, start_node, taken_away
from tests.slurm.runs import Training, head, messages, sbatch_calls, stand_in, trivial, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

EPOCHS = 4000


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the training that is to be disturbed gives undisturbed."""
    output = tmp_path_factory.mktemp("undisturbed") / "out.nc"
    assert Training(output.parent, epochs=EPOCHS).start_undisturbed(output).wait() == 0
    return output


@pytest.mark.accounting
@pytest.mark.parametrize("partition", ["main", "grace"])
def test_preempted_jobs_go_on_with_what_they_asked_for(partition: str, undisturbed: Path, folder: Path) -> None:
    """By requeuing them, and by canceling them after they were given some seconds."""
    training = Training(folder, epochs=EPOCHS)
    process = training.start("--retries", "0", resources=[f"train:slurm_partition={partition}"])
    training.wait_for_checkpoint(process)
    job = training.job_id()
    preempt(job)
    assert process.wait(timeout=180) == 0, messages(folder)
    assert "Error in rule" not in messages(folder)
    assert sbatch_calls(folder) == (1 if partition == "main" else 2)
    assert len(set(re.findall(r"Submitted 1 jobs .*\((.*)\)", messages(folder)))) == 1
    assert "goes on from step" in training.log.read_text()
    training.assert_numbers_of(undisturbed)


@pytest.mark.accounting
@pytest.mark.parametrize("requeue", ["--requeue", "--no-requeue"])
def test_jobs_of_a_node_that_dies_run_on_another(requeue: str, folder: Path) -> None:
    process = trivial(
        folder, "--set-resources", f"one:slurm_extra='{requeue} --partition=main'", "--retries", "0", seconds=15, jobs=1
    )
    wait_until(lambda: list(folder.glob("started_*")))
    node = ask("squeue", "--noheader", "--format=%N").strip()
    kill_node(node)
    try:
        assert process.wait(timeout=180) == 0, messages(folder)
    finally:
        start_node(node)
    assert "Error in rule" not in messages(folder)
    assert ("ended as NODE_FAIL, through no fault of its own" in messages(folder)) == (requeue == "--no-requeue")


@pytest.mark.accounting
@pytest.mark.parametrize(("how", "starts"), [("drain", 1), ("down", 2), ("rebooted", 2)])
def test_jobs_of_a_node_that_is_taken_away(how: str, starts: int, folder: Path) -> None:
    """A drained one lets them end; otherwise they run again, on another node or when it is back."""
    (folder / "Snakefile").write_text(
        'rule one:\n    output: "out.txt"\n    resources: mem_mb=100, runtime=5\n'
        '    shell: "echo $SLURMD_NODENAME >> starts; sleep 10; touch {output}"\n'
    )
    (folder / "empty.yaml").write_text("name: one\n")
    process = head(folder, "--configfile", "empty.yaml", "--retries", "0")
    wait_until(lambda: (folder / "starts").exists())
    node = (folder / "starts").read_text().strip()
    with taken_away(node, how):
        assert process.wait(timeout=180) == 0, messages(folder)
    assert "Error in rule" not in messages(folder)
    assert len((folder / "starts").read_text().splitlines()) == starts


@pytest.mark.accounting
def test_only_the_time_limit_asks_for_more_time(folder: Path) -> None:
    """A command that has no checkpoint is not requeued to reach the same limit again.

    Slurm looks at limits every half minute, and has forgotten the job by the time that it is asked.
    """
    (folder / "Snakefile").write_text(
        'rule all:\n    input: "out.txt"\n\nrule slow:\n    output: "out.txt"\n'
        "    resources: mem_mb=lambda wildcards, attempt: 100 * attempt, runtime=lambda wildcards, attempt: attempt\n"
        '    shell: "[ {resources.runtime} -gt 1 ] || sleep 300; touch {output}"\n'
    )
    (folder / "empty.yaml").write_text("name: slow\n")
    stand_in(folder, "squeue", '$real "$@" | grep -v TIMEOUT; exit 0')
    stand_in(folder, "sacct", "exit 0")
    process = head(folder, "--configfile", "empty.yaml")
    assert process.wait(timeout=180) == 0, messages(folder)
    asked = re.findall(r"Submitted 1 jobs .*\((\d) min, 1 cpu, (\d+) MB\)", messages(folder))
    assert asked == [("1", "100"), ("2", "100")]
    assert "it has reached its time limit" in messages(folder)
