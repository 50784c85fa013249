"""The sections of the configuration that say what an optimizer is: of the catalog, of one's own, of a factorial."""

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field, PositiveInt, ValidationInfo, model_validator

from adamqlr.study.import_paths import keywords_of
from adamqlr.study.overrides import Options
from adamqlr.study.settings import Section
from adamqlr.study.space import Space, check_whole_numbers


class ScheduleConfig(Section):
    """A learning-rate schedule; under heuristics the scheduled rate, from 1, is a factor of the chosen one.

    Attributes:
        scheduler: ``module:Class`` or ``file.py:Class`` of a scheduler of PyTorch's kind, such as
            ``torch.optim.lr_scheduler:StepLR``.
        options: Keyword arguments of the scheduler.
        per: What it counts: ``epoch`` or ``step``.
    """

    scheduler: str
    options: Options = Field(default_factory=dict)
    per: Literal["epoch", "step"] = "epoch"

    @model_validator(mode="after")
    def _check_options(self, info: ValidationInfo) -> "ScheduleConfig":
        if not (info.context or {}).get("may_lack_code"):
            _check_options("options", self.options, keywords_of(self.scheduler))
        return self


class OptimizerConfig(Section):
    """Changes to one optimizer of the catalog, or an optimizer of one's own.

    Attributes:
        optimizer: ``module:Class`` or ``file.py:Class`` of an optimizer of one's own: one of PyTorch's kind, or a class
            ``(model, loss, **options)`` with ``step(inputs, targets)``. Files are relative to where the program runs.
        direction: What :class:`adamqlr.QLR` puts its heuristics on: ``gradient``, ``adam``, ``kronecker``, or
            ``module:Class`` or ``file.py:Class`` of an optimizer of PyTorch's kind or a :class:`adamqlr.Direction`.
        heuristics: Keyword arguments of :class:`adamqlr.QLR`, where a direction is given.
        options: Fixed keyword arguments of the optimizer, on top of the catalog's, or of the direction.
        space: Distributions that replace or join the catalog's; of a direction's heuristics, and of its own options
            as ``direction.NAME``.
        schedule: How the learning rate changes while it trains; of the catalog's optimizers too. With one, steps are
            not captured, and runs are not trained side by side.
        batch_size: Rows a step, where it is neither tuned nor the dataset's.
        label: Its name in figures and tables.
        family: What it is a variant of.
        datasets: The only datasets it is trained on; all of them if not given.
        suites: The only suites it takes part in; all of them if not given.
    """

    optimizer: str | None = None
    direction: str | None = None
    heuristics: Options = Field(default_factory=dict)
    options: Options = Field(default_factory=dict)
    space: Space = Field(default_factory=dict)
    schedule: ScheduleConfig | None = None
    batch_size: PositiveInt | None = None
    label: str | None = None
    family: str | None = None
    datasets: tuple[str, ...] | None = None
    suites: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _check_what_it_is(self, info: ValidationInfo) -> "OptimizerConfig":
        check_whole_numbers("batch_size", self.space)
        prefix = "" if self.direction is None else DIRECTION
        both = sorted({prefix + name for name in self.options} & self.space.keys())
        if both and not (info.context or {}).get("is_complete"):
            raise ValueError(f"space: '{both[0]}' is tuned, and fixed by options: drop one of them")
        if self.optimizer and self.direction:
            raise ValueError("'optimizer' and 'direction' are both given: one of them says what it is")
        if self.options and self.direction in DIRECTIONS:
            raise ValueError(f"options: the direction '{self.direction}' has none: give them as heuristics")
        tuned = sorted(name for name in self.space if name.startswith(DIRECTION))
        if tuned and self.direction in DIRECTIONS:
            raise ValueError(f"space: '{tuned[0]}': the direction '{self.direction}' has no options: tune heuristics")
        if self.heuristics and not self.direction:
            raise ValueError("'heuristics' need a 'direction' that they choose the learning rate for")
        if (info.context or {}).get("may_lack_code"):
            # Results outlive the files and packages that made them.
            return self
        known = _known_options(self.optimizer or self.direction)
        # The data's, of which an optimizer knows nothing.
        _check_options("options", set(self.options) - ({"batch_size", "length"} if self.optimizer else set()), known)
        space = set(self.space) - {"batch_size"}
        if self.direction:
            heuristics = keywords_of("adamqlr.optim.qlr:QLR")
            its_own = {name.removeprefix(DIRECTION) for name in space if name.startswith(DIRECTION)}
            _check_options("heuristics", self.heuristics, heuristics)
            _check_options("space", space - {DIRECTION + name for name in its_own}, heuristics)
            _check_options("space", its_own, known)
        elif self.optimizer:
            _check_options("space", space, known)
        return self


# Names directions that adamqlr.QLR has of its own, and what stands before their options among the heuristics'.
DIRECTIONS = ("gradient", "adam", "kronecker")
DIRECTION = "direction."


def _known_options(path: str | None) -> frozenset[str] | None:
    """Return a class's keyword arguments, as far as they can be known without importing it."""
    if path is None or path in DIRECTIONS:
        return None
    try:
        return keywords_of(path)
    except ValueError as error:
        hint = f"; directions by name are {', '.join(DIRECTIONS)}" if ":" not in path else ""
        raise ValueError(f"{error}{hint}") from error


def _check_options(where: str, names: Iterable[str], known: frozenset[str] | None) -> None:
    for name in names:
        if known is not None and name not in known:
            raise ValueError(f"{where}: unknown option '{name}': known are {', '.join(sorted(known))}")


class FactorConfig(Section):
    """A direction of a factorial, or a combination of heuristics: what it adds to each optimizer it is part of.

    Attributes:
        label: Its name in figures and tables.
        optimizer: As for an optimizer: a class that has the heuristics as keyword arguments, such as ``adamqlr:KFAC``.
        direction: As for an optimizer.
        options: Fixed options of the direction.
        heuristics: Fixed heuristics.
        space: What is tuned.
    """

    label: str | None = None
    optimizer: str | None = None
    direction: str | None = None
    options: Options = Field(default_factory=dict)
    heuristics: Options = Field(default_factory=dict)
    space: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_what_it_is(self) -> "FactorConfig":
        if self.optimizer and self.direction:
            raise ValueError("'optimizer' and 'direction' are both given: one of them says what it is")
        return self


class FactorialConfig(Section):
    """Every direction with every combination of heuristics; each pair is an optimizer ``DIRECTION-HEURISTICS``.

    What a direction fixes or tunes itself stays so in every combination: K-FAC keeps a damping where others have none.

    Attributes:
        directions: The directions, by name.
        heuristics: The combinations of heuristics, by name; the others are measured against the first.
        datasets: The only datasets; all of them if not given.
        suites: The only suites; all of them if not given.
        batch_size: Rows a step, where it is not tuned; the dataset's if not given.
    """

    directions: dict[str, FactorConfig] = Field(min_length=1)
    heuristics: dict[str, FactorConfig] = Field(min_length=2)
    datasets: tuple[str, ...] | None = None
    suites: tuple[str, ...] | None = None
    batch_size: PositiveInt | None = None

    def optimizers(self) -> dict[str, dict[str, Any]]:
        """Return the settings of each pair's optimizer, by name."""
        return {
            self.optimizer_of(direction, heuristics): self._optimizer(direction, heuristics)
            for direction in self.directions
            for heuristics in self.heuristics
        }

    @staticmethod
    def optimizer_of(direction: str, heuristics: str) -> str:
        """Return the name of a pair's optimizer."""
        return f"{direction}-{heuristics}"

    @property
    def first(self) -> str:
        """The heuristics that the others are measured against."""
        return next(iter(self.heuristics))

    def direction_label(self, name: str) -> str:
        """Return a direction's name in figures and tables."""
        return self.directions[name].label or name

    def heuristics_label(self, name: str) -> str:
        """Return the name that a combination of heuristics has in figures and tables."""
        return self.heuristics[name].label or name

    def _optimizer(self, direction: str, heuristics: str) -> dict[str, Any]:
        base, added = self.directions[direction], self.heuristics[heuristics]
        chosen = {name: value for name, value in added.heuristics.items() if name not in base.space} | base.heuristics
        space = {name: values for name, values in added.space.items() if name not in base.heuristics} | base.space
        settings: dict[str, Any] = {
            "label": f"{self.direction_label(direction)}: {self.heuristics_label(heuristics)}",
            "family": self.direction_label(direction),
            "space": space,
            "datasets": self.datasets,
            "suites": self.suites,
            "batch_size": self.batch_size,
        }
        if base.optimizer is not None:
            return {**settings, "optimizer": base.optimizer, "options": {**base.options, **chosen}}
        return {**settings, "direction": base.direction, "options": base.options, "heuristics": chosen}
