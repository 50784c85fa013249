"""What a user should change when Slurm refuses a submission."""

_ADVICE = (
    ("invalid partition", "set slurm_partition in profiles/slurm/config.yaml to one that `sinfo --summarize` lists"),
    (
        "invalid account",
        "set slurm_account in profiles/slurm/config.yaml to one of yours: `sacctmgr show associations user=$USER`",
    ),
    ("invalid qos", "set qos in profiles/slurm/config.yaml to one that your account may use"),
    ("invalid feature", "change constraint: `sinfo --format='%P %f'` lists what nodes have"),
    ("generic resource", "change gpu, gpu_model or gres: `sinfo --format='%P %G'` lists what nodes have"),
    (
        "node configuration is not available",
        "no node of the partition can meet this: `sinfo --format='%P %c %m %G %f'` lists what nodes have",
    ),
    ("time limit", "lower runtime, or choose a partition that allows it: `sinfo --format='%P %l'`"),
    ("memory specification", "lower mem_mb, or choose a partition whose nodes have it: `sinfo --format='%P %m'`"),
    ("job array", "lower --jobs: the cluster's MaxArraySize is below 1000"),
    ("permission denied", "choose a --submitit-logdir that can be written"),
)


def explain_refusal(error: str, asked: str) -> str:
    """Return one line: what Slurm said, what was asked for, and what to change.

    Args:
        error: What ``sbatch`` printed.
        asked: What the job asked for, in words.
    """
    lines = [line.removeprefix("sbatch:").strip().removeprefix("error:").strip() for line in error.splitlines()]
    said = "; ".join(dict.fromkeys(line for line in lines if line)) or "no reason given"
    advice = next((advice for sign, advice in _ADVICE if sign in error.lower()), None)
    return f"Slurm refused a job ({asked}): {said}" + (f". To mend it, {advice}." if advice else "")
