"""A case: one optimizer on one dataset in one suite of a study, and all that follows from that.

Importing this module does not import PyTorch: the workflow asks it what to run, and what decides the results.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from adamqlr.errors import UserError
from adamqlr.study.config import StudyConfig
from adamqlr.study.datasets import DATASETS
from adamqlr.study.fingerprint import fingerprint
from adamqlr.study.import_paths import contents_hash
from adamqlr.study.limit import Limit
from adamqlr.study.optimizers import OptimizerSpec, own_options
from adamqlr.study.settings import DatasetConfig, Objective, PrecisionConfig
from adamqlr.study.space import Space, draw_configurations

# What does not decide a run's numbers, though the last two decide a search.
_UNDECISIVE = {"label", "runs_per_gpu", "optimizers", "space", "tuning_limit"}
_CONVOLUTIONAL = ("resnet18", "resnet50")
# What decides some numbers and not others.
_CONDITIONAL = ("epochs", "runtime", "objective", "seeds", "suites")


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
        space, settings = self.study.space(self.optimizer), self.settings
        if not space:
            return {}
        fixed = set(own_options(self.study.optimizer(self.optimizer)))
        if settings.fixed_batch_size:
            fixed.add("batch_size")
        here = space.keys() | settings.data_hyperparameters.keys()
        own = {name: distribution for name, distribution in settings.space.items() if name in here}
        return {name: distribution for name, distribution in {**space, **own}.items() if name not in fixed}

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
        """Return the data's, and the optimizer's keyword arguments: the catalog's, then configured, then chosen.

        Raises:
            UserError: One that must be given is missing, or one of the data's is no number of rows or tokens.
        """
        spec, settings, own = self.spec, self.settings, self.study.optimizer(self.optimizer)
        of_data = settings.data_hyperparameters
        if not settings.has_own_batch_size:
            of_data["batch_size"] = own.batch_size or spec.batch_size or settings.batch_size
        merged = {**of_data, **spec.options, **own_options(own), **chosen}
        missing = [name for name in spec.required if name not in merged]
        if missing:
            raise UserError(missing_values(self.optimizer, missing))
        for name in of_data:
            if not isinstance(merged[name], int) or merged[name] < 1:
                problem = f"{name} must be a positive whole number, got {merged[name]!r}"
                raise UserError(f"optimizer '{self.optimizer}': {problem}")
        return merged

    def check_tuned(self, chosen: Mapping[str, Any]) -> None:
        """See that an optimizer that is tuned does not train untuned under its name.

        Args:
            chosen: Hyperparameters on top of the catalog's and configured ones.

        Raises:
            UserError: A search would choose some, and there are none, or one that must be is missing.
        """
        self.hyperparameters(chosen)
        tuned = [name for name in self.space if name not in self.settings.data_hyperparameters]
        if tuned and not chosen:
            raise UserError(missing_values(self.optimizer, tuned))

    # Tuning.

    @property
    def rungs(self) -> list[float]:
        """The resource at each rung, in the unit of the tuning: the last is where a trial is complete."""
        tuning, settings, limit = self.study.tuning, self.settings, self.study.tuning.limit
        if tuning.unit != "epochs":
            limit = settings.tuning_limit or limit if self.by_epochs else settings.runtime
        elif self.by_epochs:
            limit = min(limit, settings.epochs)
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

    @property
    def data_choices(self) -> list[tuple[int, ...]]:
        """Every combination of values that the data's hyperparameters have in the search."""
        space, fixed = self.space, self.hyperparameters(self.configurations()[0])
        names = self.settings.data_hyperparameters
        return list(product(*(space[name].values if name in space else (fixed[name],) for name in names)))

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
                "dataset": [self.dataset, self._decisive_settings(self._budget)],
                "optimizer": [self.optimizer, dict(self.spec.options), dict(hyperparameters), *self._own()],
                "precision": self._precision,
                "budget": self.study.suite(self.suite).budget,
                "records": [training.record_every, training.record_growth],
                "seeds": [self.study.seed, list(seeds)],
            }
        )

    @property
    def split(self) -> str:
        """What orders the rows before they are split, if a file may: its hash, or ``"drawn"``; else nothing."""
        name = DATASETS[self.dataset].split_file if self.dataset in DATASETS else None
        if name is None:
            return ""
        path = self.study.data_folder / self.dataset / name
        return fingerprint(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else "drawn"

    def step_costs_fingerprint(self) -> str:
        """Return a fingerprint of what step costs are of."""
        options = [dict(self.spec.options), self.study.optimizer(self.optimizer).options, *self._own()]
        dataset = [self.dataset, self._decisive_settings(), self.data_choices]
        return fingerprint([dataset, self.optimizer, options, self._precision])

    def search_fingerprint(self) -> str:
        """Return a fingerprint of everything that decides the trials; the step costs that they count in do, too."""
        space = {name: distribution.model_dump(mode="json") for name, distribution in self.space.items()}
        limit = self.settings.model_dump(include={"tuning_limit"}, exclude_none=True)
        return fingerprint(
            {
                "dataset": [self.dataset, {**self._decisive_settings(self._budget, "objective"), **limit}],
                "optimizer": [self.optimizer, space, self.study.optimizer(self.optimizer).options, *self._own()],
                "precision": self._precision,
                "suite": self.study.suite(self.suite).model_dump(mode="json"),
                "tuning": self.study.tuning.model_dump(mode="json", exclude={"shards"}),
                "seed": self.study.seed,
            }
        )

    @property
    def _precision(self) -> dict[str, Any]:
        """How precisely is computed what is computed in more than one precision: convolutions alone."""
        has_convolutions = self.settings.model in _CONVOLUTIONAL
        return (self.study.precision if has_convolutions else PrecisionConfig()).model_dump()

    @property
    def _budget(self) -> str:
        """The setting of the dataset that bounds a run."""
        return "epochs" if self.by_epochs else "runtime"

    def _decisive_settings(self, *conditions: str) -> dict[str, Any]:
        """Return the dataset's settings that decide; of the conditional ones those named, and else the usual ones."""
        decisive = self.settings.model_dump(mode="json", exclude=_UNDECISIVE)
        usual = DATASETS[self.dataset].defaults if self.dataset in DATASETS else {}
        for name in set(_CONDITIONAL).difference(conditions):
            decisive[name] = usual.get(name, DatasetConfig.model_fields[name].get_default())
        # Optimizers that do not tune the batch size then take the dataset's.
        return {**decisive, "has_own_batch_size": True} if "batch_size" in self.settings.space else decisive

    def _own(self) -> list[Any]:
        """Return what an optimizer of one's own is, and a schedule, their sources included."""
        settings, wraps = self.study.optimizer(self.optimizer), self.spec.wraps
        own: list[Any] = []
        if wraps is not None:
            own += [wraps, settings.heuristics, settings.batch_size, contents_hash(wraps)]
        elif settings.batch_size is not None:
            own.append({"batch_size": settings.batch_size})
        if (schedule := settings.schedule) is not None:
            own.append([schedule.model_dump(mode="json"), contents_hash(schedule.scheduler)])
        return own


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
        for optimizer in study.optimizers_of(suite, dataset)
    ]
