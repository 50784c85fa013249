"""The study's configuration: one validated source of truth for every stage."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, model_validator

from adamqlr.errors import UserError
from adamqlr.study.datasets import DATASETS
from adamqlr.study.defaults import (
    PAPER_ABLATIONS,
    PAPER_SUITES,
    dataset_defaults,
    first_problem,
    suite_defaults,
    with_factorials,
)
from adamqlr.study.hyperparameter_names import check_cataloged, check_dataset_space, check_sweep
from adamqlr.study.names import SENSITIVITY, TUNING
from adamqlr.study.optimizer_settings import FactorialConfig, OptimizerConfig
from adamqlr.study.optimizers import OPTIMIZERS, OptimizerSpec, own_options, own_spec
from adamqlr.study.overrides import apply_override, names_to_mapping
from adamqlr.study.settings import (
    AblationConfig,
    ClaimsConfig,
    DatasetConfig,
    PrecisionConfig,
    Section,
    StatisticsConfig,
    SuiteConfig,
    SweepConfig,
    TrainingConfig,
    TuningConfig,
)
from adamqlr.study.space import Space

Part = TypeVar("Part")

_FILE_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"


def _check_names(where: str, names: Iterable[str] | None, known: Iterable[str]) -> None:
    if names == ():
        raise ValueError(f"{where}: none is named: leave it out where all are meant")
    for name in names or ():
        if name not in known:
            raise ValueError(f"{where}: unknown '{name}': this study has {', '.join(known)}")


# Models whose rows are no table's and no images', and what they are for.
_PARTICULAR_MODELS = {"gpt2": "text", "rosenbrock": "a function"}


def _check_model(key: str, dataset: DatasetConfig) -> None:
    """Refuse a model that reads other rows than a dataset has, which only its first job would find."""
    # A file of one's own holds a table or images.
    usual = "mlp" if dataset.path is not None else DATASETS[key].defaults["model"]
    if dataset.model != usual and _PARTICULAR_MODELS.keys() & {dataset.model, usual}:
        rows = _PARTICULAR_MODELS.get(usual, "tables or images")
        known = usual if usual in _PARTICULAR_MODELS else "mlp, resnet18, resnet50"
        raise ValueError(f"datasets.{key}.model: '{dataset.model}' is not for {rows}: use {known}")


def _find(kind: str, key: str, known: Mapping[str, Part]) -> Part:
    if key not in known:
        raise UserError(f"unknown {kind} '{key}': this study has {', '.join(known) or 'none'}")
    return known[key]


class StudyConfig(Section):
    """A whole study.

    Attributes:
        name: Names the folder under ``results/``.
        seed: Everything random derives from it.
        device: ``auto`` is CUDA where there is a device, else the CPU. In a Slurm job that has a GPU it is CUDA, or an
            error where PyTorch finds none.
        data_dir: The data folder; the environment variable ``ADAMQLR_DATA_DIR`` comes before it.
        suites: The suites to run, by name; ``epochs`` alone if not given. ``epochs``, ``runtime_train`` and
            ``runtime_validation`` are known by name.
        datasets: The datasets, by name.
        optimizers: The optimizers, by name.
        tuning: How hyperparameters are tuned.
        training: How the best are trained.
        precision: How convolutional networks are computed.
        factorials: Directions × heuristics, by name; their optimizers join the others.
        sensitivity: Sensitivity studies, by name.
        ablations: Ablations, by name; the paper's ``damping`` and ``curvature`` if not given.
        statistics: How results are reduced.
        claims: How claims are judged.
    """

    name: str = Field(pattern=_FILE_NAME)
    seed: int = Field(default=0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    data_dir: Path = Path("data")
    suites: Annotated[dict[str, SuiteConfig], BeforeValidator(suite_defaults)] = Field(
        default_factory=lambda: {"epochs": SuiteConfig(**PAPER_SUITES["epochs"])}  # type: ignore[arg-type]
    )
    datasets: Annotated[dict[str, DatasetConfig], BeforeValidator(dataset_defaults)]
    optimizers: Annotated[
        dict[Annotated[str, Field(pattern=_FILE_NAME)], OptimizerConfig], BeforeValidator(names_to_mapping)
    ]
    tuning: TuningConfig = TuningConfig()
    training: TrainingConfig = TrainingConfig()
    precision: PrecisionConfig = PrecisionConfig()
    factorials: dict[Annotated[str, Field(pattern=_FILE_NAME)], FactorialConfig] = Field(default_factory=dict)
    sensitivity: dict[Annotated[str, Field(pattern=_FILE_NAME)], SweepConfig] = Field(default_factory=dict)
    ablations: dict[Annotated[str, Field(pattern=_FILE_NAME)], AblationConfig] = Field(
        default_factory=lambda: {key: AblationConfig.model_validate(value) for key, value in PAPER_ABLATIONS.items()}
    )
    statistics: StatisticsConfig = StatisticsConfig()
    claims: ClaimsConfig = ClaimsConfig()

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        data = with_factorials(data)
        optimizers = data.get("optimizers")
        for key, settings in optimizers.items() if isinstance(optimizers, Mapping) else ():
            is_own = isinstance(settings, Mapping) and (settings.get("optimizer") or settings.get("direction"))
            if key in OPTIMIZERS and is_own:
                raise ValueError(f"optimizer '{key}' is one of the catalog: choose another name for your own")
            if key not in OPTIMIZERS and not is_own:
                raise ValueError(
                    f"unknown optimizer '{key}': known are {', '.join(OPTIMIZERS)}; one of your own needs an "
                    "'optimizer' or a 'direction', such as torch.optim:NAdam"
                )
        datasets = data.get("datasets")
        for key, settings in {} if isinstance(datasets, str) else (names_to_mapping(datasets) or {}).items():
            if key not in DATASETS and not (isinstance(settings, Mapping) and settings.get("path")):
                raise ValueError(
                    f"unknown dataset '{key}': known are {', '.join(DATASETS)}; a file of your own needs a 'path'"
                )
            if not str(key).replace("_", "").replace("-", "").isalnum():
                raise ValueError(f"dataset name '{key}': use letters, digits, '_' and '-'")
        return data

    @model_validator(mode="after")
    def _check_references(self, info: ValidationInfo) -> "StudyConfig":
        may_lack_code, is_complete = ((info.context or {}).get(name) for name in ("may_lack_code", "is_complete"))
        for part in ("suites", "datasets", "optimizers"):
            if not getattr(self, part):
                raise ValueError(f"{part}: none is named: a study has at least one")
        for name in self.suites:
            if not re.fullmatch(_FILE_NAME, name):
                raise ValueError(f"suites: '{name}' is no file's name: use letters, digits, '_', '-' and '.'")
            if name in (SENSITIVITY, TUNING):
                raise ValueError(f"suites: '{name}' is the name of another part of the results")
        for name, sweep in self.sensitivity.items():
            for kind, key, known in (
                ("dataset", sweep.dataset, self.datasets),
                ("optimizer", sweep.optimizer, self.optimizers),
                ("suite", sweep.suite, self.suites),
            ):
                if key not in known:
                    raise ValueError(f"sensitivity.{name}: unknown {kind} '{key}': this study has {', '.join(known)}")
            if not may_lack_code:
                check_sweep(name, sweep, self.spec(sweep.optimizer), self.datasets[sweep.dataset])
        for name, ablation in self.ablations.items():
            for key in ablation.optimizers:
                if key not in OPTIMIZERS and key not in self.optimizers:
                    raise ValueError(f"ablations.{name}: unknown optimizer '{key}': known are {', '.join(OPTIMIZERS)}")
            _check_names(f"ablations.{name}.datasets", ablation.datasets, self.datasets)
        for key, dataset in self.datasets.items():
            _check_names(f"datasets.{key}.optimizers", dataset.optimizers, self.optimizers)
            default = DATASETS[key].defaults.get("suites") if key in DATASETS else None
            if default is None or dataset.suites != tuple(default):
                _check_names(f"datasets.{key}.suites", dataset.suites, self.suites)
            if not is_complete:
                _check_model(key, dataset)
            if dataset.model == "rosenbrock" and dataset.objective == "validation_loss":
                raise ValueError(f"datasets.{key}.objective: a function has no validation set: train_loss is its value")
            check_dataset_space(key, dataset, map(self.space, self.optimizers))
        for key, optimizer in self.optimizers.items():
            _check_names(f"optimizers.{key}.datasets", optimizer.datasets, self.datasets)
            _check_names(f"optimizers.{key}.suites", optimizer.suites, self.suites)
            if key in OPTIMIZERS and not may_lack_code:
                check_cataloged(key, optimizer)
        for name in self.suites:
            if not is_complete and not any(self.optimizers_of(name, dataset) for dataset in self.datasets_of(name)):
                raise ValueError(f"suites.{name}: none of the datasets and optimizers takes part in it")
        return self

    @property
    def data_folder(self) -> Path:
        """The data folder in force."""
        return Path(os.environ.get("ADAMQLR_DATA_DIR") or self.data_dir)

    def dataset(self, key: str) -> DatasetConfig:
        """Return the dataset's settings.

        Raises:
            UserError: The study has no such dataset.
        """
        return _find("dataset", key, self.datasets)

    def optimizer(self, key: str) -> OptimizerConfig:
        """Return the optimizer's settings.

        Raises:
            UserError: The study has no such optimizer.
        """
        return _find("optimizer", key, self.optimizers)

    def suite(self, key: str) -> SuiteConfig:
        """Return the suite's settings.

        Raises:
            UserError: The study has no such suite.
        """
        return _find("suite", key, self.suites)

    def sweep(self, key: str) -> SweepConfig:
        """Return a sensitivity study.

        Raises:
            UserError: The study has no such part.
        """
        return _find("sensitivity study", key, self.sensitivity)

    def spec(self, key: str) -> OptimizerSpec:
        """Return what one of the study's optimizers is.

        Raises:
            UserError: The study has no such optimizer.
        """
        settings = self.optimizer(key)
        own = [name for name in self.optimizers if name not in OPTIMIZERS]
        spec = OPTIMIZERS[key] if key in OPTIMIZERS else own_spec(key, settings, own.index(key))
        label, family = settings.label or spec.label, settings.family or spec.family
        return replace(spec, schedule=settings.schedule, label=label, family=family)

    def space(self, optimizer: str) -> Space:
        """Return what is tuned for an optimizer in general; empty if nothing is."""
        settings = self.optimizer(optimizer)
        space = {**self.spec(optimizer).space, **settings.space}
        return {name: distribution for name, distribution in space.items() if name not in own_options(settings)}

    @property
    def factorial_optimizers(self) -> frozenset[str]:
        """The optimizers that are here as a factorial's, for its own figures, and not in the curves of the others."""
        return frozenset(name for factorial in self.factorials.values() for name in factorial.optimizers())

    def factorials_of(self, suite: str) -> list[str]:
        """Return the factorials of which a suite trains something that has a test set."""
        datasets = [key for key in self.datasets_of(suite) if self.dataset(key).model != "rosenbrock"]
        trained = {optimizer for key in datasets for optimizer in self.optimizers_of(suite, key)}
        return [name for name, own in self.factorials.items() if trained.intersection(own.optimizers())]

    def optimizers_of(self, suite: str, dataset: str) -> list[str]:
        """Return the optimizers that a suite trains on a dataset."""
        wanted = self.dataset(dataset).optimizers or self.optimizers
        return [
            key
            for key, own in self.optimizers.items()
            if key in wanted and dataset in (own.datasets or (dataset,)) and suite in (own.suites or (suite,))
        ]

    def datasets_of(self, suite: str) -> list[str]:
        """Return the datasets that take part in a suite."""
        return [key for key, own in self.datasets.items() if own.suites is None or suite in own.suites]

    def dataset_label(self, key: str) -> str:
        """Return the dataset's name for figures and tables."""
        return self.dataset(key).label or (DATASETS[key].label if key in DATASETS else key)


def load_config(path: Path, overrides: Iterable[str] = (), may_lack_code: bool = False) -> StudyConfig:
    """Return a study's configuration, read from a file and validated.

    Args:
        path: A YAML file.
        overrides: ``section.key=value`` settings that come before the file's, such as ``training.seeds=3``.
        may_lack_code: As for :func:`parse_config`.

    Raises:
        UserError: The file is missing or no YAML, or a setting is unknown or out of range; the message names it.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected a mapping of settings")
    for override in overrides:
        apply_override(data, override)
    return parse_config(data, str(path), may_lack_code=may_lack_code)


def parse_config(
    data: Mapping[str, Any], source: str, *, may_lack_code: bool = False, is_complete: bool = False
) -> StudyConfig:
    """Return a configuration that is already read, validated.

    Args:
        data: The configuration.
        source: Named in errors.
        may_lack_code: Whether optimizers of one's own, and schedules, need not be there any more.
        is_complete: Whether it is that of a result file, whose datasets have all of their settings.

    Raises:
        UserError: A setting is unknown or out of range.
    """
    context = {"may_lack_code": may_lack_code, "is_complete": is_complete}
    try:
        return StudyConfig.model_validate(data, context=context)
    except ValidationError as error:
        raise UserError(f"{source}: {first_problem(error)}") from error
