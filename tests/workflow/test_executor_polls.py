"""What the executor says and does from poll to poll, with stand-ins for Slurm's commands and for Snakemake."""

import asyncio
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from snakemake_executor_plugin_submitit import ExecutorSettings, cancel
from snakemake_executor_plugin_submitit.attempts import Attempts
from snakemake_executor_plugin_submitit.clusters import Slurm
from snakemake_executor_plugin_submitit.dispatch import Task
from snakemake_executor_plugin_submitit.endings import Watch
from snakemake_executor_plugin_submitit.executor import Executor
from snakemake_executor_plugin_submitit.ledger import Entry, Ledger
from snakemake_executor_plugin_submitit.nodes import Nodes
from snakemake_executor_plugin_submitit.usage import Efficiency
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo


class Polled(Executor):
    """An executor that has one job on the cluster, number 7.

    Attributes:
        again: What it has handed on to be submitted again.
        failed: The message of each job that it has reported as failed.
        gave_up: What the workflow was ended with.
    """

    def __init__(self, folder: Path) -> None:
        self.again: list[Task] = []
        self.failed: list[str] = []
        self.gave_up: list[str] = []
        job = SimpleNamespace(name="one", resources={})
        self.workflow: Any = SimpleNamespace(
            executor_settings=ExecutorSettings(),
            scheduler=SimpleNamespace(executor_error_callback=lambda error: self.gave_up.append(str(error))),
        )
        self.logger = logging.getLogger("polled")
        self._poll_seconds = 0
        self._warned, self._canceled = set(), False
        self._cluster = Slurm()
        self._nodes, self._attempts = Nodes(3, self._warn_once), Attempts()
        self._watch = Watch(self._cluster.ended, 0, self._warn_once)
        self._ledger, self._efficiency = Ledger(folder / "ledger.jsonl"), Efficiency(folder / "efficiency.tsv")
        self._dispatcher: Any = SimpleNamespace(
            put=self.again.extend, stop=lambda: None, join=lambda: None, jobs_have_ended=lambda: None
        )
        self._submission: Any = SimpleNamespace(sbatch=SimpleNamespace(stop=lambda: None, take_back=lambda: True))
        self.entry = Entry("key", "7", str(folder), "slurm", ["out.txt"])
        self.info = SubmittedJobInfo(job, external_jobid="7")
        self._earlier = [self.entry]
        self.submit(Task(job, "key", "true", {"timeout_min": 1, "cpus_per_task": 1}))

    def submit(self, task: Task) -> None:
        """Put the job on the cluster."""
        self._entries, self._tasks = {"7": self.entry}, {"7": task}
        self._ledger.add([self.entry])

    def report_job_error(self, job_info: SubmittedJobInfo, msg: Any = None, **kwargs: Any) -> None:
        self.failed.append(msg)

    def poll(self) -> int:
        """Ask once; return how many jobs still run."""

        async def left() -> int:
            return len([info async for info in self.check_active_jobs([self.info])])

        return asyncio.run(left())

    def poll_until_it_has_ended(self) -> None:
        assert any(self.poll() == 0 for _ in range(10))


@pytest.fixture
def executor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Polled:
    caplog.set_level(logging.INFO, "polled")
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    for name in ("scancel", "scontrol"):
        stand_in(tmp_path, name, "exit 1")
    return Polled(tmp_path)


def stand_in(folder: Path, name: str, text: str) -> None:
    program = folder / "bin" / name
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)


def said(caplog: pytest.LogCaptureFixture) -> Sequence[str]:
    return [record.getMessage() for record in caplog.records]


def test_a_job_that_waits_for_somebody_to_act_is_told_once(
    executor: Polled, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stand_in(tmp_path, "squeue", "echo '7|PENDING|PartitionTimeLimit'")
    assert (executor.poll(), executor.poll()) == (1, 1)
    assert said(caplog) == [
        "slurm: jobs wait that cannot start until somebody acts: PartitionTimeLimit. To mend it, lower runtime, or "
        "choose a slurm_partition that allows it."
    ]
    stand_in(tmp_path, "squeue", "echo '7|PENDING|Priority'")
    assert executor.poll() == 1
    assert len(said(caplog)) == 1


def test_a_job_whose_node_is_lost_is_submitted_again_as_often_as_is_allowed(
    executor: Polled, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stand_in(tmp_path, "squeue", "echo '7|NODE_FAIL|None||node1'")
    executor.workflow.executor_settings.requeue_limit = 2
    for times in (1, 2):
        executor.poll_until_it_has_ended()
        assert [task.restarts for task in executor.again] == [times]
        assert f"It is submitted again ({times} of at most 2 times)." in said(caplog)[-1]
        assert executor.failed == []
        executor.submit(executor.again.pop())
    executor.poll_until_it_has_ended()
    assert executor.again == []
    assert "slurm job 7 ended as NODE_FAIL" in executor.failed[0]


def test_earlier_jobs_that_cannot_be_canceled_end_the_workflow(
    executor: Polled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their results might come after those of the jobs that replace them."""
    monkeypatch.setattr(cancel, "_PATIENCE_SECONDS", 0)
    stand_in(tmp_path, "squeue", "exit 1")
    assert not executor._end_outdated({"out.txt"}, ["another key"])
    assert executor.gave_up == ["jobs of an earlier run could not be canceled: 7"]


def test_a_queue_that_cannot_be_read_is_waited_for_before_earlier_jobs_are_taken_up(
    executor: Polled, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # It answers the third time.
    stand_in(tmp_path, "squeue", f"echo >> {tmp_path}/calls; [ $(wc -l < {tmp_path}/calls) = 3 ] && echo '7|RUNNING'")
    assert executor._earlier_jobs(["key"]) == {"key": executor.entry}
    assert said(caplog) == [
        "slurm: the queue cannot be read, and jobs of an earlier run may still be in it; waiting for it."
    ]
