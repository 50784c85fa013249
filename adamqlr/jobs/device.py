"""Where a job computes, and how its host memory is handled."""

import ctypes
import os
import platform
from pathlib import Path

import torch

from adamqlr.errors import UserError
from adamqlr.study.settings import PrecisionConfig

# glibc's mallopt: parameter numbers, and sizes in bytes (32 MiB is the most it takes for the second).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = (-1, 1 << 30), (-3, 32 << 20)


def resolve_device(name: str) -> torch.device:
    """Return the device that ``auto``, ``cpu`` or ``cuda`` stands for.

    Raises:
        UserError: CUDA is asked for, or Slurm has given the job a GPU for ``auto``, and there is none.
    """
    if name == "cpu" or torch.cuda.is_available():
        return torch.device("cuda" if name == "auto" else name)
    if name == "cuda":
        raise UserError("device: 'cuda' is asked for, but PyTorch finds no CUDA device here; use 'auto' or 'cpu'")
    if _has_gpu_of_slurm():
        # On the CPU it would hold the GPU for days, and its training times would be compared with those of GPUs.
        built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
        raise UserError(
            f"device: Slurm has given this job a GPU on {platform.node()}, but PyTorch, built {built}, finds no CUDA "
            "device there; mend the node's driver or install a PyTorch that fits it, or set 'device: cpu' to train on "
            "the CPU on purpose"
        )
    return torch.device("cpu")


def _has_gpu_of_slurm() -> bool:
    # The first two are lists of GPUs' numbers, of which 0 is one; the last says how many there are.
    names = ("SLURM_JOB_GPUS", "SLURM_STEP_GPUS", "SLURM_GPUS_ON_NODE")
    job, step, count = (os.environ.get(name, "").strip() for name in names)
    return bool(job or step) or count not in ("", "0")


def set_precision(precision: PrecisionConfig) -> None:
    """Compute on CUDA as precisely as asked for, in this process."""
    torch.backends.cudnn.allow_tf32 = precision.tf32
    torch.backends.cuda.matmul.allow_tf32 = False


def device_name(device: torch.device) -> str:
    """Return the device's product name, and the number of threads where it is a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{_cpu_name()}, {threads} thread{'s' if threads > 1 else ''}"


def _cpu_name() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def keep_freed_memory() -> None:
    """Let glibc keep freed memory instead of returning it to the system.

    Activations are freed and allocated again every step. Returned to the system, each of their pages is faulted in and
    zeroed anew, which costs up to half of a small network's step. Does nothing on other C libraries.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    for parameter, value in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
        libc.mallopt(parameter, value)
