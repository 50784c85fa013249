"""Memory that PyTorch's allocator hands out while a network trains."""

import gc
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from .timing import Make

# From the second step on, activations find the optimizer's state already there.
STEPS = 2


def peak_bytes(make: Make, device: torch.device) -> int:
    """Return the most that is allocated at a time for a new network, its optimizer and its steps.

    Workspaces that a CPU's libraries allocate by themselves do not count.
    """
    return _peak_on_cuda(make, device) if device.type == "cuda" else _peak_on_cpu(make)


def _peak_on_cuda(make: Make, device: torch.device) -> int:
    gc.collect()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    _train(make)
    return torch.cuda.max_memory_allocated(device) - before


def _peak_on_cpu(make: Make) -> int:
    # Without a GPU the profiler's library complains that there is none.
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        _train(make)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8", errors="replace"))["traceEvents"]
    changes = [event for event in events if event.get("name") == "[memory]"]
    return _peak_of((e["args"]["Addr"], e["args"]["Bytes"]) for e in sorted(changes, key=lambda event: event["ts"]))


def _peak_of(changes: Iterable[tuple[int, int]]) -> int:
    """Return the most that was held; what is freed without having been allocated is from before."""
    blocks: dict[int, int] = {}
    held = peak = 0
    for address, size in changes:
        if size > 0:
            blocks[address] = size
            held += size
            peak = max(peak, held)
        else:
            held -= blocks.pop(address, 0)
    return peak


def _train(make: Make) -> None:
    step = make()
    for _ in range(STEPS):
        step()
