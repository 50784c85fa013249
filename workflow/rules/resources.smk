# What training and tuning jobs ask for.
import math


def packed_runs(wildcards):
    """How many processes share a job's GPU; each is given a core."""
    if STUDY.device == "cpu":
        return 1
    runs = (
        len(seeds_of(wildcards)) if "first" in wildcards.keys() else STUDY.tuning.trials
    )
    return min(STUDY.dataset(dataset_of(wildcards)).runs_per_gpu, runs)


def packed_memory(wildcards, attempt):
    """Megabytes of a job; a process that uses CUDA takes some gigabytes for itself."""
    return attempt * (4000 + 4000 * packed_runs(wildcards))


def training_minutes(wildcards, attempt):
    """Time limit of a training job; one that needs more goes on from its checkpoint."""
    if STUDY.suite(suite_of(wildcards)).budget == "epochs":
        return 240 * attempt
    rounds = math.ceil(len(seeds_of(wildcards)) / packed_runs(wildcards))
    seconds = rounds * STUDY.dataset(dataset_of(wildcards)).runtime
    return math.ceil(attempt * (20 + 1.5 * seconds / 60))
