"""A problem: rows to fit, a network to fit them with, and the loss."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import torch
from torch import Tensor, nn

from adamqlr.config import StudyConfig
from adamqlr.problems.registry import DATASETS, USER_FILE_LOADER


@dataclass(frozen=True)
class Rows:
    """Examples.

    Attributes:
        inputs: Shape (rows, …).
        targets: Class numbers of shape (rows,), or real targets of shape (rows, outputs).
    """

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def to(self, device: torch.device) -> "Rows":
        """Return the rows on a device."""
        return Rows(self.inputs.to(device), self.targets.to(device))


@dataclass(frozen=True)
class Problem:
    """What is optimized.

    Attributes:
        key: The dataset's name.
        loss: ``cross_entropy`` or ``half_mse``.
        train: Training rows.
        validation: Validation rows, if there are any.
        test: Test rows, if there are any.
        build_model: Makes a freshly initialized network on the CPU.
        build_tuning_model: Makes the network that tuning starts from, where it is another.
        augmentation: What training batches go through; see :class:`~adamqlr.problems.batches.Batches`.
    """

    key: str
    loss: str
    train: Rows
    validation: Rows | None
    test: Rows | None
    build_model: Callable[[], nn.Module]
    build_tuning_model: Callable[[], nn.Module] | None = None
    augmentation: str = "none"

    @property
    def has_accuracy(self) -> bool:
        """Whether targets are classes."""
        return self.loss == "cross_entropy"

    def to(self, device: torch.device) -> "Problem":
        """Return the problem with all its rows on a device."""
        train, validation, test = (rows and rows.to(device) for rows in (self.train, self.validation, self.test))
        assert train is not None
        models = (self.build_model, self.build_tuning_model)
        return Problem(self.key, self.loss, train, validation, test, *models, self.augmentation)


def load_problem(key: str, config: StudyConfig, device: torch.device) -> Problem:
    """Read a dataset of the study and put all of it on a device.

    Raises:
        UserError: The dataset is unknown, or its file is missing or cannot be used.
    """
    settings = config.dataset(key)
    path = USER_FILE_LOADER if settings.path is not None else DATASETS[key].loader
    module, _, name = path.partition(":")
    loader = getattr(import_module(module), name)
    return loader(key, settings, config.data_folder, config.seed).to(device)


def initial_model(problem: Problem, seed: int, tuning: bool = False) -> nn.Module:
    """Return a network initialized from a seed, to the same numbers on every device.

    Args:
        problem: What it is for; the network lands on the device of its rows.
        seed: Seed of the initialization.
        tuning: Whether to start where tuning does.
    """
    build = problem.build_tuning_model if tuning and problem.build_tuning_model else problem.build_model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build()
    return model.to(problem.train.inputs.device)
