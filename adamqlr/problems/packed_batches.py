"""Minibatches for several runs side by side, each in its own order."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from adamqlr.problems.examples import OffClock, Selection, batch_edges
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
        self.batch_size = min(batch_size, len(rows))
        self._edges = batch_edges(len(rows), batch_size)
        self.steps_per_epoch = len(self._edges) - 1
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self._position = 0
        self._states = [generator.get_state() for generator in self._generators]
        orders = [torch.randperm(len(self._rows), generator=generator) for generator in self._generators]
        self._orders = torch.stack(orders).to(self._rows.device, non_blocking=True)

    def next_selection(self, off_clock: OffClock = nullcontext) -> Selection:
        """Return every run's row numbers, of shape (runs, rows), unless a batch is all rows."""
        if self._position == self.steps_per_epoch:
            self._begin_epoch()
        start, stop = self._edges[self._position], self._edges[self._position + 1]
        self._position += 1
        return (self._orders[:, start:stop],) if self.steps_per_epoch > 1 else ()

    def gather(self, *selection: Tensor) -> tuple[Tensor, Tensor]:
        """Return inputs (runs, rows, …) and targets (runs, rows, …); without the first dimension if all share them."""
        if not selection:
            return self._rows.inputs, self._rows.targets
        return self._rows.inputs[selection[0]], self._rows.targets[selection[0]]

    def state_dict(self) -> dict[str, Any]:
        """Return where the streams are."""
        return {"epochs": self._states, "position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where other streams of the same rows and settings were."""
        for generator, saved in zip(self._generators, state["epochs"], strict=True):
            generator.set_state(saved)
        self._begin_epoch()
        self._position = state["position"]
