"""The sections of the configuration: what each setting means and may be."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from adamqlr.space import Space

Objective = Literal["train_loss", "validation_loss"]


class Section(BaseModel):
    """A part of the configuration; a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class DatasetConfig(Section):
    """One dataset: where it is, what is trained on it and for how long.

    Attributes:
        path: A file of the user's own: ``.npz`` with x_train, y_train, x_test, y_test, or a text table whose last
            column is the target. Relative paths are looked up in the data folder.
        label: Its name in figures and tables.
        model: The network.
        hidden: Widths of an MLP's hidden layers.
        loss: ``cross_entropy`` for classes, ``half_mse`` for real targets.
        epochs: Passes over the training rows in the ``epochs`` suite.
        batch_size: Rows a step for optimizers that neither tune nor fix it.
        augmentation: ``crop_flip`` (pad 4, random crop, horizontal flip) or none.
        validation_fraction: Share of the training rows held out, for datasets without a fixed split.
        test_fraction: Share of all rows held out, for tables without a test set.
        seeds: Number of final runs, where it is not the study's.
        objective: What tuning minimizes, where it is not the suite's.
        runtime: Training seconds of one run in the runtime suites; also their limit while tuning.
        runs_per_gpu: How many runs of one job share a GPU, each in a process of its own.
        suites: The only suites it takes part in; all of them if not given.
    """

    path: Path | None = None
    label: str | None = None
    model: Literal["mlp", "resnet18", "rosenbrock"] = "mlp"
    hidden: tuple[PositiveInt, ...] = (50,)
    loss: Literal["cross_entropy", "half_mse"]
    epochs: PositiveInt
    batch_size: PositiveInt
    augmentation: Literal["none", "crop_flip"] = "none"
    validation_fraction: float = Field(default=0.15, gt=0, lt=1)
    test_fraction: float = Field(default=0.15, gt=0, lt=1)
    seeds: PositiveInt | None = None
    objective: Objective | None = None
    runtime: PositiveFloat = 900.0
    runs_per_gpu: PositiveInt = 1
    suites: tuple[str, ...] | None = None


class OptimizerConfig(Section):
    """Changes to one registered optimizer.

    Attributes:
        options: Fixed keyword arguments, on top of the registered ones.
        space: Distributions that replace or join the registered search space.
    """

    options: dict[str, Any] = Field(default_factory=dict)
    space: Space = Field(default_factory=dict)


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
        unit: What rungs count: training ``seconds`` as in the paper, or ``epochs``, whose results can be reproduced.
        first_rung: Resource of the first rung.
        reduction_factor: Between rungs; one in this many configurations passes each.
        limit: Most resource one configuration gets in the ``epochs`` suite.
        shards: Jobs that share the configurations of a pair.
    """

    trials: PositiveInt = 200
    unit: Literal["seconds", "epochs"] = "seconds"
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
    """

    seeds: PositiveInt = 50
    seeds_per_job: PositiveInt = 10
    record_every: PositiveInt = 20
    record_growth: float = Field(default=1.05, gt=1)
    checkpoint_seconds: PositiveFloat = 60.0


class StatisticsConfig(Section):
    """Reduction of cubes.

    Attributes:
        grid_points: Points of a cube's time grid.
        resamples: Bootstrap resamples of the seeds.
        seed: Seed of the resampling.
    """

    grid_points: PositiveInt = 200
    resamples: PositiveInt = 50
    seed: int = 0
