"""A problem: rows to fit, a network to fit them with, and the loss."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pkgutil import resolve_name

import torch
from torch import Tensor, nn

from adamqlr.problems.examples import BatchStream, Examples
from adamqlr.study.config import StudyConfig
from adamqlr.study.datasets import DATASETS, USER_FILE_LOADER


@dataclass(frozen=True)
class Problem:
    """What is optimized.

    Attributes:
        loss: ``cross_entropy`` or ``half_mse``.
        train: Training rows.
        validation: Validation rows, if there are any.
        test: Test rows, if there are any.
        build_model: Makes a freshly initialized network on the CPU.
        build_tuning_model: Makes the network that tuning starts from, where it is another.
        augmentation: What training rows go through; see :class:`~adamqlr.study.settings.DatasetConfig`.
        channels_last: Whether convolutional networks see images with their channels last in memory.
        cut: Makes a text's problem with rows of so many tokens, on the CPU; None for what is no text.
    """

    loss: str
    train: Examples
    validation: Examples | None
    test: Examples | None
    build_model: Callable[[], nn.Module]
    build_tuning_model: Callable[[], nn.Module] | None = None
    augmentation: str = "none"
    channels_last: bool = False
    cut: Callable[[int], "Problem"] | None = None

    @property
    def has_accuracy(self) -> bool:
        """Whether targets are classes."""
        return self.loss == "cross_entropy"

    @property
    def device(self) -> torch.device:
        """Where it is trained."""
        return self.train.device

    def to(self, device: torch.device) -> "Problem":
        """Return the problem with all its rows on a device."""
        validation, test = (rows and rows.to(device) for rows in (self.validation, self.test))
        return replace(self, train=self.train.to(device), validation=validation, test=test)

    def with_length(self, length: int) -> "Problem":
        """Return a text's problem, all its rows cut to ``length`` tokens.

        Raises:
            UserError: A part of the text is too short.
        """
        assert self.cut is not None
        return replace(self.cut(length).to(self.device), channels_last=self.channels_last)

    def rows_of_batch(self, batch_size: int) -> int:
        """Return the rows of a training batch: batches of more rows than there are are all the same."""
        return min(batch_size, len(self.train))

    def batches(self, batch_size: int, seed: int) -> BatchStream:
        """Return training minibatches; a seed decides their order and augmentation."""
        return self.train.batches(batch_size, seed, self.augmentation)


def load_problem(key: str, config: StudyConfig, device: torch.device) -> Problem:
    """Return the problem that a dataset of the study poses, on a device.

    Raises:
        UserError: The dataset is unknown, or its file is missing or cannot be used.
    """
    settings = config.dataset(key)
    path = USER_FILE_LOADER if settings.path is not None else DATASETS[key].loader
    problem: Problem = resolve_name(path)(key, settings, config.data_folder, config.seed).to(device)
    return replace(problem, channels_last=config.precision.channels_last)


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
    if problem.channels_last and any(isinstance(module, nn.Conv2d) for module in model.modules()):
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        model.register_forward_pre_hook(_put_channels_last)
    return model.to(problem.device)


def _put_channels_last(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(images.contiguous(memory_format=torch.channels_last) for images in inputs)
