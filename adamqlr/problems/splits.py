"""From raw arrays to a problem: checked targets, standardization, network."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from adamqlr.errors import UserError
from adamqlr.problems.models import RESNETS, new_model
from adamqlr.problems.problem import Problem
from adamqlr.problems.rows import Rows
from adamqlr.problems.standardize import standardization_of
from adamqlr.study.settings import DatasetConfig

Array = NDArray[np.generic]
Pair = tuple[Array, Array]


@dataclass(frozen=True)
class Splits:
    """Raw inputs (rows, …) and targets (rows,) or (rows, outputs), before standardization.

    Attributes:
        source: The file or dataset that errors name.
        train: Training rows.
        validation: Validation rows.
        test: Test rows.
    """

    source: Path | str
    train: Pair
    validation: Pair
    test: Pair

    def parts(self) -> Iterable[tuple[str, Pair]]:
        """Yield each split with its name."""
        return (("train", self.train), ("validation", self.validation), ("test", self.test))


def split_rows(
    source: Path | str, inputs: Array, targets: Array, train: int, validation: int, order: NDArray[np.int64]
) -> Splits:
    """Return a table's training, validation and test rows, cut in this order after its rows are put into ``order``.

    Raises:
        UserError: A part would be empty.
    """
    test = len(inputs) - train - validation
    if min(train, validation, test) < 1:
        raise UserError(f"{source}: {len(inputs)} rows are too few for a split into training, validation and test rows")
    inputs, targets = inputs[order], targets[order]
    edges = (slice(0, train), slice(train, train + validation), slice(train + validation, None))
    return Splits(source, *((inputs[edge], targets[edge]) for edge in edges))


def split_fractions(source: Path | str, inputs: Array, targets: Array, settings: DatasetConfig, seed: int) -> Splits:
    """Return a table cut by the configured fractions, its rows in a random order drawn from ``seed``.

    Raises:
        UserError: A part would be empty.
    """
    rest = len(inputs) - round(settings.test_fraction * len(inputs))
    validation = round(settings.validation_fraction * rest)
    order = np.random.default_rng(np.random.SeedSequence([seed, 0])).permutation(len(inputs))
    return split_rows(source, inputs, targets, rest - validation, validation, order)


def build_problem(settings: DatasetConfig, splits: Splits) -> Problem:
    """Return the problem of predicting targets from inputs, checked and standardized, on the CPU.

    Raises:
        UserError: Targets do not suit the loss, or inputs do not suit the network.
    """
    _check_finite(splits)
    inputs = {name: _shape_inputs(pair[0], settings, splits.source) for name, pair in splits.parts()}
    standardize = standardization_of(np.concatenate([inputs["train"], inputs["validation"]]))
    targets: dict[str, Array]
    if settings.loss == "cross_entropy":
        outputs = 1 + int(_class_numbers(splits.train[1], "train", splits.source).max())
        targets = {name: _classes(pair[1], name, outputs, splits.source) for name, pair in splits.parts()}
    else:
        real = {name: np.asarray(pair[1], dtype=np.float64).reshape(len(pair[1]), -1) for name, pair in splits.parts()}
        scale = standardization_of(np.concatenate([real["train"], real["validation"]]))
        targets = {name: scale(values) for name, values in real.items()}
        outputs = targets["train"].shape[1]
    rows = {
        name: Rows(torch.from_numpy(standardize(inputs[name])), torch.from_numpy(targets[name]), outputs)
        for name in inputs
    }
    shape = rows["train"].inputs.shape[1:]
    if settings.augmentation == "crop_flip" and len(shape) != 3:
        raise UserError(f"{splits.source}: augmentation 'crop_flip' needs images and a convolutional network")
    if settings.augmentation == "resized_crop_flip":
        raise UserError(f"{splits.source}: augmentation 'resized_crop_flip' is for imagenet alone")
    return Problem(
        settings.loss,
        rows["train"],
        rows["validation"],
        rows["test"],
        lambda: new_model(settings, shape, outputs),
        augmentation=settings.augmentation,
    )


def _check_finite(splits: Splits) -> None:
    for name, pair in splits.parts():
        for what, values in zip(("inputs", "targets"), pair, strict=True):
            if values.dtype.kind not in "biuf":
                raise UserError(f"{splits.source}: {name} {what} are not numbers")
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                row = int(np.argwhere(~np.isfinite(values))[0][0])
                raise UserError(f"{splits.source}: {name} {what} hold NaN or infinity, first in row {row}")


def _shape_inputs(inputs: Array, settings: DatasetConfig, source: Path | str) -> Array:
    if settings.model == "mlp":
        return inputs.reshape(len(inputs), -1)
    if settings.model not in RESNETS:
        known = ", ".join(RESNETS)
        raise UserError(f"{source}: model '{settings.model}' is not for tables or images: use mlp, {known}")
    if inputs.ndim != 4:
        raise UserError(
            f"{source}: model '{settings.model}' needs images of shape (rows, channels, height, width), "
            f"found {inputs.shape}"
        )
    return inputs


def _class_numbers(targets: Array, name: str, source: Path | str) -> NDArray[np.int64]:
    flat = targets.reshape(len(targets), -1)
    if flat.shape[1] != 1:
        raise UserError(f"{source}: {name} labels have {flat.shape[1]} columns: classes need one")
    labels = flat[:, 0].astype(np.int64)
    odd = np.flatnonzero((labels != flat[:, 0]) | (labels < 0))
    if len(odd):
        raise UserError(f"{source}: {name} label {flat[odd[0], 0]} in row {odd[0]} is no class number: use 0, 1, 2, …")
    return labels


def _classes(targets: Array, name: str, classes: int, source: Path | str) -> NDArray[np.int64]:
    labels = _class_numbers(targets, name, source)
    odd = np.flatnonzero(labels >= classes)
    if len(odd):
        raise UserError(
            f"{source}: {name} label {labels[odd[0]]} in row {odd[0]} is outside the training rows' {classes} classes"
        )
    return labels
