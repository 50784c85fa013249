"""Images that are read from their files while a network trains, for datasets that fit into no device's memory."""

import math
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import count, islice, pairwise, tee
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets.folder import default_loader
from torchvision.transforms import v2

from adamqlr.errors import UserError
from adamqlr.problems.examples import OffClock, Selection, batch_edges

# Of ImageNet's training images, as everywhere; red, green, blue.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# What a worker reads at a time: few enough that what waits in shared memory stays small.
_PIECE = 64
_CHUNK = 256
# How long a worker outlives SIGTERM: the time that a cluster commonly leaves before it kills a job's processes.
_LAST_SECONDS = 30
_MARGIN = 256 / 224
_CPU = torch.device("cpu")

Transform = Callable[[Any], Tensor]


class Place(NamedTuple):
    """An image in the order of reading.

    Attributes:
        row: Its row.
        epoch: In which epoch it is read.
        position: Where in the epoch.
    """

    row: int
    epoch: int
    position: int


@dataclass(frozen=True)
class ImageStream:
    """Images in files as :class:`~adamqlr.problems.examples.Examples`, read by as many processes as there are threads.

    Attributes:
        paths: Their files, encoded, shape (rows,).
        classes: Their class numbers, shape (rows,).
        size: Height and width that they are cut to.
        device: Where they appear.
    """

    paths: NDArray[np.bytes_]
    classes: NDArray[np.int64]
    size: int
    device: torch.device = _CPU

    def __len__(self) -> int:
        return len(self.paths)

    def to(self, device: torch.device) -> "ImageStream":
        """Return the images for another device."""
        return replace(self, device=device)

    def whole(self) -> Transform:
        """Return the transform for evaluation: the center of the image, resized."""
        cut: Transform = v2.Compose([v2.Resize(round(self.size * _MARGIN)), v2.CenterCrop(self.size), v2.PILToTensor()])
        return cut

    def random_part(self) -> Transform:
        """Return the transform for training: a random part of the image, resized, flipped half of the time."""
        cut: Transform = v2.Compose([v2.RandomResizedCrop(self.size), v2.RandomHorizontalFlip(), v2.PILToTensor()])
        return cut

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all images once, in order, cut as for evaluation, and their classes."""
        starts = range(0, len(self), _CHUNK)
        groups = ([Place(row, 0, row) for row in range(start, min(start + _CHUNK, len(self)))] for start in starts)
        return self.read(groups, self.whole(), seed=0)

    def batches(self, batch_size: int, seed: int, augmentation: str) -> "ImageBatches":
        """Return minibatches."""
        return ImageBatches(self, batch_size, seed, augmentation)

    def read(
        self, groups: Iterable[Sequence[Place]], transform: Transform, seed: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the images of each group, shape (rows, 3, size, size), standardized, and their classes.

        Args:
            groups: What is wanted; they are read ahead.
            transform: Makes a uint8 tensor of an image.
            seed: Decides the transform's random numbers, together with an image's epoch and position.

        Raises:
            UserError: A file is no image.
        """
        ahead, groups = tee(groups)
        pieces = (group[start : start + _PIECE] for group in ahead for start in range(0, len(group), _PIECE))
        loader = DataLoader(
            _Images(self.paths, self.classes, transform, seed),
            batch_sampler=pieces,  # type: ignore[arg-type]
            num_workers=torch.get_num_threads(),
            collate_fn=_stack,
            worker_init_fn=_leave_signals_to_parent,
            # Without one of its own it would draw from the generator that training uses.
            generator=torch.Generator(),
        )
        mean, deviation = (torch.tensor(values, device=self.device).view(3, 1, 1) for values in (_MEAN, _DEVIATION))
        read = iter(loader)
        for group in groups:
            parts = []
            for part in islice(read, math.ceil(len(group) / _PIECE)):
                if isinstance(part, UserError):
                    # Another one: an exception that a name of its own frame holds keeps the frame, and with it the
                    # workers, until a collection of garbage.
                    raise UserError(*part.args)
                parts.append([tensor.to(self.device) for tensor in part])
            images, classes = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
            yield images.to(torch.get_default_dtype()).div_(255).sub_(mean).div_(deviation), classes


class ImageBatches:
    """Minibatches of an :class:`ImageStream`, as :class:`~adamqlr.problems.examples.BatchStream`.

    The order of an epoch depends on the seed and the epoch alone, an image's random part on its position in it as well.

    Attributes:
        batch_size: Rows a batch, at most all.
        steps_per_epoch: Batches an epoch.
    """

    def __init__(self, images: ImageStream, batch_size: int, seed: int, augmentation: str) -> None:
        self._images, self._seed = images, seed
        self._transform = images.whole() if augmentation == "none" else images.random_part()
        self._edges = batch_edges(len(images), batch_size)
        self.batch_size = min(batch_size, len(images))
        self.steps_per_epoch = len(self._edges) - 1
        self._epoch = self._position = 0
        self._source: Iterator[tuple[Tensor, Tensor]] | None = None

    def next_selection(self, off_clock: OffClock = nullcontext) -> Selection:
        """Return the next images and classes themselves; waiting for them is off the clock.

        Raises:
            UserError: A file is no image.
        """
        with off_clock():
            if self._source is None:
                groups = _places(len(self._images), self._edges, self._seed, self._epoch, self._position)
                self._source = self._images.read(groups, self._transform, self._seed)
            batch = next(self._source)
        self._position += 1
        if self._position == self.steps_per_epoch:
            self._epoch, self._position = self._epoch + 1, 0
        return batch

    def gather(self, *selection: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images and classes."""
        images, classes = selection
        return images, classes

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream is."""
        return {"epoch": self._epoch, "position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another stream of the same images and settings was."""
        self._epoch, self._position = state["epoch"], state["position"]
        self._source = None


# No method of the batches: they would be part of a cycle, and workers stay until it is found.
def _places(rows: int, edges: Sequence[int], seed: int, epoch: int, position: int) -> Iterator[list[Place]]:
    """Yield the places of each batch, without end, from some batch of some epoch on."""
    for current in count(epoch):
        order = np.random.default_rng(np.random.SeedSequence([seed, current])).permutation(rows)
        first = position if current == epoch else 0
        for start, stop in pairwise(edges[first:]):
            yield [Place(int(order[place]), current, place) for place in range(start, stop)]


class _Images(Dataset[Any]):
    """Images by their places: what a worker process runs."""

    def __init__(self, paths: NDArray[np.bytes_], classes: NDArray[np.int64], transform: Transform, seed: int) -> None:
        self._paths, self._classes, self._transform, self._seed = paths, classes, transform, seed

    def __getitem__(self, place: Place) -> tuple[Tensor, int] | UserError:
        path = os.fsdecode(self._paths[place.row])
        seed = np.random.SeedSequence([self._seed, place.epoch, place.position, 1]).generate_state(1, np.uint64)
        try:
            torch.manual_seed(int(seed[0]))
            return self._transform(default_loader(path)), int(self._classes[place.row])
        except (OSError, SyntaxError, ValueError) as error:
            # Exceptions reach the parent with a traceback in their text.
            return UserError(f"{path}: not a readable image ({' '.join(str(error).split())})")


def _stack(samples: Sequence[tuple[Tensor, int] | UserError]) -> tuple[Tensor, Tensor] | UserError:
    images, classes = [], []
    for sample in samples:
        if isinstance(sample, UserError):
            return sample
        images.append(sample[0])
        classes.append(sample[1])
    return torch.stack(images), torch.tensor(classes)


def _leave_signals_to_parent(worker: int) -> None:
    """Let a signal that reaches all processes of a job end the one that writes the checkpoint, and this one with it."""
    for signum in (signal.SIGUSR2, signal.SIGINT):
        signal.signal(signum, signal.SIG_IGN)
    # It is also how a parent that fails ends its workers, and it waits until they are gone.
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_LAST_SECONDS))
