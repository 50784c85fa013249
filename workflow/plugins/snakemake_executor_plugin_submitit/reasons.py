"""What Slurm says when it takes no job or starts none, and what follows from it."""

from dataclasses import dataclass
from enum import Enum, auto


class Response(Enum):
    """What the head process does about it."""

    FEWER = auto()
    """A limit on the number of jobs: submit fewer at a time, and the rest when others have ended."""
    SPLIT = auto()
    """The array is too large: submit smaller ones at once."""
    LATER = auto()
    """Slurm is away or busy, and may even have taken the job: ask again later."""
    STOP = auto()
    """Waiting does not mend it: tell the user what to change."""


@dataclass(frozen=True)
class Reason:
    """One of Slurm's reasons.

    Attributes:
        sign: Part of what Slurm says, by which it is known.
        response: What follows.
        advice: What a user should change, where that helps.
    """

    sign: str
    response: Response
    advice: str = ""


def _rows(response: Response, signs: str) -> tuple[Reason, ...]:
    return tuple(Reason(sign.strip(), response) for sign in signs.strip().splitlines())


_LIMITS = "`sacctmgr show qos` and `sacctmgr show associations user=$USER` list the limits"
_SHAPE = "`sinfo --format='%P %c %m %G %f'` lists what nodes have"

# The first row whose sign occurs is the reason, so that particular signs stand before general ones.
REFUSALS: tuple[Reason, ...] = (
    *_rows(
        Response.FEWER,
        """
        AssocMaxSubmitJobLimit
        AssocGrpSubmitJobsLimit
        QOSMaxSubmitJobPerUserLimit
        QOSMaxSubmitJobPerAccountLimit
        MaxSubmitJobsPerAccount
        QOSGrpSubmitJobsLimit
        temporarily unable to accept job
        job queue full
        Unable to create job record
        Resource temporarily unavailable
        """,
    ),
    Reason("Invalid job array specification", Response.SPLIT),
    *_rows(
        Response.LATER,
        """
        Unable to contact slurm controller
        Socket timed out
        gave no answer
        Zero Bytes were transmitted
        Connection refused
        Connection reset
        Connection timed out
        standby mode
        Could not establish a configuration source
        Unable to connect to database
        Requested nodes are busy
        Required partition not available
        """,
    ),
    *(
        Reason(sign, Response.STOP, "the account's budget is used up: choose another slurm_account, or ask for more")
        for sign in ("MinutesLimit", "GRESMinutes", "BillingMinutes", "MemMinutes")
    ),
    Reason("MaxWall", Response.STOP, f"lower runtime, or choose another qos: {_LIMITS}"),
    Reason("MaxCpu", Response.STOP, f"lower cpus_per_task: {_LIMITS}"),
    Reason("GrpCpu", Response.STOP, f"lower cpus_per_task: {_LIMITS}"),
    Reason("MinCpu", Response.STOP, f"raise cpus_per_task, or choose another qos: {_LIMITS}"),
    Reason("MaxMem", Response.STOP, f"lower mem_mb: {_LIMITS}"),
    Reason("GrpMem", Response.STOP, f"lower mem_mb: {_LIMITS}"),
    Reason("MinMem", Response.STOP, f"raise mem_mb, or choose another qos: {_LIMITS}"),
    Reason("MaxGRES", Response.STOP, f"lower gpu: {_LIMITS}"),
    Reason("GrpGRES", Response.STOP, f"lower gpu: {_LIMITS}"),
    Reason("MinGRES", Response.STOP, f"raise gpu, or choose another qos: {_LIMITS}"),
    Reason("MaxNode", Response.STOP, f"ask for fewer nodes in slurm_extra: {_LIMITS}"),
    Reason("GrpNode", Response.STOP, f"ask for fewer nodes in slurm_extra: {_LIMITS}"),
    Reason("accounting/QOS policy", Response.STOP, f"ask for less: {_LIMITS}"),
    Reason(
        "invalid partition",
        Response.STOP,
        "set slurm_partition in the profile to one that `sinfo --summarize` lists",
    ),
    Reason(
        "No partition specified",
        Response.STOP,
        "set slurm_partition in the profile: the cluster has no default",
    ),
    Reason(
        "group not permitted to use this partition",
        Response.STOP,
        "set slurm_partition in the profile to one that is open to you: `scontrol show partition`",
    ),
    Reason(
        "invalid account",
        Response.STOP,
        "set slurm_account in the profile to one of yours: `sacctmgr show associations user=$USER`",
    ),
    Reason("invalid qos", Response.STOP, "set qos in the profile to one that your account may use"),
    Reason("invalid wckey", Response.STOP, "change --wckey in slurm_extra: `sacctmgr show wckeys user=$USER`"),
    Reason("invalid feature", Response.STOP, "change constraint: `sinfo --format='%P %f'` lists what nodes have"),
    Reason(
        "generic resource",
        Response.STOP,
        "change gpu, gpu_model or gres: `sinfo --format='%P %G'` lists what nodes have",
    ),
    Reason("reservation", Response.STOP, "change --reservation in slurm_extra: `scontrol show reservation`"),
    Reason("license", Response.STOP, "change --licenses in slurm_extra: `scontrol show licenses`"),
    Reason("invalid node name", Response.STOP, "change --exclude or --nodelist in slurm_extra: `sinfo --Node`"),
    Reason("mutually exclusive", Response.STOP, "give one of the options that it names, in resources and slurm_extra"),
    Reason(
        "memory specification",
        Response.STOP,
        "lower mem_mb, or choose a partition whose nodes have it: `sinfo --format='%P %m'`",
    ),
    Reason("processors requested", Response.STOP, f"lower cpus_per_task: {_SHAPE}"),
    Reason("node configuration is not available", Response.STOP, f"ask for what a node of the partition has: {_SHAPE}"),
    Reason(
        "nodes not in this partition", Response.STOP, "change slurm_partition, or --nodelist in slurm_extra: `sinfo`"
    ),
    Reason("node count", Response.STOP, "change --nodes in slurm_extra: `sinfo`"),
    Reason(
        "time limit", Response.STOP, "lower runtime, or choose a partition that allows it: `sinfo --format='%P %l'`"
    ),
    Reason("munge", Response.STOP, "start munged on this machine, or start Snakemake on one where it runs"),
    Reason("permission denied", Response.STOP, "ask for the right to submit: `sacctmgr show associations user=$USER`"),
    Reason("unrecognized option", Response.STOP, "change slurm_extra: `sbatch --help` lists its options"),
)

# Reasons, as squeue names them, for which a job waits until somebody changes something, and what that is.
WAITS: dict[str, str] = {
    "AccountNotAllowed": "set slurm_account to one that the partition allows",
    "BadConstraints": "change constraint: no node has it now",
    "InvalidAccount": "set slurm_account to one of yours",
    "InvalidQOS": "set qos to one of yours",
    "JobHeldAdmin": "ask the cluster's administrators, who hold them",
    "JobHeldUser": "release them: `scontrol release`",
    "PartitionDown": "choose another slurm_partition, or wait for the administrators",
    "PartitionInactive": "choose another slurm_partition, or wait for the administrators",
    "PartitionConfig": "lower what the rule asks for: the partition has not as much",
    "PartitionNodeLimit": "lower what the rule asks for: the partition has not as much",
    "PartitionTimeLimit": "lower runtime, or choose a slurm_partition that allows it",
    "QOSNotAllowed": "set qos to one that the partition allows",
    "AssocMaxWallDurationPerJobLimit": "lower runtime, or choose another slurm_account",
    "QOSMaxWallDurationPerJobLimit": "lower runtime, or choose another qos",
    "AssocMaxCpuPerJobLimit": "lower cpus_per_task, or choose another slurm_account",
    "QOSMaxCpuPerJobLimit": "lower cpus_per_task, or choose another qos",
    "AssocMaxMemPerJob": "lower mem_mb, or choose another slurm_account",
    "QOSMaxMemoryPerJob": "lower mem_mb, or choose another qos",
    "AssocMaxGRESPerJob": "lower gpu, or choose another slurm_account",
    "QOSMaxGRESPerJob": "lower gpu, or choose another qos",
    "AssocMaxNodePerJobLimit": "ask for fewer nodes in slurm_extra, or choose another slurm_account",
    "QOSMaxNodePerJobLimit": "ask for fewer nodes in slurm_extra, or choose another qos",
    "AssocMaxCpuMinutesPerJobLimit": "lower runtime or cpus_per_task, or choose another slurm_account",
    "QOSMaxCpuMinutesPerJobLimit": "lower runtime or cpus_per_task, or choose another qos",
    "AssocMaxGRESMinutesPerJob": "lower runtime or gpu, or choose another slurm_account",
    "QOSMaxGRESMinutesPerJob": "lower runtime or gpu, or choose another qos",
    "QOSMinCpuNotSatisfied": "raise cpus_per_task, or choose another qos",
    "QOSMinMemory": "raise mem_mb, or choose another qos",
    "QOSMinGRES": "raise gpu, or choose another qos",
    **{
        f"{owner}Grp{what}": f"the budget of the {name} is used up: choose another {resource}, or ask for more"
        for owner, name, resource in (("Assoc", "account", "slurm_account"), ("QOS", "QOS", "qos"))
        for what in ("CPUMinutesLimit", "MemMinutes", "GRESMinutes", "BillingMinutes")
    },
    "JobHoldMaxRequeue": "see why they were requeued so often, and `scontrol release` them",
    "launch failed requeued held": "have the node seen to that could not start them, and `scontrol release` them",
    "ReservationDeleted": "change --reservation in slurm_extra",
}


def find_refusal(said: str) -> Reason | None:
    """Return the row of :data:`REFUSALS` that explains what ``sbatch`` printed, if one does."""
    lower = said.lower()
    return next((reason for reason in REFUSALS if reason.sign.lower() in lower), None)
