"""The sections of the configuration: what each setting means and may be."""

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from adamqlr.study.overrides import spelled_out
from adamqlr.study.space import Space, check_whole_numbers

Objective = Literal["train_loss", "validation_loss"]


class Section(BaseModel):
    """A part of the configuration; a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class TransformerConfig(Section):
    """Size of a transformer: that of the smallest GPT-2, and the paper's rows, unless given.

    Attributes:
        layers: Blocks of attention and multilayer perceptron.
        heads: Attention heads of a block.
        width: Features of a token between blocks; a multiple of ``heads``.
        length: Tokens a row, where that is not tuned.
    """

    layers: PositiveInt = 12
    heads: PositiveInt = 12
    width: PositiveInt = 768
    length: PositiveInt = 70

    @model_validator(mode="after")
    def _check_width(self) -> "TransformerConfig":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class DatasetConfig(Section):
    """One dataset: where it is, what is trained on it and for how long.

    Attributes:
        path: A file of the user's own: ``.npz`` with x_train, y_train, x_test, y_test, or a text table whose last
            column is the target. Relative paths are looked up in the data folder, and then where the program runs.
        label: Its name in figures and tables.
        model: The network.
        hidden: Widths of an MLP's hidden layers.
        transformer: Size of a ``gpt2``.
        image_size: Height and width that ImageNet's images are cut to.
        loss: ``cross_entropy`` for classes, ``half_mse`` for real targets.
        epochs: Passes over the training rows in the ``epochs`` suite.
        batch_size: Rows a step for optimizers that neither tune nor fix it; where ``space`` has it, for all that do not
            tune it but those whose ``options`` have one.
        fixed_batch_size: Whether ``batch_size`` is for all optimizers but those whose ``options`` have one, and not
            tuned.
        augmentation: ``crop_flip`` (pad 4, random crop, horizontal flip), ``resized_crop_flip`` (a random part, resized
            to ``image_size``, horizontal flip; ImageNet only) or none.
        validation_fraction: Share of the training rows held out, for datasets without a fixed split.
        test_fraction: Share of all rows held out, for tables without a test set.
        seeds: Number of final runs, where it is not the study's.
        objective: What tuning minimizes, where it is not the suite's.
        space: Distributions that replace optimizers' own, name by name; what an optimizer does not tune in general, it
            does not tune here. ``batch_size``, and ``length`` of a text (tokens a row, in validation and test too), are
            the data's: they join for every optimizer that is tuned.
        tuning_limit: Most training seconds of one configuration in suites of epochs, in place of ``tuning.limit``;
            without effect where ``tuning.unit`` is epochs.
        runtime: Training seconds of one run in the runtime suites; also their limit while tuning, unless
            ``tuning.unit`` is ``epochs``.
        runs_per_gpu: How many runs of one job share a GPU, each in a process of its own.
        suites: The only suites it takes part in; all of them if not given.
        optimizers: The only optimizers trained on it; all of them if not given.
    """

    path: Path | None = None
    label: str | None = None
    model: Literal["mlp", "resnet18", "resnet50", "gpt2", "rosenbrock"] = "mlp"
    hidden: tuple[PositiveInt, ...] = (50,)
    transformer: TransformerConfig = TransformerConfig()
    image_size: PositiveInt = 224
    loss: Literal["cross_entropy", "half_mse"]
    epochs: PositiveInt
    batch_size: PositiveInt
    fixed_batch_size: bool = False
    augmentation: Literal["none", "crop_flip", "resized_crop_flip"] = "none"
    validation_fraction: float = Field(default=0.15, gt=0, lt=1)
    test_fraction: float = Field(default=0.15, gt=0, lt=1)
    seeds: PositiveInt | None = None
    objective: Objective | None = None
    space: Space = Field(default_factory=dict)
    tuning_limit: PositiveFloat | None = None
    runtime: PositiveFloat = 900.0
    runs_per_gpu: PositiveInt = 1
    suites: tuple[str, ...] | None = None
    optimizers: tuple[str, ...] | None = None

    @property
    def data_hyperparameters(self) -> dict[str, int]:
        """The hyperparameters that are the data's and no optimizer's, as they are where they are not tuned."""
        length = {"length": self.transformer.length} if self.model == "gpt2" else {}
        return {"batch_size": self.batch_size, **length}

    @property
    def has_own_batch_size(self) -> bool:
        """Whether the batch sizes of optimizers that do not tune them are not for this dataset."""
        return self.fixed_batch_size or "batch_size" in self.space

    @model_validator(mode="after")
    def _check_space(self) -> "DatasetConfig":
        if self.fixed_batch_size and "batch_size" in self.space:
            raise ValueError(
                "space: 'batch_size' is tuned, and 'fixed_batch_size' says that it is not: drop one of them"
            )
        for name in self.data_hyperparameters.keys() & self.space.keys():
            check_whole_numbers(name, self.space)
        return self


class SuiteConfig(Section):
    """What bounds a run, and what tuning minimizes.

    Attributes:
        budget: ``epochs`` or ``runtime``: a run ends after its dataset's epochs, or after its training seconds.
        objective: The loss that tuning minimizes.
    """

    budget: Literal["epochs", "runtime"]
    objective: Objective


class TuningConfig(Section):
    """Asynchronous successive halving (ASHA; Li et al., MLSys 2020).

    Attributes:
        trials: Configurations drawn for each (dataset, optimizer) pair.
        unit: What rungs count: training ``seconds`` as in the paper; ``epochs``, whose results can be reproduced; or
            ``steps``, as many as take a rung's seconds by costs that are measured once and kept in
            ``results/<study>/step_costs``. Seconds then decide, and yet a search can be repeated: the same costs give
            the same steps on any machine, however busy. Shards that run at once, and processes that share a GPU
            (``runs_per_gpu``), judge by what others have found so far: only a search of one shard in one process is
            reproduced to the digit. Final runs of a ``runtime`` budget end by the clock whatever the unit.
        first_rung: Resource of the first rung.
        reduction_factor: Between rungs; one in this many configurations passes each.
        limit: Most resource that one configuration gets in suites of epochs, where its dataset has no ``tuning_limit``.
            Where ``unit`` is epochs: in every suite, and in those of epochs at most the dataset's ``epochs``.
        shards: Jobs that share the configurations of a pair; a single one also chooses the best.
    """

    trials: PositiveInt = 200
    unit: Literal["seconds", "epochs", "steps"] = "seconds"
    first_rung: PositiveFloat = 1.0
    reduction_factor: int = Field(default=4, ge=2)
    limit: PositiveFloat = 900.0
    shards: PositiveInt = 8


class TrainingConfig(Section):
    """Final training and what it records.

    Attributes:
        seeds: Final runs of each (dataset, optimizer) pair.
        seeds_per_job: Runs in one job.
        record_every: Every step up to this one is recorded.
        record_growth: From there on the recorded steps grow by this factor.
        checkpoint_seconds: Seconds between checkpoints.
        pack: Whether a job's seeds, and configurations of one batch size in tuning, are trained side by side in one
            process where they can be (perceptrons in suites of epochs): ``auto`` is on CUDA, and on a
            CPU where that is faster. Their time is then the steps taken times the measured seconds of a single run's
            step.
    """

    seeds: PositiveInt = 50
    seeds_per_job: PositiveInt = 10
    record_every: PositiveInt = 20
    record_growth: float = Field(default=1.05, gt=1)
    checkpoint_seconds: PositiveFloat = 60.0
    pack: Literal["auto", "always", "never"] = "auto"


class PrecisionConfig(Section):
    """How convolutional networks are computed; double precision and matrix products are exact whatever is set.

    Attributes:
        tf32: Whether convolutions on CUDA round their factors to TensorFloat-32, as PyTorch does by default.
        channels_last: Whether images lie in memory with their channels last, the order that is faster for convolutions
            on tensor cores and on CPUs.
    """

    tf32: bool = True
    channels_last: bool = True


class StatisticsConfig(Section):
    """Reduction of cubes.

    Attributes:
        grid_points: Points of a cube's time grid.
        resamples: Bootstrap resamples of the seeds.
        seed: Seed of the resampling.
        target_gap: A dataset's target is the test loss that leaves this share of the way from the initial loss to the
            lowest final median of all optimizers.
    """

    grid_points: int = Field(default=200, ge=2)
    resamples: PositiveInt = 200
    seed: int = 0
    target_gap: float = Field(default=0.1, gt=0, lt=1)


def _geometric(value: Any) -> Any:
    """Let ``{geometric: [low, high, count]}`` stand for that many values, evenly spaced in their logarithm."""
    value = spelled_out(value)
    if not isinstance(value, dict):
        return value
    match value:
        case {"geometric": [float() | int() as low, float() | int() as high, int() as count], **rest} if not rest:
            if min(low, high) <= 0 or count < 2:
                raise ValueError("geometric needs two positive bounds and a count of at least 2")
            return tuple(float(f"{x:.6g}") for x in np.geomspace(low, high, count))
    raise ValueError("expected a list of values, or {geometric: [low, high, count]}")


class SweepConfig(Section):
    """A sensitivity study: one hyperparameter at several values, the others as final training has them.

    Attributes:
        dataset: One of the study's datasets.
        optimizer: One of the study's optimizers; a tuned one starts from its best hyperparameters.
        parameter: The hyperparameter: ``batch_size``, a text's ``length``, or a keyword argument of the optimizer.
        values: Its values, or ``{geometric: [low, high, count]}``.
        reciprocal: A second hyperparameter, which is set to one over the value.
        suite: What bounds a run, and where tuned hyperparameters come from.
        seeds: Runs of each value, where it is not the study's number.
    """

    dataset: str
    optimizer: str
    parameter: str
    values: Annotated[tuple[int | float, ...], Field(min_length=2), BeforeValidator(_geometric)]
    reciprocal: str | None = None
    suite: str = "epochs"
    seeds: PositiveInt | None = None

    @model_validator(mode="after")
    def _check_values(self) -> "SweepConfig":
        if len(self.points) < len(self.values):
            raise ValueError("values: two of them are the same to four digits")
        if self.reciprocal is not None and 0 in self.values:
            raise ValueError("values: 0 has no reciprocal")
        return self

    @property
    def points(self) -> dict[str, int | float]:
        """The values by the names that files have."""
        return {f"{value:.4g}": value for value in self.values}

    def hyperparameters(self, point: str) -> dict[str, int | float]:
        """Return what a point of the study sets."""
        value = self.points[point]
        return {self.parameter: value} | ({self.reciprocal: 1 / value} if self.reciprocal else {})


class AblationConfig(Section):
    """Optimizers that differ in one part, drawn side by side.

    Attributes:
        optimizers: Which ones; those that the study leaves out are not drawn.
        datasets: On which datasets; all of them if not given.
    """

    optimizers: tuple[str, ...] = Field(min_length=2)
    datasets: tuple[str, ...] | None = None


class ClaimsConfig(Section):
    """How claims are judged.

    Attributes:
        margin: Two optimizers are comparable where the ratio of their losses or errors is at most one plus this.
        flatness: A hyperparameter does not matter where the worst of its values is at most this many times the best.
        confidence: Level of the bootstrap intervals.
        resamples: Bootstrap resamples of the seeds.
    """

    margin: float = Field(default=0.1, ge=0)
    flatness: float = Field(default=2.0, ge=1)
    confidence: float = Field(default=0.95, gt=0, lt=1)
    resamples: PositiveInt = 2000
