"""What a job of final training is asked to do.

Importing this module does not import PyTorch: the workflow asks it what decides a job's results.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adamqlr.config import StudyConfig, fingerprint
from adamqlr.study.optimizers import OPTIMIZERS
from adamqlr.training.limit import Limit
from adamqlr.training.packing import is_packed


@dataclass(frozen=True)
class SeedsJob:
    """Several seeds of one configuration.

    Attributes:
        config: The study.
        suite: Decides what bounds a run.
        dataset: What is optimized.
        optimizer: A registered name.
        hyperparameters: Keyword arguments of the optimizer, and ``batch_size``.
        seeds: The runs' seeds.
    """

    config: StudyConfig
    suite: str
    dataset: str
    optimizer: str
    hyperparameters: Mapping[str, Any]
    seeds: Sequence[int]

    @property
    def identity(self) -> str:
        """A fingerprint of everything that decides the numbers."""
        settings = self.config.dataset(self.dataset).model_dump(mode="json", exclude={"label", "runs_per_gpu"})
        training = self.config.training
        return fingerprint(
            {
                "dataset": [self.dataset, settings],
                "optimizer": [
                    self.optimizer,
                    dict(OPTIMIZERS[self.optimizer].options),
                    dict(self.hyperparameters),
                ],
                "precision": self.config.precision.model_dump(),
                "budget": self.config.suite(self.suite).budget,
                "records": [training.record_every, training.record_growth],
                "seeds": [self.config.seed, list(self.seeds)],
            }
        )

    def is_packed(self, device: str) -> bool:
        """Tell whether the seeds are to be trained side by side on a device (``cpu`` or ``cuda``)."""
        return len(self.seeds) > 1 and is_packed(self.config, self.suite, self.dataset, self.optimizer, device)

    def limit(self, steps_per_epoch: int) -> Limit:
        """Where each run ends."""
        settings = self.config.dataset(self.dataset)
        if self.config.suite(self.suite).budget == "epochs":
            return Limit(steps=settings.epochs * steps_per_epoch)
        return Limit(seconds=settings.runtime)
