"""Rows in memory, and shuffled minibatches of them, gathered and augmented on the device: for one run or for many."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from adamqlr.problems.examples import OffClock, Selection, batch_edges

# Chunks of about this many numbers keep activations of convolutional networks, and logits, within memory.
_CHUNK_INPUTS, _CHUNK_OUTPUTS = 4_000_000, 32_000_000
_PADDING = 4


@dataclass(frozen=True)
class Rows:
    """Examples that lie in the device's memory.

    Attributes:
        inputs: Shape (rows, …).
        targets: Class numbers of shape (rows,) or (rows, length), or real targets of shape (rows, outputs).
        outputs: How many numbers a network returns for a row; where they are many, fewer rows are evaluated at a time.
    """

    inputs: Tensor
    targets: Tensor
    outputs: int = 1

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return self.inputs.device

    def to(self, device: torch.device) -> "Rows":
        """Return the rows on a device."""
        return Rows(self.inputs.to(device), self.targets.to(device), self.outputs)

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs and targets of all rows once, in order, as many at a time as are evaluated together."""
        rows = max(1, min(_CHUNK_INPUTS // max(1, self.inputs[0].numel()), _CHUNK_OUTPUTS // self.outputs))
        return zip(self.inputs.split(rows), self.targets.split(rows), strict=True)

    def batches(self, batch_size: int, seed: int, augmentation: str) -> "Batches":
        """Return minibatches, gathered on the device."""
        return Batches(self, batch_size, seed, augmentation)


class Batches:
    """An endless stream of minibatches of rows in memory, as :class:`~adamqlr.problems.examples.BatchStream`.

    An epoch's random numbers are drawn at its start on the CPU, so that the order is the same on every device and no
    step waits for the host. The last batch of an epoch may be smaller; a single row left over joins the batch before.
    A batch of all rows is not shuffled: its mean loss does not depend on their order.

    Args:
        rows: The training rows, on the device.
        batch_size: Rows a batch; more than there are means all.
        seed: Seed of the order and the augmentation. Several are for runs side by side: batches then have a dimension
            more, one entry a run, unless a batch is all rows, which the runs share.
        augmentation: ``none``, or ``crop_flip``: each image is padded by 4 zeros (the mean, once standardized), cropped
            at random to its size, and flipped horizontally half of the time. For one run only.

    Attributes:
        batch_size: Rows a batch, at most all.
        steps_per_epoch: Batches an epoch.
    """

    def __init__(self, rows: Rows, batch_size: int, seed: int | Sequence[int], augmentation: str = "none") -> None:
        self._rows, self._augmentation = rows, augmentation
        self.batch_size = min(batch_size, len(rows))
        self._edges = batch_edges(len(rows), batch_size)
        self.steps_per_epoch = len(self._edges) - 1
        self._is_alone = isinstance(seed, int)
        seeds = [seed] if isinstance(seed, int) else seed
        assert self._is_alone or augmentation == "none"
        self._generators = [torch.Generator().manual_seed(one) for one in seeds]
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self._position = 0
        self._states = [generator.get_state() for generator in self._generators]
        count, device = len(self._rows), self._rows.device
        # A batch of all rows has them as they are; only augmentation's numbers come after those of the order.
        if self.steps_per_epoch > 1 or self._augmentation != "none":
            orders = [torch.randperm(count, generator=generator) for generator in self._generators]
            self._order = (orders[0] if self._is_alone else torch.stack(orders)).to(device, non_blocking=True)
        self._augmentations: tuple[Tensor, ...] = ()
        if self._augmentation == "crop_flip":
            (generator,) = self._generators
            offsets = torch.randint(2 * _PADDING + 1, (2, count), generator=generator)
            flips = torch.randint(2, (count,), generator=generator, dtype=torch.bool)
            self._augmentations = (offsets.to(device, non_blocking=True), flips.to(device, non_blocking=True))

    def next_selection(self, off_clock: OffClock = nullcontext) -> Selection:
        """Return the next batch's row numbers, unless it is all rows, and how its images are cut and flipped."""
        if self._position == self.steps_per_epoch:
            self._begin_epoch()
        start, stop = self._edges[self._position], self._edges[self._position + 1]
        self._position += 1
        rows = (self._order[..., start:stop],) if self.steps_per_epoch > 1 else ()
        return *rows, *(tensor[..., start:stop] for tensor in self._augmentations)

    def gather(self, *selection: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inputs, augmented, and targets of a selection: of shape (*runs, rows, …)."""
        inputs, targets = self._rows.inputs, self._rows.targets
        if self.steps_per_epoch > 1:
            chosen, *selection = selection  # type: ignore[assignment]
            if self._is_alone:
                inputs, targets = inputs.index_select(0, chosen), targets.index_select(0, chosen)
            else:
                inputs, targets = inputs[chosen], targets[chosen]
        return crop_and_flip(inputs, *selection) if selection else inputs, targets

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream is."""
        states = {"epoch": self._states[0]} if self._is_alone else {"epochs": self._states}
        return {**states, "position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another stream of the same rows and settings was."""
        saved = [state["epoch"]] if self._is_alone else state["epochs"]
        for generator, epoch in zip(self._generators, saved, strict=True):
            generator.set_state(epoch)
        self._begin_epoch()
        self._position = state["position"]


def crop_and_flip(images: Tensor, offsets: Tensor, flips: Tensor) -> Tensor:
    """Pad images by 4 zeros and cut them out again at ``offsets``, mirrored where ``flips``.

    Args:
        images: Shape (rows, channels, height, width).
        offsets: Top and left edge of each cut, from 0 to 8, shape (2, rows).
        flips: Shape (rows,), boolean.

    Returns:
        Shape (rows, channels, height, width).
    """
    count, channels, height, width = images.shape
    padded = functional.pad(images, [_PADDING] * 4)
    device = images.device
    down = offsets[0, :, None] + torch.arange(height, device=device)
    across = torch.arange(width, device=device).expand(count, width)
    across = offsets[1, :, None] + torch.where(flips[:, None], width - 1 - across, across)
    row, channel = torch.arange(count, device=device), torch.arange(channels, device=device)
    return padded[row[:, None, None, None], channel[:, None, None], down[:, None, :, None], across[:, None, None, :]]
