"""Snakemake executor that turns ready jobs into Slurm job arrays, through submitit."""

from dataclasses import dataclass, field

from snakemake_interface_executor_plugins.settings import CommonSettings, ExecutorSettingsBase

from snakemake_executor_plugin_submitit.executor import Executor

__all__ = ["Executor", "ExecutorSettings", "common_settings"]


@dataclass
class ExecutorSettings(ExecutorSettingsBase):
    """What ``snakemake --help`` lists as ``--submitit-…``."""

    cluster: str = field(
        default="slurm",
        metadata={
            "help": "Where jobs go: 'slurm'; 'local', processes on this machine; or 'debug', one job after another "
            "in Snakemake's own process.",
            "choices": ["slurm", "local", "debug"],
        },
    )
    logdir: str = field(
        default=".snakemake/submitit/logs",
        metadata={
            "help": "Folder of the jobs' own logs, on a file system that all nodes share. May name settings of the "
            "workflow's configuration, as in 'results/{config[name]}/logs/slurm'. What succeeds is removed."
        },
    )
    poll_seconds: int | None = field(
        default=None,
        metadata={
            "help": "Seconds between two looks at the queue; 10 on Slurm and 1 elsewhere unless given.",
            "type": int,
        },
    )
    requeue_limit: int = field(
        default=20,
        metadata={
            "help": "How many times a job that reaches its time limit goes on from its checkpoint, and how many times "
            "one that was preempted or whose node was lost is submitted again. None of it counts as a failure.",
            "type": int,
        },
    )
    node_failures: int = field(
        default=2,
        metadata={
            "help": "After how many failed jobs in a row a node gets no more; 0 to let every node have jobs.",
            "type": int,
        },
    )
    partitions: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Partitions and what a job may ask of them, as in 'gpu: runtime=2880, mem_mb=256000, gpu=4, "
            "gpu_model=a100|h100'. A job that names no slurm_partition gets the first that has what it asks for.",
            "nargs": "+",
        },
    )
    setup: str | None = field(
        default=None,
        metadata={
            "help": "Shell commands that run on the node before each job, such as 'module load cuda/12.6'.",
            "type": str,
        },
    )


common_settings = CommonSettings(
    non_local_exec=True,
    implies_no_shared_fs=False,
    job_deploy_sources=False,
    init_seconds_before_status_checks=1,
)
