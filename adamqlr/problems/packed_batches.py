"""Minibatches for several runs side by side, each in its own order."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from adamqlr.problems.batches import Batches
from adamqlr.problems.examples import OffClock, Selection
from adamqlr.problems.problem import Rows


class PackedBatches:
    """The streams of :class:`~adamqlr.problems.batches.Batches` of several seeds, stacked.

    Args:
        rows: The training rows, on the device.
        batch_size: Rows a batch; more than there are means all, which the runs then share.
        seeds: Every run's seed.

    Attributes:
        batch_size: Rows a batch, at most all.
        steps_per_epoch: Batches an epoch.
    """

    def __init__(self, rows: Rows, batch_size: int, seeds: Sequence[int]) -> None:
        self._rows = rows
        self._streams = [Batches(rows, batch_size, seed) for seed in seeds]
        self.batch_size, self.steps_per_epoch = self._streams[0].batch_size, self._streams[0].steps_per_epoch

    def next_selection(self, off_clock: OffClock = nullcontext) -> Selection:
        """Return every run's row numbers, of shape (runs, rows), unless a batch is all rows."""
        parts = [stream.next_selection(off_clock) for stream in self._streams]
        return tuple(torch.stack(tensors) for tensors in zip(*parts, strict=True))

    def gather(self, *selection: Tensor) -> tuple[Tensor, Tensor]:
        """Return inputs (runs, rows, …) and targets (runs, rows, …); without the first dimension if all share them."""
        if not selection:
            return self._rows.inputs, self._rows.targets
        return self._rows.inputs[selection[0]], self._rows.targets[selection[0]]

    def state_dict(self) -> dict[str, Any]:
        """Return where the streams are."""
        return {"streams": [stream.state_dict() for stream in self._streams]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where other streams of the same rows and settings were."""
        for stream, saved in zip(self._streams, state["streams"], strict=True):
            stream.load_state_dict(saved)
