"""What training asks of a dataset's rows, wherever they are: in the device's memory, or in files."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor

Selection = tuple[Tensor, ...]
OffClock = Callable[[], AbstractContextManager[Any]]


class BatchStream(Protocol):
    """An endless stream of minibatches: every row once an epoch, in a new random order.

    Attributes:
        batch_size: Rows a batch, at most all; the last batch of an epoch may be smaller.
        steps_per_epoch: Batches an epoch.
    """

    batch_size: int
    steps_per_epoch: int

    def next_selection(self, off_clock: OffClock = nullcontext) -> Selection:
        """Return what :meth:`gather` makes the next minibatch from: tensors on the device, of few different shapes.

        Args:
            off_clock: Makes a context for what does not count as training: waiting for data.
        """
        ...

    def gather(self, *selection: Tensor) -> tuple[Tensor, Tensor]:
        """Return a selection's inputs and targets; a function of the tensors alone, without a look at the host."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream is."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another stream of the same rows and settings was."""
        ...


class Examples(Protocol):
    """Rows to train on or to evaluate."""

    @property
    def device(self) -> torch.device:
        """Where inputs and targets appear."""
        ...

    def __len__(self) -> int: ...

    def to(self, device: torch.device) -> "Examples":
        """Return the rows for another device."""
        ...

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs and targets of all rows once, in order, as many at a time as are evaluated together."""
        ...

    def batches(self, batch_size: int, seed: int, augmentation: str) -> BatchStream:
        """Return minibatches; a seed and an augmentation decide all of them."""
        ...


def batch_edges(rows: int, batch_size: int) -> list[int]:
    """Return where an epoch's batches begin, and the number of rows.

    The last batch may be smaller; a single row left over joins the batch before, as batch normalization needs two.
    """
    starts = list(range(0, rows, min(batch_size, rows)))
    if len(starts) > 1 and rows - starts[-1] == 1:
        starts.pop()
    return [*starts, rows]


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Return how many batches an epoch has."""
    return len(batch_edges(rows, batch_size)) - 1
