"""Distributions that hyperparameters are drawn from."""

import math
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from adamqlr.study.overrides import spelled_out


class Distribution(BaseModel):
    """One hyperparameter's distribution, written in YAML as ``{loguniform: [1e-6, 1]}`` and the like.

    Attributes:
        kind: ``uniform`` or ``loguniform`` between two bounds; ``one_minus_loguniform``, whose complement to one is
            log-uniform between the bounds (momentum: 1 − momentum is tuned); or ``choice`` among the values.
        values: The two bounds, or the values to choose from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str = Field(pattern="^(uniform|loguniform|one_minus_loguniform|choice)$")
    values: Annotated[tuple[float | int | str | bool, ...], BeforeValidator(spelled_out)]

    @model_validator(mode="after")
    def _check_bounds(self) -> "Distribution":
        if self.kind == "choice":
            if not self.values:
                raise ValueError("a choice needs at least one value")
            if len({isinstance(value, str) for value in self.values}) > 1:
                # A file of trials has one type for all.
                raise ValueError(f"a choice is of numbers or of words, got {list(self.values)}")
            return self
        if len(self.values) != 2 or any(isinstance(value, str | bool) for value in self.values):
            raise ValueError(f"{self.kind} needs two numbers, got {list(self.values)}")
        low, high = map(float, self.values)
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"{self.kind} needs finite bounds, got {list(self.values)}")
        is_log, is_share = "log" in self.kind, self.kind == "one_minus_loguniform"
        if low > high or (is_log and low <= 0) or (is_share and high > 1):
            wanted = f"{'0 < ' if is_log else ''}low <= high{' <= 1' if is_share else ''}"
            raise ValueError(f"{self.kind} needs {wanted}, got {list(self.values)}")
        return self

    def draw(self, generator: np.random.Generator) -> float | int | str:
        """Draw one value."""
        if self.kind == "choice":
            return self.values[int(generator.integers(len(self.values)))]
        low, high = float(self.values[0]), float(self.values[1])
        if self.kind == "uniform":
            return float(generator.uniform(low, high))
        drawn = float(np.exp(generator.uniform(np.log(low), np.log(high))))
        return 1.0 - drawn if self.kind == "one_minus_loguniform" else drawn

    def describe(self) -> str:
        """Words for the search-space table, such as ``log-uniform 1e-06 … 1``."""
        if self.kind == "choice":
            return ", ".join(str(value) for value in self.values)
        name = {"uniform": "uniform", "loguniform": "log-uniform", "one_minus_loguniform": "1 − log-uniform"}[self.kind]
        return f"{name} {float(self.values[0]):g} … {float(self.values[1]):g}"


def _from_yaml(value: Any) -> Any:
    if isinstance(value, dict) and len(value) == 1:
        [(kind, values)] = value.items()
        return {"kind": kind, "values": values}
    return value


Space = dict[str, Annotated[Distribution, BeforeValidator(_from_yaml)]]


def loguniform(low: float, high: float) -> Distribution:
    """Log-uniform between ``low`` and ``high``."""
    return Distribution(kind="loguniform", values=(low, high))


def one_minus_loguniform(low: float, high: float) -> Distribution:
    """One minus a value that is log-uniform between ``low`` and ``high``."""
    return Distribution(kind="one_minus_loguniform", values=(low, high))


def choice(*values: float | int | str) -> Distribution:
    """One of ``values``, each equally likely."""
    return Distribution(kind="choice", values=values)


def draw_configurations(space: Space, count: int, seed: int) -> list[dict[str, Any]]:
    """Draw ``count`` random configurations; the same for every shard of the same study."""
    generator = np.random.default_rng(np.random.SeedSequence([seed, 2]))
    return [{name: space[name].draw(generator) for name in sorted(space)} for _ in range(count)]


def check_whole_numbers(name: str, space: Space) -> None:
    """Refuse a distribution of a hyperparameter that counts, such as a batch size, if it has other values.

    Raises:
        ValueError: It has.
    """
    distribution = space.get(name)
    if distribution is None:
        return
    if distribution.kind != "choice" or not all(isinstance(n, int) and n > 0 for n in distribution.values):
        raise ValueError(f"space.{name}: expected {{choice: […]}} of positive whole numbers")
