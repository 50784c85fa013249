# What training and tuning jobs ask for.
import math


def processes(wildcards):
    """How many processes share a job's GPU; each is given a core."""
    if STUDY.device == "cpu":
        return 1
    pair = suite_of(wildcards), dataset_of(wildcards), optimizer_of(wildcards)
    if "first" in wildcards.keys():
        seeds = seeds_of(wildcards)
        packed, runs = SeedsJob(STUDY, *pair, {}, seeds).is_packed("cuda"), len(seeds)
    else:
        packed, runs = Search(STUDY, *pair).is_packed("cuda"), STUDY.tuning.trials
    return 1 if packed else min(STUDY.dataset(pair[1]).runs_per_gpu, runs)


def memory(wildcards, attempt):
    """Megabytes of a job; a process that uses CUDA takes some gigabytes for itself."""
    return attempt * (4000 + 4000 * processes(wildcards))


def training_minutes(wildcards, attempt):
    """Time limit of a training job; one that needs more goes on from its checkpoint."""
    if STUDY.suite(suite_of(wildcards)).budget == "epochs":
        return 240 * attempt
    rounds = math.ceil(len(seeds_of(wildcards)) / processes(wildcards))
    seconds = rounds * STUDY.dataset(dataset_of(wildcards)).runtime
    return math.ceil(attempt * (20 + 1.5 * seconds / 60))
