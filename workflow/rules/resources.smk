# What training and tuning jobs ask for.
import math

from adamqlr.study.datasets import DATASETS

# Whether there is a GPU is known where a job runs; that none is wanted, before.
GPUS = 0 if STUDY.device == "cpu" else 1


def processes(wildcards):
    """How many processes share a job's GPU; each is given a core."""
    if STUDY.device == "cpu":
        return 1
    case = case_of(wildcards)
    if "first" in wildcards.keys():
        packed, runs = case.can_pack, len(seeds_of(wildcards))
    else:
        packed, runs = (
            case.can_pack_trials,
            math.ceil(STUDY.tuning.trials / SHARDS),
        )
    return 1 if packed else min(case.settings.runs_per_gpu, runs)


def cpu_threads(wildcards):
    """Threads of each of a job's processes: one, but where other processes read images from files for it."""
    known = DATASETS.get(case_of(wildcards).dataset)
    return known.threads if known else 1


def cpus(wildcards):
    return processes(wildcards) * cpu_threads(wildcards)


def memory(wildcards, attempt):
    """Megabytes of a job; a process that uses CUDA takes some gigabytes for itself."""
    return attempt * (4000 + 4000 * processes(wildcards))


def training_minutes(wildcards, attempt):
    """Time limit of a training job; one that needs more goes on from its checkpoint."""
    case = case_of(wildcards)
    if case.by_epochs:
        return 240 * attempt
    rounds = math.ceil(len(seeds_of(wildcards)) / processes(wildcards))
    seconds = rounds * case.settings.runtime
    return math.ceil(attempt * (20 + 1.5 * seconds / 60))
