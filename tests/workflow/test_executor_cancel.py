"""Canceling jobs where Slurm is away, and waiting for those of an earlier run, which may be writing checkpoints."""

import logging
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from snakemake_executor_plugin_submitit import cancel
from snakemake_executor_plugin_submitit.cancel import cancel_until_done, wait_until_ended
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


@pytest.mark.parametrize("comes_back", [True, False])
@pytest.mark.parametrize("left", [{}, {"12_0", "12_1", "7"}], ids=["none", "some"])
@pytest.mark.parametrize("settled", [True, False])
def test_what_may_still_run_is_said_to(
    settled: bool,
    left: set[str],
    comes_back: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tries = 0

    def sleep(pause: float) -> None:
        nonlocal tries
        tries += 1
        if not comes_back:
            raise KeyboardInterrupt

    monkeypatch.setattr(cancel, "time", SimpleNamespace(monotonic=lambda: 0, sleep=sleep))
    cluster: Any = SimpleNamespace(name="slurm", cancel=lambda jobs: [] if tries and comes_back else sorted(left))
    with caplog.at_level(logging.INFO):
        found = cancel_until_done(
            cluster,
            dict.fromkeys(left, Path()),
            lambda: settled or bool(tries and comes_back),
            logging.getLogger("test"),
            1,
        )
    said = " ".join(record.getMessage() for record in caplog.records)
    ended = comes_back or (settled and not left)
    assert found == (set() if comes_back else set(left))
    assert ("3 jobs could not be canceled yet (7 12)" in said) == bool(left)
    assert ("nobody knows whether it took what was submitted last" in said) == (not settled)
    assert ("answers again: everything is canceled" in said) == (comes_back and bool(left or not settled))
    assert ("3 jobs may still run. To end them, `scancel 7 12`" in said) == (bool(left) and not ended)
    assert ("what was submitted last may run, and no later run knows of it" in said) == (not settled and not ended)
