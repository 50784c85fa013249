"""Shuffled minibatches, gathered and augmented on the device."""

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from adamqlr.problems.examples import OffClock, Selection, batch_edges

if TYPE_CHECKING:
    from adamqlr.problems.problem import Rows

_PADDING = 4


class Batches:
    """An endless stream of minibatches of rows in memory, as :class:`~adamqlr.problems.examples.BatchStream`.

    An epoch's random numbers are drawn at its start on the CPU, so that the order is the same on every device and no
    step waits for the host. The last batch of an epoch may be smaller; a single row left over joins the batch before.
    A batch of all rows is not shuffled: its mean loss does not depend on their order.

    Args:
        rows: The training rows, on the device.
        batch_size: Rows a batch; more than there are means all.
        seed: Seed of the order and the augmentation.
        augmentation: ``none``, or ``crop_flip``: each image is padded by 4 zeros (the mean, once standardized), cropped
            at random to its size, and flipped horizontally half of the time.

    Attributes:
        batch_size: Rows a batch, at most all.
        steps_per_epoch: Batches an epoch.
    """

    def __init__(self, rows: "Rows", batch_size: int, seed: int, augmentation: str = "none") -> None:
        self._rows, self._augmentation = rows, augmentation
        self.batch_size = min(batch_size, len(rows))
        self._edges = batch_edges(len(rows), batch_size)
        self.steps_per_epoch = len(self._edges) - 1
        self._generator = torch.Generator().manual_seed(seed)
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self._position = 0
        self._state = self._generator.get_state()
        count, device = len(self._rows), self._rows.inputs.device
        self._order = torch.randperm(count, generator=self._generator).to(device, non_blocking=True)
        self._augmentations: tuple[Tensor, ...] = ()
        if self._augmentation == "crop_flip":
            offsets = torch.randint(2 * _PADDING + 1, (2, count), generator=self._generator)
            flips = torch.randint(2, (count,), generator=self._generator, dtype=torch.bool)
            self._augmentations = (offsets.to(device, non_blocking=True), flips.to(device, non_blocking=True))

    def next_selection(self, off_clock: OffClock = nullcontext) -> Selection:
        """Return the next batch's row numbers, unless it is all rows, and how its images are cut and flipped."""
        if self._position == self.steps_per_epoch:
            self._begin_epoch()
        start, stop = self._edges[self._position], self._edges[self._position + 1]
        self._position += 1
        rows = (self._order[start:stop],) if self.steps_per_epoch > 1 else ()
        return *rows, *(tensor[..., start:stop] for tensor in self._augmentations)

    def gather(self, *selection: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inputs, augmented, and targets of a selection."""
        inputs, targets = self._rows.inputs, self._rows.targets
        if self.steps_per_epoch > 1:
            chosen, *selection = selection  # type: ignore[assignment]
            inputs, targets = inputs.index_select(0, chosen), targets.index_select(0, chosen)
        return crop_and_flip(inputs, *selection) if selection else inputs, targets

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream is."""
        return {"epoch": self._state, "position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another stream of the same rows and settings was."""
        self._generator.set_state(state["epoch"])
        self._begin_epoch()
        self._position = state["position"]


def crop_and_flip(images: Tensor, offsets: Tensor, flips: Tensor) -> Tensor:
    """Pad images by 4 zeros and cut them out again at ``offsets``, mirrored where ``flips``.

    Args:
        images: Shape (rows, channels, height, width).
        offsets: Top and left edge of each cut, from 0 to 8, shape (2, rows).
        flips: Shape (rows,), boolean.
    """
    count, channels, height, width = images.shape
    padded = functional.pad(images, [_PADDING] * 4)
    device = images.device
    down = offsets[0, :, None] + torch.arange(height, device=device)
    across = torch.arange(width, device=device).expand(count, width)
    across = offsets[1, :, None] + torch.where(flips[:, None], width - 1 - across, across)
    row, channel = torch.arange(count, device=device), torch.arange(channels, device=device)
    return padded[row[:, None, None, None], channel[:, None, None], down[:, None, :, None], across[:, None, None, :]]
