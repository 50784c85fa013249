"""The table of partitions: the first that has what a job asks for is its partition."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError

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

    def fits(self, resources: Mapping[str, Any]) -> bool:
        """Tell whether a job can run there."""
        model = resources.get("gpu_model")
        if model and self.gpu_models and model not in self.gpu_models:
            return False
        limits = {"gpu": 0, **self.limits}
        return all((resources.get(name) or 0) <= limit for name, limit in limits.items())


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


def choose_partition(partitions: Sequence[Partition], resources: Mapping[str, Any]) -> str | None:
    """Return the first partition that a job fits in; None if it names its own, or there is no table.

    Raises:
        WorkflowError: It fits in none.
    """
    if not partitions or resources.get("slurm_partition"):
        return None
    for partition in partitions:
        if partition.fits(resources):
            return partition.name
    asked = ", ".join(f"{name}={resources[name]}" for name in (*_NUMBERS, "gpu_model") if resources.get(name))
    raise WorkflowError(f"no partition of --submitit-partitions has {asked}: add one, or lower what is asked for")
