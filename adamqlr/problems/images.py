"""The paper's image datasets, read by torchvision from the data folder."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torchvision import datasets

from adamqlr.errors import UserError
from adamqlr.problems.problem import Problem
from adamqlr.problems.splits import Pair, Splits, build_problem
from adamqlr.study.settings import DatasetConfig


class ImageSet(NamedTuple):
    """One of torchvision's datasets.

    Attributes:
        open: Opens its training part (True) or test part (False) under a root folder, downloading it if asked to.
        train: Training rows; those that follow, in file order, are for validation (paper, appendix B.1).
    """

    open: Callable[[Path, bool, bool], Any]
    train: int


def _svhn(root: Path, train: bool, download: bool) -> Any:
    return datasets.SVHN(str(root), split="train" if train else "test", download=download)


IMAGE_SETS = {
    "fashion_mnist": ImageSet(lambda root, train, fetch: datasets.FashionMNIST(root, train, download=fetch), 50_000),
    "svhn": ImageSet(_svhn, 61_047),
    "cifar10": ImageSet(lambda root, train, fetch: datasets.CIFAR10(root, train, download=fetch), 45_000),
}


def load(key: str, settings: DatasetConfig, folder: Path, seed: int) -> Problem:
    """Load ``<folder>/<key>`` in torchvision's layout.

    Returns:
        The problem, on the CPU; the last rows of torchvision's training part are for validation.

    Raises:
        UserError: Files are missing or damaged.
    """
    known, root = IMAGE_SETS[key], folder / key
    (inputs, targets), test = (read_part(key, root, train) for train in (True, False))
    train = (inputs[: known.train], targets[: known.train])
    validation = (inputs[known.train :], targets[known.train :])
    return build_problem(settings, Splits(root, train, validation, test))


def read_part(key: str, root: Path, train: bool, download: bool = False) -> Pair:
    """Return images (rows, channels, height, width), uint8, and class numbers of the training or test part.

    Raises:
        UserError: Files are missing or damaged.
    """
    try:
        part = IMAGE_SETS[key].open(root, train, download)
    except (RuntimeError, OSError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = "cannot be downloaded" if download else "missing or damaged"
        raise UserError(f"{root}: {key} {reason} ({' '.join(str(error).split())}); see `adamqlr fetch`") from error
    images = np.asarray(part.data)
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[-1] == 3:
        images = images.transpose(0, 3, 1, 2)
    return images, np.asarray(part.labels if hasattr(part, "labels") else part.targets)


def fetch(key: str, folder: Path) -> list[Path]:
    """Bring images to the data folder, if they are not there, and read them.

    Returns:
        The folder that holds them.

    Raises:
        UserError: They cannot be downloaded, or what is there is damaged.
    """
    root = folder / key
    existed = root.exists()
    try:
        for train in (True, False):
            read_part(key, root, train)
    except UserError:
        try:
            for train in (True, False):
                read_part(key, root, train, download=True)
        except UserError:
            # torchvision makes the folder before it finds out that there is no way out.
            if not existed:
                shutil.rmtree(root, ignore_errors=True)
            raise
    return [root]
