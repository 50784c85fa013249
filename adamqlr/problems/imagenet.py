"""ImageNet in torchvision's layout: a folder of images for each class (paper, appendix)."""

import os
from pathlib import Path

import numpy as np
import torch
from torchvision.datasets import ImageFolder

from adamqlr.errors import UserError
from adamqlr.problems.image_stream import ImageStream
from adamqlr.problems.models import RESNETS, new_model
from adamqlr.problems.problem import Problem
from adamqlr.study.settings import DatasetConfig

FOLDERS = ("train", "val", "test")


def load(key: str, settings: DatasetConfig, folder: Path, seed: int) -> Problem:
    """Load ``<folder>/<key>/{train,val,test}/<class>/*``.

    Returns:
        The problem; its images are read from their files when their turn comes.

    Raises:
        UserError: A folder is missing or empty, or they differ in their classes.
    """
    if settings.model not in RESNETS or settings.loss != "cross_entropy" or settings.augmentation == "crop_flip":
        raise UserError(
            f"dataset '{key}': it needs a model of {', '.join(RESNETS)}, loss cross_entropy, "
            "and augmentation resized_crop_flip or none"
        )
    names = class_names(folder / key)
    train, validation, test = (_open(folder / key / name, settings.image_size) for name in FOLDERS)
    shape = torch.Size((3, settings.image_size, settings.image_size))
    return Problem(
        settings.loss,
        train,
        validation,
        test,
        lambda: new_model(settings, shape, len(names)),
        augmentation=settings.augmentation,
    )


def class_names(root: Path) -> list[str]:
    """Return the names of the classes, which are the same for training, validation and test.

    Raises:
        UserError: A folder is missing, or they differ in their classes.
    """
    found: list[str] = []
    for name in FOLDERS:
        part = root / name
        if not part.is_dir():
            raise UserError(
                f"{part}: no such folder; ImageNet cannot be downloaded: put a folder of images for each class into "
                f"each of {', '.join(f'{root.name}/{needed}' for needed in FOLDERS)}"
            )
        classes = sorted(entry.name for entry in os.scandir(part) if entry.is_dir())
        if not classes:
            raise UserError(f"{part}: no folders of classes in it")
        if found and classes != found:
            odd = min(set(classes).symmetric_difference(found))
            raise UserError(f"{part}: its classes are not those of {root / FOLDERS[0]}: '{odd}' is in one of them only")
        found = classes
    return found


def _open(root: Path, size: int) -> ImageStream:
    try:
        samples = ImageFolder(root).samples
    except FileNotFoundError as error:
        raise UserError(f"{root}: {str(error).partition('.')[0]}") from error
    # In arrays, as worker processes would each copy a list of a million paths as they look at it.
    paths = np.array([os.fsencode(path) for path, _ in samples], dtype=np.bytes_)
    return ImageStream(paths, np.array([number for _, number in samples], dtype=np.int64), size)


def fetch(key: str, folder: Path) -> list[Path]:
    """Check that the images are in the data folder, where they are put by hand.

    Returns:
        The folder that holds them.

    Raises:
        UserError: They are not.
    """
    class_names(folder / key)
    return [folder / key]
