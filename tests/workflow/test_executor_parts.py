"""The executor plugin's parts: resources, the ledger, what is said when Slurm refuses."""

import json
import os
import re
import sys
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import pytest
import submitit
from snakemake.scheduling.job_scheduler import JobRateLimiter
from snakemake.settings.types import MaxJobsPerTimespan
from snakemake_executor_plugin_submitit import ExecutorSettings
from snakemake_executor_plugin_submitit.clusters import JobState, Local, Slurm
from snakemake_executor_plugin_submitit.endings import Ending
from snakemake_executor_plugin_submitit.ledger import Entry, Ledger
from snakemake_executor_plugin_submitit.nodes import Nodes
from snakemake_executor_plugin_submitit.pace import lift_default_rate_limit
from snakemake_executor_plugin_submitit.partitions import choose_partition, parse_partitions
from snakemake_executor_plugin_submitit.resources import describe, memory_mb, submission_parameters
from snakemake_executor_plugin_submitit.results import JobFiles, make_log_folder
from snakemake_interface_common.exceptions import WorkflowError


def test_resources_become_parameters() -> None:
    parameters = submission_parameters(
        {
            "runtime": 240,
            "mem_mb": 8000,
            "gpu": 1,
            "slurm_partition": "gpu",
            "slurm_account": "group",
            "constraint": "a100",
            "qos": "long",
            "slurm_extra": "--exclude=node07 --exclusive",
            "tmpdir": "/tmp",
        },
        threads=4,
    )
    assert parameters == {
        "timeout_min": 240,
        "cpus_per_task": 4,
        "mem_gb": 7.8125,
        "gpus_per_node": 1,
        "slurm_partition": "gpu",
        "slurm_account": "group",
        "slurm_constraint": "a100",
        "slurm_qos": "long",
        "slurm_additional_parameters": {"exclude": "node07", "exclusive": True},
        "slurm_signal_delay_s": 90,
        "slurm_srun_args": ["--cpus-per-task=4"],
    }
    assert (
        describe(parameters)
        == "240 min, 4 cpu, 8000 MB, 1 gpu, partition gpu, account group, constraint a100, qos long"
    )


def test_cpus_models_and_defaults() -> None:
    parameters = submission_parameters({"cpus_per_task": 6, "gpu": 2, "gpu_model": "h100", "runtime": 1}, threads=1)
    assert (parameters["cpus_per_task"], parameters["slurm_gres"]) == (6, "gpu:h100:2")
    assert parameters["slurm_signal_delay_s"] == 12
    assert submission_parameters({}, threads=1)["timeout_min"] == 60
    assert submission_parameters({"gres": "gpu:1,nvme:1", "gpu": 1}, threads=1)["slurm_gres"] == "gpu:1,nvme:1"


@pytest.mark.parametrize(
    ("resources", "lines", "mb"),
    [
        ({"mem_mb": 4096}, ["--mem=4GB"], 4096),
        ({"mem_mb": 4096, "mem_mb_per_cpu": 500}, ["--mem-per-cpu=500MB"], 1000),
        ({"mem_mb": 4096, "slurm_extra": "--mem-per-cpu=7000"}, ["--mem-per-cpu=7000"], None),
        ({"mem_mb": 4096, "mem_mb_per_cpu": 500, "slurm_extra": "--mem=1GB"}, ["--mem=1GB"], None),
        ({"slurm_extra": "--job-name=mine"}, ["--job-name=mine"], None),
        ({"slurm_extra": "--open-mode=truncate"}, ["--open-mode=truncate"], None),
        ({"slurm_extra": "--mail-type=END --mail-user=me"}, ["--mail-type=END", "--mail-user=me"], None),
    ],
)
def test_slurm_is_told_once_what_it_takes_once(
    resources: dict[str, Any], lines: list[str], mb: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if there were a cluster.
    monkeypatch.setattr(submitit.SlurmExecutor, "affinity", classmethod(lambda cls: 2))
    parameters = submission_parameters(resources, threads=2)
    executor: Any = submitit.AutoExecutor(tmp_path, "slurm")
    executor.update_parameters(name="ours", **parameters)
    script = executor._executor._make_submission_file_text("command", "uid")
    options = [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH ")]
    kinds = {line.partition("=")[0] for line in lines} | {"--mem", "--mem-per-cpu"}
    assert [option for option in options if option.partition("=")[0] in kinds] == lines
    assert memory_mb(parameters) == mb


@pytest.mark.parametrize(
    ("resources", "culprit"),
    [
        ({"gpu": "one"}, "gpu"),
        ({"runtime": -5}, "runtime"),
        ({"slurm_extra": "-p main"}, "slurm_extra"),
        ({"slurm_extra": "--time=2"}, "--time follows from the resource runtime"),
        ({"slurm_extra": "--signal=USR1@60"}, "--signal follows from the resource runtime"),
        ({"slurm_extra": "--clusters=other"}, "set SLURM_CLUSTERS where Snakemake runs"),
        ({"slurm_extra": "--array=0-3"}, "ready jobs become arrays by themselves"),
        ({"slurm_extra": "--wait"}, "it would hold up all other jobs"),
        ({"slurm_extra": "--cpus-per-task=8"}, "--cpus-per-task follows from the resource cpus_per_task"),
    ],
)
def test_resources_that_make_no_sense_are_named(resources: dict[str, Any], culprit: str) -> None:
    with pytest.raises(WorkflowError, match=culprit):
        submission_parameters(resources, threads=1)


def test_the_ledger_outlives_the_process_and_a_half_written_line(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    entries = [Entry(key, job_id, "/logs", "slurm", [f"{key}.nc"]) for key, job_id in (("a", "7_0"), ("b", "7_1"))]
    ledger = Ledger(path)
    ledger.add(entries)
    ledger.remove(["a"])
    with path.open("a") as file:
        file.write('{"key": "c", "job_')
    again = Ledger(path)
    assert again.find("a") is None
    assert again.find("b") == entries[1]
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == ["b"]
    again.remove_file_if_empty()
    assert path.exists()
    again.remove(["b"])
    again.remove_file_if_empty()
    assert not path.exists()


def test_a_log_folder_is_named_by_settings_that_there_are(tmp_path: Path) -> None:
    template = f"{tmp_path}/{{config[name]}}"
    assert make_log_folder(template, {"name": "mine"}).parent == tmp_path / "mine"
    with pytest.raises(WorkflowError, match=r"^--submitit-logdir .*/{config\[name\]}: no such setting: 'name'$"):
        make_log_folder(template, {})


def test_results_and_logs_of_one_job_of_an_array(tmp_path: Path) -> None:
    files = JobFiles(tmp_path, "12_1")
    assert files.exit_code() is None
    for name in ("12_1_0_log.err", "12_1_submitted.pkl", "12_10_0_log.err"):
        (tmp_path / name).write_text("\n".join(f"line {number}" for number in range(30)))
    (tmp_path / "12_1_0_result.pkl").write_bytes(cloudpickle.dumps(("success", 3)))
    assert (files.exit_code(), files.failure()) == (3, "failed with exit code 3")
    assert files.tail().split() == [word for number in range(10, 30) for word in ("line", str(number))]
    (tmp_path / "12_1_0_result.pkl").write_bytes(cloudpickle.dumps(("error", "Traceback\nValueError: too late")))
    assert (files.exit_code(), files.failure()) == (-1, "failed: ValueError: too late")
    files.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["12_10_0_log.err"]
    assert "did the node see this folder" in JobFiles(tmp_path, "99").tail()


def test_one_squeue_call_tells_all_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squeue = tmp_path / "squeue"
    squeue.write_text(
        f"#!/bin/sh\necho call >> {tmp_path}/calls\nprintf '7_0|RUNNING|None\\n7_1|PENDING|Priority\\n9|FAILED|x'\n"
    )
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    states = Slurm().states(dict.fromkeys(["7_0", "7_1", "7_2"], tmp_path))
    assert states == {"7_0": JobState("RUNNING", "None"), "7_1": JobState("PENDING", "Priority")}
    assert all(state.alive for state in states.values())
    assert not JobState("OUT_OF_MEMORY").alive
    assert (tmp_path / "calls").read_text() == "call\n"
    squeue.write_text("#!/bin/sh\nexit 1\n")
    assert Slurm().states({"7_0": tmp_path}) is None


def test_another_process_with_the_number_of_a_finished_job_is_not_the_job(tmp_path: Path) -> None:
    assert Local().states({str(os.getpid()): tmp_path}) == {}


def test_a_node_is_excluded_after_failures_in_a_row() -> None:
    said: list[str] = []
    nodes = Nodes(2, said.append)

    def fails(node: str, key: str) -> bool:
        """Return whether the job is to blame."""
        return nodes.judge(node, key, Ending.FAILED, "FAILED") is Ending.FAILED

    assert fails("node1", "a")
    assert nodes.judge("node1", "z", Ending.SUCCEEDED, "COMPLETED") is Ending.SUCCEEDED
    assert fails("node1", "b")
    assert fails("node2", "b"), "the job has failed elsewhere"
    assert fails("", "c")
    assert nodes.excluded == []
    assert not fails("node1", "d")
    assert nodes.excluded == ["node1"]
    assert len(said) == 1
    assert not fails("node1", "b"), "its retry was on its way before the node was known"
    assert fails("node1", "b"), "once a job"
    assert not fails("node1", "e")
    nodes.forgive()
    assert nodes.excluded == []
    assert fails("node1", "f")
    assert len(said) == 1


@pytest.mark.parametrize("node", ["node1", ""])
def test_what_could_not_begin_is_interrupted_once(node: str) -> None:
    nodes = Nodes(3, lambda message: None)
    endings = [nodes.judge(node, "a", Ending.UNSTARTED, "FAILED") for _ in range(2)]
    assert endings == [Ending.INTERRUPTED, Ending.FAILED]
    assert nodes.judge(node, "b", Ending.UNSTARTED, "FAILED") is Ending.INTERRUPTED
    assert nodes.excluded == ([node] if node else [])


def test_nodes_that_are_lost_are_excluded_and_none_where_that_is_switched_off() -> None:
    nodes = Nodes(1, lambda message: None)
    assert nodes.judge("node1", "a", Ending.OUT_OF_MEMORY, "OUT_OF_MEMORY") is Ending.OUT_OF_MEMORY
    assert nodes.excluded == []
    assert nodes.judge("node1", "a", Ending.INTERRUPTED, "NODE_FAIL") is Ending.INTERRUPTED
    assert nodes.excluded == ["node1"]
    off = Nodes(0, lambda message: None)
    assert all(off.judge("node1", key, Ending.FAILED, "FAILED") is Ending.FAILED for key in "abcdef")


@pytest.mark.parametrize(
    ("resources", "name"),
    [
        ({"runtime": 10, "mem_mb": 100}, "short"),
        ({"runtime": 11, "mem_mb": 100}, "gpu"),
        ({"runtime": 10, "mem_mb": 9000}, "gpu"),
        ({"runtime": 10, "gpu": 1, "gpu_model": "h100"}, "gpu"),
        ({"runtime": 10, "gpu": 1, "gpu_model": "a100"}, "rest"),
        ({"runtime": 10, "gpu": 1, "slurm_partition": "mine"}, None),
        ({"runtime": 10, "gpu": 1, "slurm_extra": "--partition=mine"}, None),
        ({"runtime": 10, "mem_mb": 100, "gpu_model": "h100"}, "short"),
        ({"runtime": 10, "mem_mb_per_cpu": 4000}, "short"),
        ({"runtime": 10, "mem_mb_per_cpu": 4001}, "gpu"),
        ({"runtime": 10, "gres": "nvme:2"}, "short"),
        ({"runtime": 10, "gres": "nvme:2,gpu:h100:2"}, "gpu"),
        ({"runtime": 10, "gres": "gpu:a100"}, "rest"),
        ({"runtime": 10, "gres": "gpu"}, "gpu"),
        ({"runtime": 10, "slurm_extra": "--gpus=4"}, "gpu"),
        ({"runtime": 10, "slurm_extra": "--gpus-per-task=a100:1"}, "rest"),
        ({"runtime": 10, "slurm_extra": "--tres-per-task=cpu=2,gres/gpu:h200=3"}, "gpu"),
    ],
)
def test_the_first_partition_that_fits(resources: dict[str, Any], name: str | None) -> None:
    rows = ["short: runtime=10, mem_mb=8000", "gpu: gpu=4, gpu_model=h100|h200", "rest: gpu=1, runtime=20"]
    parameters = submission_parameters(resources, threads=2)
    assert choose_partition(parse_partitions(rows), parameters) == name
    assert choose_partition([], parameters) is None
    if name:
        tiny = parse_partitions(["tiny: runtime=1"])
        with pytest.raises(WorkflowError, match="no partition of --submitit-partitions has runtime="):
            choose_partition(tiny, parameters)


@pytest.mark.parametrize("row", ["gpu: hours=3", ": runtime=1", "gpu: runtime=1h"])
def test_rows_that_make_no_sense_are_named(row: str) -> None:
    with pytest.raises(WorkflowError, match="submitit-partitions"):
        parse_partitions([row])


@pytest.mark.parametrize("option", ["--gpus=a100:1", "--gpus-per-task=1", "--gres=gpu:1"])
def test_gpus_in_slurms_own_words_stand_alone(option: str) -> None:
    parameters = submission_parameters({"gpu": 1, "gpu_model": "h100", "slurm_extra": option}, threads=1)
    assert not parameters.keys() & {"gpus_per_node", "slurm_gres"}


@pytest.mark.parametrize(("limit", "stays"), [("100/1s", False), ("20/1s", True)])
def test_only_snakemakes_default_rate_limit_is_lifted(limit: str, stays: bool) -> None:
    limiter = JobRateLimiter(MaxJobsPerTimespan.parse_choice(limit))
    scheduler = SimpleNamespace(job_rate_limiter=limiter, resources={"_job_count": 5})
    lift_default_rate_limit(scheduler)
    assert (scheduler.job_rate_limiter is limiter) == stays
    assert (scheduler.resources["_job_count"] == sys.maxsize) != stays


def test_the_readme_lists_every_setting_and_its_default() -> None:
    page = (Path(__file__).parents[2] / "workflow" / "plugins" / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `--submitit-([a-z-]+)` \| `?([^`|]+?)`? \|", page, re.MULTILINE))
    defaults = {field.name: getattr(ExecutorSettings(), field.name) or "none" for field in fields(ExecutorSettings)}
    expected = {name.replace("_", "-"): str(default) for name, default in defaults.items()}
    assert rows == {**expected, "poll-seconds": "10 on Slurm, else 1"}
