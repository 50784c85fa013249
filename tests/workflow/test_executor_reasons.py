"""What Slurm says when it takes no job: each reason one by one, and what follows from it."""

import os
from pathlib import Path

import pytest
from snakemake_executor_plugin_submitit.errors import explain_file_error, explain_refusal
from snakemake_executor_plugin_submitit.reasons import REFUSALS, WAITS, Response, find_refusal

POLICY = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
FEWER, SPLIT, LATER, STOP = Response.FEWER, Response.SPLIT, Response.LATER, Response.STOP

# What sbatch prints after "sbatch: error: ", what follows, and a word of the advice.
CASES = [
    (f"AssocMaxSubmitJobLimit\n{POLICY}", FEWER, ""),
    (f"AssocGrpSubmitJobsLimit\n{POLICY}", FEWER, ""),
    (f"QOSMaxSubmitJobPerUserLimit\n{POLICY}", FEWER, ""),
    (f"QOSMaxSubmitJobPerAccountLimit\n{POLICY}", FEWER, ""),
    (f"MaxSubmitJobsPerAccount\n{POLICY}", FEWER, ""),
    (f"QOSGrpSubmitJobsLimit\n{POLICY}", FEWER, ""),
    ("Slurm temporarily unable to accept job, sleeping and retrying.", FEWER, ""),
    ("Slurm job queue full, sleeping and retrying.", FEWER, ""),
    ("Batch job submission failed: Unable to create job record, try again", FEWER, ""),
    ("Batch job submission failed: Resource temporarily unavailable", FEWER, ""),
    ("Batch job submission failed: Invalid job array specification", SPLIT, ""),
    ("Batch job submission failed: Unable to contact slurm controller (connect failure)", LATER, ""),
    ("Batch job submission failed: Socket timed out on send/recv operation", LATER, ""),
    ("sbatch gave no answer for 60 s", LATER, ""),
    ("Batch job submission failed: Zero Bytes were transmitted or received", LATER, ""),
    ("Batch job submission failed: Connection refused", LATER, ""),
    ("Batch job submission failed: Connection reset by peer", LATER, ""),
    ("Batch job submission failed: Connection timed out", LATER, ""),
    ("Batch job submission failed: Slurm backup controller in standby mode", LATER, ""),
    ("resolve_ctls_from_dns_srv: res_nsearch error\nCould not establish a configuration source", LATER, ""),
    ("Batch job submission failed: Unable to connect to database", LATER, ""),
    ("Batch job submission failed: Requested nodes are busy", LATER, ""),
    ("Batch job submission failed: Required partition not available (inactive or drain)", LATER, ""),
    (f"QOSMaxWallDurationPerJobLimit\n{POLICY}", STOP, "lower runtime"),
    (f"QOSMaxCpuPerJobLimit\n{POLICY}", STOP, "lower cpus_per_task"),
    (f"QOSGrpCpuLimit\n{POLICY}", STOP, "lower cpus_per_task"),
    (f"QOSMinCpuNotSatisfied\n{POLICY}", STOP, "raise cpus_per_task"),
    (f"QOSMaxMemoryPerJob\n{POLICY}", STOP, "lower mem_mb"),
    (f"QOSGrpMemLimit\n{POLICY}", STOP, "lower mem_mb"),
    (f"QOSMinMemory\n{POLICY}", STOP, "raise mem_mb"),
    (f"QOSMaxGRESPerJob\n{POLICY}", STOP, "lower gpu"),
    (f"AssocGrpGRES\n{POLICY}", STOP, "lower gpu"),
    (f"QOSMinGRES\n{POLICY}", STOP, "raise gpu"),
    (f"QOSMaxNodePerJobLimit\n{POLICY}", STOP, "fewer nodes"),
    (f"AssocGrpNodeLimit\n{POLICY}", STOP, "fewer nodes"),
    (f"AssocGrpCPUMinutesLimit\n{POLICY}", STOP, "budget is used up"),
    (f"AssocGrpGRESMinutes\n{POLICY}", STOP, "budget is used up"),
    (f"AssocGrpBillingMinutes\n{POLICY}", STOP, "budget is used up"),
    (f"AssocGrpMemMinutes\n{POLICY}", STOP, "budget is used up"),
    (f"Batch job submission failed: {POLICY}", STOP, "ask for less"),
    ("invalid partition specified: nope", STOP, "slurm_partition"),
    ("invalid partition specified: nope\nBatch job submission failed: Invalid partition name specified", STOP, "sinfo"),
    ("Batch job submission failed: No partition specified or system default partition", STOP, "no default"),
    ("Batch job submission failed: User's group not permitted to use this partition", STOP, "open to you"),
    ("Batch job submission failed: Invalid account or account/partition combination specified", STOP, "slurm_account"),
    ("Batch job submission failed: Invalid qos specification", STOP, "set qos"),
    ("Batch job submission failed: Invalid wckey specification", STOP, "--wckey"),
    ("Batch job submission failed: Invalid feature specification", STOP, "change constraint"),
    ("Invalid generic resource (gres) specification", STOP, "gpu_model"),
    ("Batch job submission failed: Requested reservation is invalid", STOP, "--reservation"),
    ("Batch job submission failed: Invalid license specification", STOP, "--licenses"),
    ("Batch job submission failed: Invalid node name specified", STOP, "--nodelist"),
    (
        "Memory specification can not be satisfied\nBatch job submission failed: Requested node configuration is not "
        "available",
        STOP,
        "lower mem_mb",
    ),
    ("Memory specification can not be satisfied", STOP, "lower mem_mb"),
    (
        "fatal: --mem, --mem-per-cpu, and --mem-per-gpu are mutually exclusive.",
        STOP,
        "give one of the options that it names",
    ),
    ("Batch job submission failed: More processors requested than permitted", STOP, "lower cpus_per_task"),
    (
        "Batch job submission failed: Requested node configuration is not available",
        STOP,
        "ask for what a node of the partition has",
    ),
    ("Batch job submission failed: Requested nodes not in this partition", STOP, "change slurm_partition"),
    ("Batch job submission failed: Node count specification invalid", STOP, "--nodes"),
    ("Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)", STOP, "runtime"),
    ('Munge encode failed: Failed to access "/run/munge/munge.socket.2": No such file or directory', STOP, "munged"),
    ("Batch job submission failed: Access/permission denied", STOP, "right to submit"),
    ("sbatch: unrecognized option '--nope'", STOP, "slurm_extra"),
]


@pytest.mark.parametrize(("said", "response", "advice"), CASES)
def test_each_reason_has_its_response_and_its_advice(said: str, response: Response, advice: str) -> None:
    printed = "\n".join(f"sbatch: error: {line}" for line in said.splitlines())
    reason = find_refusal(printed)
    assert reason is not None
    assert reason.response is response
    text = explain_refusal(printed, "30 min, 1 cpu")
    assert advice in text
    assert "30 min, 1 cpu" in text
    assert text.count("To mend it") == (response is STOP)
    assert "\n" not in text


def test_every_row_of_the_table_is_tested() -> None:
    assert {find_refusal(said) for said, _, _ in CASES} == set(REFUSALS)


def test_a_budget_that_is_used_up_is_told_and_one_that_running_jobs_hold_is_not() -> None:
    """Slurm holds jobs for either, and the latter passes by itself."""
    for owner, cure in (("Assoc", "slurm_account"), ("QOS", "qos")):
        for what in ("CPUMinutesLimit", "MemMinutes", "GRESMinutes", "BillingMinutes"):
            assert cure in WAITS[f"{owner}Grp{what}"]
            assert f"{owner}Grp{what.replace('Minutes', 'RunMinutes')}" not in WAITS


def test_a_reason_nobody_knows_is_passed_on() -> None:
    assert find_refusal("sbatch: error: The moon is not full") is None
    assert explain_refusal("sbatch: error: The moon is not full", "1 min") == (
        "Slurm refused a job (1 min): The moon is not full"
    )


@pytest.mark.parametrize(
    ("number", "advice"),
    [(28, "make room on that disk"), (122, "your quota"), (30, "mounted anew"), (13, "may write to")],
)
def test_a_file_that_cannot_be_written_is_not_slurms_doing(number: int, advice: str, tmp_path: Path) -> None:
    text = explain_file_error(OSError(number, os.strerror(number), str(tmp_path / "x.pkl")), tmp_path)
    assert "Slurm refused" not in text
    assert str(tmp_path / "x.pkl") in text
    assert os.strerror(number) in text
    assert advice in text
    assert "\n" not in text
