"""Several nodes of a real Slurm: one that is broken, kinds of GPUs, partitions chosen from a table."""

import re
from pathlib import Path

import pytest

from tests.slurm.accounting import ask, node_configured, occupied
from tests.slurm.runs import head, messages, trivial, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.accounting]

BROKEN = '[ "$SLURMD_NODENAME" != node1 ]'


def test_a_node_on_which_jobs_fail_gets_no_more(folder: Path) -> None:
    """One node is broken, and would take all jobs up as fast as it breaks them."""
    process = trivial(folder, "--submitit-setup", BROKEN, "--retries", "1", jobs=6)
    assert process.wait(timeout=180) == 0, messages(folder)
    assert messages(folder).count("node1 gets no more jobs: 2 in a row failed there") == 1


def test_a_retry_that_was_on_its_way_to_the_broken_node_is_not_its_jobs_last(folder: Path) -> None:
    """It fails there before the second job does, which ends ten seconds later and would make the node a broken one."""
    later = "sleep $((10 * ${SLURM_ARRAY_TASK_ID:-0}))"
    with occupied("node2,node3"):
        process = trivial(folder, "--submitit-setup", f"{later}; {BROKEN}", "--retries", "1", jobs=2)
        wait_until(lambda: "node1 gets no more jobs" in messages(folder) or process.poll() is not None, 60)
    assert process.wait(timeout=120) == 0, messages(folder)
    assert messages(folder).count("Error in rule") == 1
    assert messages(folder).count("on node1, now kept away from") == 2


def test_a_job_that_fails_everywhere_is_not_the_nodes_fault(folder: Path) -> None:
    (folder / "Snakefile").write_text('rule broken:\n    output: "x"\n    resources: mem_mb=100\n    shell: "exit 3"\n')
    (folder / "empty.yaml").write_text("name: broken\n")
    process = head(folder, "--configfile", "empty.yaml", "--submitit-node-failures", "1")
    assert process.wait(timeout=180) == 1, messages(folder)
    assert messages(folder).count("gets no more jobs") == 1


@pytest.mark.parametrize(
    ("line", "cgroup"),
    [
        ("JobAcctGatherParams=OverMemoryKill", ""),
        ("TaskPlugin=task/cgroup", "CgroupPlugin=cgroup/v1\nConstrainRAMSpace=yes\nConstrainSwapSpace=yes\n"),
    ],
)
def test_a_job_that_is_killed_for_want_of_memory_gets_more_of_it(line: str, cgroup: str, folder: Path) -> None:
    """And of nothing else; its node is not to blame. Killed by Slurm, which measures it, or by the kernel."""
    if cgroup and not Path("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists():
        pytest.skip("no memory controller of cgroup v1 is mounted here")
    (folder / "large.py").write_text("import time\nx = b'1' * (500 * 2**20)\ntime.sleep(3)\n")
    (folder / "Snakefile").write_text(
        'rule large:\n    output: "out.txt"\n'
        "    resources: mem_mb=lambda wildcards, attempt: 400 * attempt, runtime=lambda wildcards, attempt: attempt\n"
        '    shell: "python3 large.py && touch {output}"\n'
    )
    (folder / "empty.yaml").write_text("name: large\n")
    options = ["--submitit-node-failures", "1", "--set-resources", "large:slurm_extra=--nodelist=node3"]
    with node_configured("node3", folder, line, cgroup):
        process = head(folder, "--configfile", "empty.yaml", "--retries", "1", *options)
        assert process.wait(timeout=120) == 0, messages(folder)
    asked = re.findall(r"Submitted 1 jobs .*\((\d) min, 1 cpu, (\d+) MB\)", messages(folder))
    assert asked == [("1", "400"), ("1", "800")]
    assert "gets no more jobs" not in messages(folder)


@pytest.mark.parametrize(
    ("resources", "node"),
    [
        ("one:gpu=1 one:gpu_model=a100", "node1"),
        ("one:gpu=1 one:gpu_model=h100", "node2"),
        ("one:gres=gpu:h100:1", "node2"),
        ("one:gpu=1 one:slurm_extra=--gpus=a100:1", "node1"),
        ("one:gpu=1 one:slurm_extra=--gpus-per-node=h100:1", "node2"),
    ],
)
def test_kinds_of_gpus(resources: str, node: str, folder: Path) -> None:
    process = trivial(folder, "--set-resources", *resources.split(), jobs=1, seconds=1)
    wait_until(lambda: list(folder.glob("started_*")) or process.poll() is not None)
    assert ask("squeue", "--noheader", "--format=%N").split() == [node], messages(folder)
    assert process.wait(timeout=60) == 0, messages(folder)


@pytest.mark.parametrize(("minutes", "partition"), [(5, "short"), (30, "cancel")])
def test_the_first_partition_that_fits(minutes: int, partition: str, folder: Path) -> None:
    table = ["short: runtime=10, mem_mb=8000", "cancel: gpu=1"]
    process = trivial(folder, "--submitit-partitions", *table, "--set-resources", f"one:runtime={minutes}", jobs=1)
    assert process.wait(timeout=90) == 0, messages(folder)
    assert re.search(rf"Submitted 1 jobs of one .*partition {partition}\)", messages(folder))


def test_what_fits_in_no_partition_is_said_at_once(folder: Path) -> None:
    process = trivial(folder, "--submitit-partitions", "short: runtime=2", jobs=1)
    assert process.wait(timeout=60) == 1
    assert "rule one: no partition of --submitit-partitions has runtime=5, mem_mb=100" in messages(folder)
