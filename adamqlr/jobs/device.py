"""Where a job computes, and how its host memory is handled."""

import ctypes
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
        UserError: CUDA is asked for and there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device: 'cuda' is asked for, but PyTorch finds no CUDA device here; use 'auto' or 'cpu'")
    return torch.device(name)


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
