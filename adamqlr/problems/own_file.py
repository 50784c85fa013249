"""A file of the user's own, named in the configuration."""

import zipfile
from pathlib import Path

import numpy as np

from adamqlr.errors import UserError
from adamqlr.problems.problem import Problem
from adamqlr.problems.splits import Array, Pair, Splits, build_problem, split_fractions
from adamqlr.problems.text_table import read_table
from adamqlr.study.settings import DatasetConfig

_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
_COLORS = (1, 3, 4)


def load(key: str, settings: DatasetConfig, folder: Path, seed: int) -> Problem:
    """Return the problem of ``settings.path``: a ``.npz`` with x_train, y_train, x_test, y_test, or a text table.

    In a ``.npz`` the last training rows are for validation. Images may have their channels first or last. A text
    table's last column is the target, and its rows are split in a random order.

    Raises:
        UserError: The file is missing or cannot be used.
    """
    assert settings.path is not None
    path = find_file(settings.path, folder)
    if path.suffix == ".npz":
        return build_problem(settings, _archive_splits(path, settings))
    table = read_table(path)
    return build_problem(settings, split_fractions(path, table[:, :-1], table[:, -1:], settings, seed))


def find_file(path: Path, folder: Path) -> Path:
    """Return the file at ``path``: in the data folder, else relative to where the program runs.

    Raises:
        UserError: It is at neither place.
    """
    for candidate in (folder / path, path):
        if candidate.is_file():
            return candidate
    raise UserError(f"{path}: no such file, neither in the data folder {folder} nor here")


def _archive_splits(path: Path, settings: DatasetConfig) -> Splits:
    arrays = _read_archive(path)
    (inputs, targets), test = _pair(path, arrays, "train"), _pair(path, arrays, "test")
    if inputs.shape[1:] != test[0].shape[1:]:
        raise UserError(f"{path}: x_train has rows of shape {inputs.shape[1:]}, x_test of {test[0].shape[1:]}")
    if targets.shape[1:] != test[1].shape[1:]:
        raise UserError(f"{path}: y_train has rows of shape {targets.shape[1:]}, y_test of {test[1].shape[1:]}")
    train = len(inputs) - round(settings.validation_fraction * len(inputs))
    if not 0 < train < len(inputs):
        raise UserError(f"{path}: {len(inputs)} training rows are too few to hold some out for validation")
    return Splits(path, (inputs[:train], targets[:train]), (inputs[train:], targets[train:]), test)


def _read_archive(path: Path) -> dict[str, Array]:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise UserError(f"{path}: one array, not several: save them with numpy.savez")
        with loaded as archive:
            missing = [name for name in _ARRAYS if name not in archive]
            if missing:
                raise UserError(f"{path}: no array {', '.join(missing)}: expected {', '.join(_ARRAYS)}")
            return {name: archive[name] for name in _ARRAYS}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a readable .npz file ({error})") from error


def _pair(path: Path, arrays: dict[str, Array], part: str) -> Pair:
    inputs, targets = arrays[f"x_{part}"], arrays[f"y_{part}"]
    if inputs.ndim not in (2, 4) or targets.ndim not in (1, 2):
        raise UserError(
            f"{path}: x_{part} {inputs.shape} must be (rows, features) or images, y_{part} {targets.shape} "
            "(rows,) or (rows, outputs)"
        )
    if len(inputs) != len(targets) or len(inputs) == 0:
        raise UserError(f"{path}: x_{part} has {len(inputs)} rows, y_{part} {len(targets)}")
    return _channels_first(path, inputs) if inputs.ndim == 4 else inputs, targets


def _channels_first(path: Path, images: Array) -> Array:
    """Return images with their channels first: the dimension that is a number of colors, or else not a square's."""
    first, second, last = images.shape[1:]
    if first in _COLORS:
        return images
    if last in _COLORS or first == second != last:
        return images.transpose(0, 3, 1, 2)
    if second != last or first == last:
        raise UserError(
            f"{path}: images of shape {images.shape[1:]} may have their channels first or last: save square ones, or "
            "1, 3 or 4 channels"
        )
    return images
