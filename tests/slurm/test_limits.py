"""Limits of a real Slurm with accounting: what waits is made in the end, and what cannot be had is said at once."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
from snakemake_executor_plugin_submitit.reasons import Response, find_refusal

from tests.slurm.accounting import configured, modify, qos_limit, refusal, user_limit
from tests.slurm.runs import messages, trivial, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.accounting]

TWO = "--array=0-1"


@pytest.mark.parametrize(
    ("limit", "name"),
    [
        (lambda: user_limit("MaxSubmitJobs", 1), "AssocMaxSubmitJobLimit"),
        (lambda: qos_limit("MaxSubmitJobsPerUser=1"), "QOSMaxSubmitJobPerUserLimit"),
        (lambda: qos_limit("MaxSubmitJobsPerAccount=1"), "MaxSubmitJobsPerAccount"),
        (lambda: qos_limit("GrpSubmitJobs=1"), "QOSGrpSubmitJobsLimit"),
    ],
)
def test_limits_on_the_number_of_jobs_are_waited_out(limit: AbstractContextManager[None], name: str) -> None:
    with limit():  # type: ignore[operator]
        reason = find_refusal(refusal(TWO))
    assert reason is not None
    assert (reason.sign, reason.response) == (name, Response.FEWER)


def test_a_limit_of_the_account_is_waited_out() -> None:
    modify("account", "study", "set", "GrpSubmitJobs=1")
    try:
        reason = find_refusal(refusal(TWO))
    finally:
        modify("account", "study", "set", "GrpSubmitJobs=-1")
    assert reason is not None
    assert (reason.sign, reason.response) == ("AssocGrpSubmitJobsLimit", Response.FEWER)


def test_an_array_above_the_limit_is_split() -> None:
    reason = find_refusal(refusal("--array=0-6"))
    assert reason is not None
    assert reason.response is Response.SPLIT


@pytest.mark.parametrize(
    ("limit", "option", "advice"),
    [
        (None, "--partition=nope", "set slurm_partition"),
        (None, "--account=nope", "set slurm_account"),
        (None, "--qos=nope", "set qos"),
        (None, "--constraint=nope", "change constraint"),
        (None, "--gres=gpu:v100:1", "ask for what a node of the partition has"),
        (None, "--mem=9999999", "lower mem_mb"),
        (None, "--nodelist=nope", "change --exclude or --nodelist"),
        (None, "--reservation=nope", "change --reservation"),
        (None, "--licenses=nope", "change --licenses"),
        ("MaxWall=1", "--time=10", "lower runtime"),
        ("MaxTRESPerJob=cpu=1", "--ntasks=2", "lower cpus_per_task"),
        ("MaxTRESPerJob=mem=100", "--mem=500", "lower mem_mb"),
    ],
)
def test_what_waiting_cannot_mend_is_explained(limit: str | None, option: str, advice: str) -> None:
    with qos_limit(limit) if limit else nullcontext():
        reason = find_refusal(refusal(option))
    assert reason is not None
    assert reason.response is Response.STOP
    assert reason.advice.startswith(advice)


@pytest.mark.parametrize(
    ("limit", "resource", "advice"),
    [
        (None, "one:slurm_account=nope", "set slurm_account in the profile to one of yours"),
        ("MaxWall=1", "one:runtime=10", "lower runtime, or choose another qos"),
        (None, "one:mem_mb=9999999", "lower mem_mb, or choose a partition whose nodes have it"),
    ],
)
def test_what_is_refused_ends_the_run_with_one_line(
    limit: str | None, resource: str, advice: str, folder: Path
) -> None:
    with qos_limit(limit) if limit else nullcontext():
        process = trivial(folder, "--set-resources", resource)
        assert process.wait(timeout=60) == 1, messages(folder)
    lines = [line for line in messages(folder).splitlines() if "Slurm refused a job" in line]
    assert len(lines) == 1, messages(folder)
    assert f"To mend it, {advice}" in lines[0]


def test_a_study_above_a_limit_is_made_whole(folder: Path) -> None:
    """Nine jobs where three may be submitted, in arrays of at most six."""
    with user_limit("MaxSubmitJobs", 3):
        process = trivial(folder, jobs=9)
        assert process.wait(timeout=240) == 0, messages(folder)
    assert len(list(folder.glob("out/*.txt"))) == 9
    assert messages(folder).count("takes no more jobs for now") == 1
    assert "(AssocMaxSubmitJobLimit): 3 are out, 6 wait here" in messages(folder)


def test_arrays_are_split_at_once(folder: Path) -> None:
    process = trivial(folder, jobs=7)
    assert process.wait(timeout=120) == 0, messages(folder)
    assert "Submitted 3 jobs of one" in messages(folder)
    assert "takes no more jobs" not in messages(folder)


def test_a_full_controller_is_waited_out(folder: Path) -> None:
    with configured("MaxJobCount=4"):
        process = trivial(folder, jobs=6)
        wait_until(lambda: "takes no more jobs for now (temporarily unable" in messages(folder), 60)
        assert process.wait(timeout=300) == 0, messages(folder)
    assert len(list(folder.glob("out/*.txt"))) == 6
