"""Waiting for canceled jobs of an earlier run, which may be writing checkpoints."""

import logging
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from snakemake_executor_plugin_submitit import cancel
from snakemake_executor_plugin_submitit.cancel import wait_until_ended
from snakemake_executor_plugin_submitit.clusters import JobState

JOBS = {"7_0": Path(), "7_1": Path()}
LEFT = {"7_0": JobState("CANCELLED", node="node1"), "7_1": JobState("COMPLETING", node="node2")}
SAID = (
    "slurm: canceled jobs of an earlier run have not ended, and may still write to the files of those that replace "
    "them: 7_1 (COMPLETING on node2). Waiting for them. An administrator frees a node that does not let go of one: "
    "`scontrol update nodename=node2 state=down reason=stuck`, then `state=resume`."
)


@pytest.mark.parametrize(
    ("states", "seconds", "said"),
    [
        (LEFT, 55, []),
        (LEFT, 300, [SAID]),
        ({"7_1": JobState("PENDING")}, 300, [SAID.partition("7_1")[0] + "7_1 (PENDING on no node). Waiting for them."]),
        (
            None,
            300,
            ["slurm: the queue cannot be read, and canceled jobs of an earlier run may still be in it; waiting"],
        ),
    ],
)
def test_jobs_that_do_not_end_are_named_once_after_a_minute(
    states: Mapping[str, JobState] | None,
    seconds: int,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = 0

    def sleep(pause: float) -> None:
        nonlocal now
        now += 10

    def look(jobs: Mapping[str, Path]) -> Mapping[str, JobState] | None:
        return states if now < seconds else {"7_1": JobState("CANCELLED")}

    monkeypatch.setattr(cancel, "time", SimpleNamespace(monotonic=lambda: now, sleep=sleep))
    cluster: Any = SimpleNamespace(name="slurm", states=look)
    wait_until_ended(cluster, JOBS, logging.getLogger("test"), 10)
    assert now >= seconds
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == len(said)
    assert all(message.startswith(wanted) for message, wanted in zip(messages, said, strict=True))
