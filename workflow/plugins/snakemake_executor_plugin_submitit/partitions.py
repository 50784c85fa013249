"""The table of partitions: the first that has what a job asks for is its partition."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit.resources import GPU_OPTIONS, memory_mb

_NUMBERS = ("runtime", "mem_mb", "cpus_per_task", "gpu")


@dataclass(frozen=True)
class Partition:
    """A partition and what a job may ask of it.

    Attributes:
        name: Slurm's name for it.
        limits: The most of each resource; what is not named has no limit, but ``gpu``, which is then none.
        gpu_models: Types of its GPUs; any if there are none here.
    """

    name: str
    limits: Mapping[str, int]
    gpu_models: tuple[str, ...] = ()

    def fits(self, asked: Mapping[str, Any]) -> bool:
        """Tell whether a job can run there."""
        model = asked.get("gpu_model")
        if model and self.gpu_models and model not in self.gpu_models:
            return False
        limits = {"gpu": 0, **self.limits}
        return all((asked.get(name) or 0) <= limit for name, limit in limits.items())


def parse_partitions(rows: Sequence[str]) -> list[Partition]:
    """Return the partitions of rows such as ``gpu: runtime=2880, mem_mb=256000, gpu=4, gpu_model=a100|h100``.

    Raises:
        WorkflowError: A row cannot be read; the message names it.
    """
    partitions = []
    for row in rows:
        name, _, rest = row.partition(":")
        words = [word.partition("=") for word in rest.replace(",", " ").split()]
        values = {key: value for key, _, value in words}
        models = tuple(filter(None, values.pop("gpu_model", "").split("|")))
        if not name.strip() or not values.keys() <= set(_NUMBERS) or not all(map(str.isdigit, values.values())):
            raise WorkflowError(
                f"--submitit-partitions {row!r}: expected a partition's name, a colon, and limits such as runtime=60, "
                f"mem_mb=64000, gpu=2; known are {', '.join(_NUMBERS)} and gpu_model"
            )
        partitions.append(Partition(name.strip(), {key: int(value) for key, value in values.items()}, models))
    return partitions


def choose_partition(partitions: Sequence[Partition], parameters: Mapping[str, Any]) -> str | None:
    """Return the first partition that a job fits in; None if it names its own, or there is no table.

    Args:
        partitions: The table.
        parameters: As :func:`~snakemake_executor_plugin_submitit.resources.submission_parameters` returns them.

    Raises:
        WorkflowError: It fits in none.
    """
    own = parameters.get("slurm_additional_parameters", {})
    if not partitions or "slurm_partition" in parameters or "partition" in own:
        return None
    asked = {
        "runtime": parameters["timeout_min"],
        "mem_mb": memory_mb(parameters),
        "cpus_per_task": parameters["cpus_per_task"],
        **_gpus_of(parameters, own),
    }
    for partition in partitions:
        if partition.fits(asked):
            return partition.name
    words = ", ".join(f"{name}={value}" for name, value in asked.items() if value)
    raise WorkflowError(f"no partition of --submitit-partitions has {words}: add one, or lower what is asked for")


def _gpus_of(parameters: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return how many GPUs are asked for, in whichever of Slurm's words, and of which type."""
    said = {"gres": parameters.get("slurm_gres"), "gpus_per_node": parameters.get("gpus_per_node")}
    for name, value in {**said, **{name: own[name] for name in GPU_OPTIONS & own.keys()}}.items():
        for item in str(value or "").split(","):
            # As in 2, a100:2, gpu, gpu:2, gpu:a100:2 and gres/gpu:a100=2.
            kind, *words = [word for word in re.split("[:=/]", item) if word != "gres"]
            if name not in ("gres", "tres_per_task"):
                words = [kind, *words]
            elif kind != "gpu":
                continue
            if words != [""]:
                count = int(words.pop()) if words and words[-1].isdigit() else 1
                return {"gpu": count, "gpu_model": words[0] if words else None}
    return {}
