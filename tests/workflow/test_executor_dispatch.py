"""Jobs on their way to the cluster: fewer at a time, smaller arrays, pauses, and what ends the workflow."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from snakemake_executor_plugin_submitit.dispatch import Dispatcher, Task
from submitit.core.utils import FailedSubmissionError

SHAPE = {"timeout_min": 1, "cpus_per_task": 1}


class Cluster:
    """Takes jobs as a cluster with limits does."""

    def __init__(self, places: int = 10**6, array_size: int = 10**6) -> None:
        self.places, self.array_size = places, array_size
        self.away = ""
        self.taken: list[list[str]] = []
        self.out = 0
        self.calls = 0
        self.lines: list[str] = []

    def submit(self, tasks: Sequence[Task]) -> None:
        self.calls += 1
        if self.away:
            raise FailedSubmissionError(f"sbatch: error: {self.away}")
        if len(tasks) > self.array_size:
            raise FailedSubmissionError("sbatch: error: Batch job submission failed: Invalid job array specification")
        if self.out + len(tasks) > self.places:
            raise FailedSubmissionError("sbatch: error: AssocMaxSubmitJobLimit")
        self.out += len(tasks)
        self.taken.append([task.key for task in tasks])

    @property
    def keys(self) -> list[str]:
        return [key for array in self.taken for key in array]


@pytest.fixture
def dispatch(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[Cluster], Dispatcher]]:
    dispatchers: list[Dispatcher] = []
    caplog.set_level(logging.INFO)

    def make(cluster: Cluster) -> Dispatcher:
        dispatcher = Dispatcher(
            name="slurm",
            submit=cluster.submit,
            settle=lambda: True,
            give_up=cluster.lines.append,
            out=lambda: cluster.out,
            logger=logging.getLogger("dispatch"),
            pause_seconds=0.02,
        )
        dispatchers.append(dispatcher)
        return dispatcher

    yield make
    for dispatcher in dispatchers:
        dispatcher.stop()
        dispatcher.join()


def tasks(number: int, parameters: dict[str, Any] = SHAPE) -> list[Task]:
    return [Task(SimpleNamespace(name="one"), f"{parameters} {i}", "true", parameters) for i in range(number)]


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_what_asks_for_the_same_is_one_array(dispatch: Callable[[Cluster], Dispatcher]) -> None:
    cluster = Cluster()
    dispatch(cluster).put([*tasks(500), *tasks(2, {**SHAPE, "gpus_per_node": 1})])
    wait_until(lambda: len(cluster.keys) == 502)
    assert [len(array) for array in cluster.taken] == [500, 2]


def test_what_comes_one_by_one_is_one_array(dispatch: Callable[[Cluster], Dispatcher]) -> None:
    """So Snakemake hands over what becomes ready as others end."""
    cluster = Cluster()
    dispatcher = dispatch(cluster)
    for task in tasks(20):
        dispatcher.put([task])
    wait_until(lambda: len(cluster.keys) == 20)
    assert len(cluster.taken) == 1


def test_too_large_an_array_is_split_without_a_pause(
    dispatch: Callable[[Cluster], Dispatcher], caplog: pytest.LogCaptureFixture
) -> None:
    cluster = Cluster(array_size=6)
    dispatch(cluster).put(tasks(60))
    wait_until(lambda: len(cluster.keys) == 60)
    assert cluster.keys == [task.key for task in tasks(60)]
    assert caplog.records == []


def test_jobs_above_a_limit_wait_for_places_and_say_so_once(
    dispatch: Callable[[Cluster], Dispatcher], caplog: pytest.LogCaptureFixture
) -> None:
    cluster = Cluster(places=8)
    dispatcher = dispatch(cluster)
    dispatcher.put(tasks(60))
    wait_until(lambda: caplog.records)
    assert cluster.out == 8

    def some_end() -> bool:
        cluster.out = max(0, cluster.out - 3)
        dispatcher.jobs_have_ended()
        return len(cluster.keys) == 60

    wait_until(some_end)
    assert sorted(cluster.keys) == sorted(task.key for task in tasks(60))
    assert [record.getMessage() for record in caplog.records] == [
        "slurm takes no more jobs for now (AssocMaxSubmitJobLimit): 8 are out, 52 wait here and are submitted as "
        "soon as it does."
    ]


def test_pauses_grow_while_slurm_is_away(dispatch: Callable[[Cluster], Dispatcher]) -> None:
    cluster = Cluster()
    cluster.away = "Batch job submission failed: Unable to contact slurm controller (connect failure)"
    dispatch(cluster).put(tasks(5))
    time.sleep(1)
    # Pauses of 0.02 s that do not grow would have been fifty.
    assert 3 <= cluster.calls <= 8
    cluster.away = ""
    wait_until(lambda: len(cluster.keys) == 5)
    assert cluster.lines == []


def test_one_group_that_must_wait_keeps_no_other(dispatch: Callable[[Cluster], Dispatcher]) -> None:
    cluster = Cluster()
    submit = cluster.submit

    def choosy(tasks: Sequence[Task]) -> None:
        if "gpus_per_node" in tasks[0].parameters:
            raise FailedSubmissionError("sbatch: error: QOSMaxSubmitJobPerUserLimit")
        submit(tasks)

    cluster.submit = choosy  # type: ignore[method-assign]
    dispatch(cluster).put([*tasks(3, {**SHAPE, "gpus_per_node": 1}), *tasks(4)])
    wait_until(lambda: len(cluster.keys) == 4)


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("invalid partition specified: nope", "slurm_partition"),
        ("The moon is not full", "Slurm refused a job (1 min, 1 cpu): The moon is not full"),
    ],
)
def test_what_waiting_does_not_mend_is_said_at_once(
    said: str, line: str, dispatch: Callable[[Cluster], Dispatcher]
) -> None:
    cluster = Cluster()
    cluster.away = said
    dispatch(cluster).put(tasks(2))
    wait_until(lambda: cluster.lines)
    assert line in cluster.lines[0]


def test_after_a_stop_nothing_is_submitted(dispatch: Callable[[Cluster], Dispatcher]) -> None:
    cluster, entered, leave = Cluster(), threading.Event(), threading.Event()
    submit = cluster.submit

    def slow(tasks: Sequence[Task]) -> None:
        entered.set()
        leave.wait(10)
        submit(tasks)

    cluster.submit, cluster.array_size = slow, 1  # type: ignore[method-assign]
    dispatcher = dispatch(cluster)
    dispatcher.put([*tasks(1), *tasks(1, {**SHAPE, "gpus_per_node": 1})])
    entered.wait(10)
    dispatcher.stop()
    leave.set()
    dispatcher.join()
    assert len(cluster.keys) == 1
