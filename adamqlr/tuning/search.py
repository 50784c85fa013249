"""A search for hyperparameters: its configurations and its rungs.

Importing this module does not import PyTorch: the workflow asks it what decides a search's results.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from adamqlr.config import StudyConfig, fingerprint
from adamqlr.space import Space
from adamqlr.study.optimizers import OPTIMIZERS
from adamqlr.training.limit import Limit
from adamqlr.training.packing import is_packed

# The file beside shards' outputs through which they share what they found.
JOURNAL = ".journal"


@dataclass(frozen=True)
class Search:
    """The search for one pair's hyperparameters.

    Attributes:
        config: The study.
        suite: Decides objective and budget.
        dataset: What is optimized.
        optimizer: A registered name.
    """

    config: StudyConfig
    suite: str
    dataset: str
    optimizer: str

    @property
    def objective(self) -> str:
        """The loss that is minimized."""
        return self.config.objective(self.suite, self.dataset)

    @property
    def resources(self) -> list[float]:
        """The resource at each rung."""
        return rung_resources(self.config, self.suite, self.dataset)

    @property
    def identity(self) -> str:
        """A fingerprint of everything that decides the trials."""
        settings = self.config.dataset(self.dataset).model_dump(mode="json", exclude={"label", "runs_per_gpu"})
        space = {name: d.model_dump(mode="json") for name, d in self.config.space(self.optimizer, self.dataset).items()}
        return fingerprint(
            {
                "dataset": [self.dataset, settings],
                "optimizer": [self.optimizer, space, self.config.optimizer(self.optimizer).options],
                "precision": self.config.precision.model_dump(),
                "suite": self.config.suite(self.suite).model_dump(mode="json"),
                "tuning": self.config.tuning.model_dump(mode="json", exclude={"shards"}),
                "seed": self.config.seed,
            }
        )

    def is_packed(self, device: str) -> bool:
        """Tell whether configurations are to be trained side by side on a device (``cpu`` or ``cuda``)."""
        differing = set(self.config.space(self.optimizer, self.dataset)) - {"batch_size"}
        return (
            self.config.tuning.trials > 1
            and differing <= set(OPTIMIZERS[self.optimizer].member_options)
            and is_packed(self.config, self.suite, self.dataset, self.optimizer, device)
        )

    def configurations(self) -> list[dict[str, Any]]:
        """Every configuration of the search, in order."""
        # The search's own seed, so that two searches do not share their draws.
        key = int(fingerprint([self.suite, self.dataset, self.optimizer, self.config.seed]), 16) % 2**32
        return draw_configurations(self.config.space(self.optimizer, self.dataset), self.config.tuning.trials, key)


def draw_configurations(space: Space, count: int, seed: int) -> list[dict[str, Any]]:
    """Draw ``count`` random configurations; the same for every shard of the same study."""
    generator = np.random.default_rng(np.random.SeedSequence([seed, 2]))
    return [{name: space[name].draw(generator) for name in sorted(space)} for _ in range(count)]


def rung_resources(config: StudyConfig, suite: str, dataset: str) -> list[float]:
    """Return the resource at each rung, in the unit of ``config.tuning``: the last is where a trial is complete."""
    tuning, settings = config.tuning, config.dataset(dataset)
    by_epochs = config.suite(suite).budget == "epochs"
    limit = tuning.limit if by_epochs or tuning.unit == "epochs" else settings.runtime
    if by_epochs and tuning.unit == "epochs":
        limit = min(limit, settings.epochs)
    resources, resource = [], tuning.first_rung
    while resource < limit:
        resources.append(resource)
        resource *= tuning.reduction_factor
    return [*resources, limit]


def rung_limit(config: StudyConfig, suite: str, dataset: str, resource: float, steps_per_epoch: int) -> Limit:
    """Return how far a trial trains to reach a rung."""
    if config.tuning.unit == "epochs":
        return Limit(steps=max(1, round(resource * steps_per_epoch)))
    if config.suite(suite).budget == "epochs":
        return Limit(steps=config.dataset(dataset).epochs * steps_per_epoch, seconds=resource)
    return Limit(seconds=resource)
