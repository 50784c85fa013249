"""From Snakemake's resources to submitit's parameters."""

import shlex
from collections.abc import Mapping
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError

_DEFAULT_RUNTIME_MINUTES = 60
# Slurm looks at time limits twice a minute and may signal a minute early.
_SIGNAL_SECONDS, _SIGNAL_FRACTION = 90, 0.2


def signal_seconds(minutes: int | float) -> int:
    """Return how long before its time limit a job is asked to write its checkpoint."""
    return min(_SIGNAL_SECONDS, int(60 * minutes * _SIGNAL_FRACTION))


# Where slurm_extra says in one of Slurm's many ways which GPUs, or how much memory, are wanted, nothing else says so.
GPU_OPTIONS = {"gres", "gpus", "gpus_per_node", "gpus_per_task", "gpus_per_socket", "tres_per_task"}
_MEMORY_OPTIONS = {"mem", "mem_per_cpu", "mem_per_gpu"}
# The job on the node counts on its limit and the warning before it, and on its cores, and polls on the answer to a
# submission.
_REFUSED = {
    "cpus-per-task": "follows from the resource cpus_per_task: set that instead",
    "time": "follows from the resource runtime: set that instead",
    "signal": "follows from the resource runtime: set that instead",
    "clusters": "leads where nobody looks for the job: set SLURM_CLUSTERS where Snakemake runs instead",
    "array": "cannot be had: ready jobs become arrays by themselves",
    "wait": "cannot be had: it would hold up all other jobs",
}
_TEXT = {
    "slurm_partition": "slurm_partition",
    "slurm_account": "slurm_account",
    "constraint": "slurm_constraint",
    "qos": "slurm_qos",
}


def submission_parameters(resources: Mapping[str, Any], threads: int) -> dict[str, Any]:
    """Return parameters of :meth:`submitit.AutoExecutor.update_parameters` for one job.

    Understood are ``runtime`` (minutes), ``mem_mb``, ``mem_mb_per_cpu``, ``cpus_per_task`` (else threads), ``gpu``,
    ``gpu_model``, ``gres``, ``slurm_partition``, ``slurm_account``, ``constraint``, ``qos`` and ``slurm_extra``:
    further options as one would give them to ``sbatch``, which come before all others.

    Raises:
        WorkflowError: A value makes no sense; the message names it.
    """
    minutes = _whole(resources, "runtime") or _DEFAULT_RUNTIME_MINUTES
    cpus = _whole(resources, "cpus_per_task") or threads
    parameters: dict[str, Any] = {
        "timeout_min": minutes,
        "cpus_per_task": cpus,
        "slurm_signal_delay_s": signal_seconds(minutes),
        # Since Slurm 22.05 job steps do not take this from the job.
        "slurm_srun_args": [f"--cpus-per-task={cpus}"],
    }
    for name, parameter in _TEXT.items():
        if resources.get(name) not in (None, ""):
            parameters[parameter] = str(resources[name])
    extra = _options(str(resources.get("slurm_extra") or ""))
    if not extra.keys() & GPU_OPTIONS:
        parameters.update(_gpu_parameters(resources))
    if not extra.keys() & _MEMORY_OPTIONS:
        parameters.update(_memory_parameters(resources))
    if extra:
        parameters["slurm_additional_parameters"] = extra
    return parameters


def _memory_parameters(resources: Mapping[str, Any]) -> dict[str, Any]:
    """Return the memory of a core where that is given, else of a node: Slurm takes but one of them."""
    if memory := _whole(resources, "mem_mb_per_cpu"):
        return {"slurm_mem_per_cpu": f"{memory}MB"}
    memory = _whole(resources, "mem_mb")
    return {"mem_gb": memory / 1024} if memory else {}


def memory_mb(parameters: Mapping[str, Any]) -> int | None:
    """Return the memory that a job's parameters ask for, if resources say it."""
    if "slurm_mem_per_cpu" in parameters:
        of_core: str = parameters["slurm_mem_per_cpu"]
        return int(of_core.removesuffix("MB")) * int(parameters["cpus_per_task"])
    return round(parameters["mem_gb"] * 1024) if "mem_gb" in parameters else None


def _gpu_parameters(resources: Mapping[str, Any]) -> dict[str, Any]:
    count, model = _whole(resources, "gpu"), resources.get("gpu_model")
    if resources.get("gres"):
        return {"slurm_gres": str(resources["gres"])}
    if not count:
        return {}
    return {"slurm_gres": f"gpu:{model}:{count}"} if model else {"gpus_per_node": count}


def _whole(resources: Mapping[str, Any], name: str) -> int:
    value = resources.get(name)
    if value is None:
        return 0
    if not isinstance(value, int) or value < 0:
        raise WorkflowError(f"resource {name} must be a whole number, got {value!r}")
    return value


def _options(text: str) -> dict[str, Any]:
    """Return ``--name=value`` and ``--flag`` options by name."""
    options: dict[str, Any] = {}
    for word in shlex.split(text):
        name, separator, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not name:
            raise WorkflowError(f"resource slurm_extra: expected --option or --option=value, got {word!r}")
        if name in _REFUSED:
            raise WorkflowError(f"resource slurm_extra: --{name} {_REFUSED[name]}")
        # As submitit writes its own, but for one: else both would be given, and Slurm takes the last.
        options[name if name == "open-mode" else name.replace("-", "_")] = value if separator else True
    return options


def describe(parameters: Mapping[str, Any]) -> str:
    """Return what is asked for in words, for the log and for errors."""
    parts = [f"{parameters['timeout_min']} min", f"{parameters['cpus_per_task']} cpu"]
    if memory := memory_mb(parameters):
        parts.append(f"{memory} MB")
    if "gpus_per_node" in parameters:
        parts.append(f"{parameters['gpus_per_node']} gpu")
    for name in ("gres", "partition", "account", "constraint", "qos"):
        if f"slurm_{name}" in parameters:
            parts.append(f"{name} {parameters[f'slurm_{name}']}")
    return ", ".join(parts)
