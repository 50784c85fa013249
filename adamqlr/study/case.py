"""A case: one optimizer on one dataset in one suite of a study, and all that follows from that.

Importing this module does not import PyTorch: the workflow asks it what to run, and what decides the results.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adamqlr.errors import UserError
from adamqlr.study.config import StudyConfig, fingerprint
from adamqlr.study.datasets import DATASETS
from adamqlr.study.import_paths import contents_hash
from adamqlr.study.limit import Limit
from adamqlr.study.optimizers import OptimizerSpec, own_options
from adamqlr.study.settings import DatasetConfig, Objective
from adamqlr.study.space import Space, draw_configurations

# What does not decide a run's numbers.
_UNDECISIVE = {"label", "runs_per_gpu", "optimizers"}


@dataclass(frozen=True)
class Case:
    """One optimizer on one dataset in one suite.

    Attributes:
        study: The study's configuration.
        suite: Decides what bounds a run, and what tuning minimizes.
        dataset: What is optimized.
        optimizer: One of the study's optimizers.

    Raises:
        UserError: The study has no such part.
    """

    study: StudyConfig
    suite: str
    dataset: str
    optimizer: str

    def __post_init__(self) -> None:
        self.study.suite(self.suite)
        self.study.dataset(self.dataset)
        self.study.optimizer(self.optimizer)

    def __str__(self) -> str:
        return f"{self.dataset}/{self.optimizer}"

    @property
    def path(self) -> str:
        """Where its files lie among others: suite/dataset/optimizer."""
        return f"{self.suite}/{self.dataset}/{self.optimizer}"

    @property
    def spec(self) -> OptimizerSpec:
        """What the optimizer is."""
        return self.study.spec(self.optimizer)

    @property
    def settings(self) -> DatasetConfig:
        """The dataset's settings."""
        return self.study.dataset(self.dataset)

    @property
    def is_trajectory(self) -> bool:
        """Whether the problem is a function of few parameters, without a test set."""
        return self.settings.model == "rosenbrock"

    @property
    def is_fetched(self) -> bool:
        """Whether its data is downloaded where it is not there, and neither embedded nor the user's own."""
        return self.settings.path is None and DATASETS[self.dataset].fetcher is not None

    @property
    def by_epochs(self) -> bool:
        """Whether runs end after epochs, and not after seconds."""
        return self.study.suite(self.suite).budget == "epochs"

    @property
    def objective(self) -> Objective:
        """The loss that tuning minimizes."""
        return self.settings.objective or self.study.suite(self.suite).objective

    @property
    def seeds(self) -> range:
        """The seeds of the final runs."""
        return range(self.settings.seeds or self.study.training.seeds)

    @property
    def space(self) -> Space:
        """What is tuned; empty if nothing is."""
        space = self.study.space(self.optimizer)
        if self.settings.fixed_batch_size:
            space = {name: distribution for name, distribution in space.items() if name != "batch_size"}
        return space

    @property
    def is_tuned(self) -> bool:
        """Whether there is anything to tune."""
        return bool(self.space)

    def limit(self, steps_per_epoch: int) -> Limit:
        """Return where a final run ends."""
        if self.by_epochs:
            return Limit(steps=self.settings.epochs * steps_per_epoch)
        return Limit(seconds=self.settings.runtime)

    def hyperparameters(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``batch_size`` and the optimizer's keyword arguments: the catalogue's, then configured, then chosen.

        Raises:
            UserError: One that must be given is missing, or the batch size is no number of rows.
        """
        spec, settings, own = self.spec, self.settings, self.study.optimizer(self.optimizer)
        batch_size = settings.batch_size
        if not settings.fixed_batch_size:
            batch_size = own.batch_size or spec.batch_size or batch_size
        merged = {"batch_size": batch_size, **spec.options, **own_options(own), **chosen}
        missing = [name for name in spec.required if name not in merged]
        if missing:
            raise UserError(missing_values(self.optimizer, missing))
        size = merged["batch_size"]
        if not isinstance(size, int) or size < 1:
            raise UserError(f"optimizer '{self.optimizer}': batch_size must be a positive whole number, got {size!r}")
        return merged

    # Tuning.

    @property
    def rungs(self) -> list[float]:
        """The resource at each rung, in the unit of the tuning: the last is where a trial is complete."""
        tuning = self.study.tuning
        limit = tuning.limit if self.by_epochs or tuning.unit == "epochs" else self.settings.runtime
        if self.by_epochs and tuning.unit == "epochs":
            limit = min(limit, self.settings.epochs)
        resources, resource = [], tuning.first_rung
        while resource < limit:
            resources.append(resource)
            resource *= tuning.reduction_factor
        return [*resources, limit]

    def rung_limit(self, rung: int, steps_per_epoch: int) -> Limit:
        """Return how far a trial trains to reach a rung."""
        resource = self.rungs[rung]
        if self.study.tuning.unit == "epochs":
            return Limit(steps=max(1, round(resource * steps_per_epoch)))
        return Limit(steps=self.limit(steps_per_epoch).steps, seconds=resource)

    def configurations(self) -> list[dict[str, Any]]:
        """Return every configuration of the search, in order."""
        # The search's own seed, so that two searches do not share their draws.
        key = int(fingerprint([self.suite, self.dataset, self.optimizer, self.study.seed]), 16) % 2**32
        return draw_configurations(self.space, self.study.tuning.trials, key)

    # Side by side.

    @property
    def can_pack(self) -> bool:
        """Whether runs may be trained side by side, which can be done to perceptrons for a number of steps."""
        return (
            self.study.training.pack != "never"
            and self.by_epochs
            and self.settings.model == "mlp"
            and self.settings.augmentation == "none"
            and self.spec.packable
        )

    @property
    def can_pack_trials(self) -> bool:
        """Whether configurations of a search may be trained side by side."""
        return self.can_pack and set(self.space) - {"batch_size"} <= set(self.spec.member_options)

    # What decides results.

    def training_fingerprint(self, hyperparameters: Mapping[str, Any], seeds: Sequence[int]) -> str:
        """Return a fingerprint of everything that decides final runs' numbers."""
        training = self.study.training
        return fingerprint(
            {
                "dataset": [self.dataset, self._decisive_settings()],
                "optimizer": [self.optimizer, dict(self.spec.options), dict(hyperparameters), *self._own()],
                "precision": self.study.precision.model_dump(),
                "budget": self.study.suite(self.suite).budget,
                "records": [training.record_every, training.record_growth],
                "seeds": [self.study.seed, list(seeds)],
            }
        )

    def search_fingerprint(self) -> str:
        """Return a fingerprint of everything that decides the trials."""
        space = {name: distribution.model_dump(mode="json") for name, distribution in self.space.items()}
        return fingerprint(
            {
                "dataset": [self.dataset, self._decisive_settings()],
                "optimizer": [self.optimizer, space, self.study.optimizer(self.optimizer).options, *self._own()],
                "precision": self.study.precision.model_dump(),
                "suite": self.study.suite(self.suite).model_dump(mode="json"),
                "tuning": self.study.tuning.model_dump(mode="json", exclude={"shards"}),
                "seed": self.study.seed,
            }
        )

    def _decisive_settings(self) -> dict[str, Any]:
        return self.settings.model_dump(mode="json", exclude=_UNDECISIVE)

    def _own(self) -> list[Any]:
        """Return what an optimizer of one's own is, its source included."""
        settings, wraps = self.study.optimizer(self.optimizer), self.spec.wraps
        if wraps is None:
            return []
        return [wraps, settings.heuristics, settings.batch_size, contents_hash(wraps)]


def missing_values(optimizer: str, names: Sequence[str]) -> str:
    """Say which hyperparameters have no value, and how to give them one."""
    return (
        f"optimizer '{optimizer}': no value for {', '.join(names)}: "
        "give tuned ones with --best, or set them with --set optimizer.NAME=VALUE"
    )


def cases_of(study: StudyConfig, suite: str) -> list[Case]:
    """Return the cases of a suite, by dataset and optimizer as in the configuration."""
    return [
        Case(study, suite, dataset, optimizer)
        for dataset in study.datasets_of(suite)
        for optimizer in study.optimizers_on(dataset)
    ]
