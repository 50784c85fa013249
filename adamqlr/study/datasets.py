"""The datasets of the study by name (paper, section 4 and appendix B.1).

A new dataset is one loader function and one entry here; a file of one's own needs neither, only a few lines of
configuration. Importing this module does not import PyTorch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from adamqlr.study.space import choice, loguniform


@dataclass(frozen=True)
class DatasetSpec:
    """One dataset of the study.

    Attributes:
        label: Its name in figures and tables.
        loader: ``module:function`` that reads it; see :mod:`adamqlr.problems.problem`.
        defaults: What its :class:`~adamqlr.study.settings.DatasetConfig` holds where the configuration is silent.
        fetcher: ``module:function`` that brings it to the data folder, or says what is missing there, and returns the
            files that hold it; None for a dataset that comes with a library.
        split_file: A file in its folder that orders its rows before they are split, where it is there; None if none
            may.
        threads: CPU threads of a job; where it reads files while it trains, as many processes read them.
    """

    label: str
    loader: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    fetcher: str | None = None
    split_file: str | None = None
    threads: int = 1


PERMUTATION = "permutation_indices.txt"
USER_FILE_LOADER = "adamqlr.problems.own_file:load"

DATASETS: dict[str, DatasetSpec] = {
    "rosenbrock": DatasetSpec(
        "Rosenbrock",
        "adamqlr.problems.rosenbrock:load",
        {
            "model": "rosenbrock",
            "loss": "half_mse",
            "epochs": 200,
            "batch_size": 1,
            "fixed_batch_size": True,
            "runs_per_gpu": 6,
            "seeds": 1,
            "objective": "train_loss",
            "suites": ["epochs"],
        },
    ),
    "uci_energy": DatasetSpec(
        "UCI Energy",
        "adamqlr.problems.uci:load",
        {"model": "mlp", "hidden": [50], "loss": "half_mse", "epochs": 4000, "batch_size": 588, "runs_per_gpu": 6},
        fetcher="adamqlr.problems.uci:fetch",
        split_file=PERMUTATION,
    ),
    "uci_protein": DatasetSpec(
        "UCI Protein",
        "adamqlr.problems.uci:load",
        {"model": "mlp", "hidden": [100], "loss": "half_mse", "epochs": 200, "batch_size": 1000, "runs_per_gpu": 6},
        fetcher="adamqlr.problems.uci:fetch",
        split_file=PERMUTATION,
    ),
    "fashion_mnist": DatasetSpec(
        "Fashion-MNIST",
        "adamqlr.problems.images:load",
        {
            "model": "mlp",
            "hidden": [50],
            "loss": "cross_entropy",
            "epochs": 10,
            "batch_size": 50,
            "runs_per_gpu": 6,
        },
        fetcher="adamqlr.problems.images:fetch",
    ),
    "svhn": DatasetSpec(
        "SVHN",
        "adamqlr.problems.images:load",
        {"model": "resnet18", "loss": "cross_entropy", "epochs": 10, "batch_size": 256},
        fetcher="adamqlr.problems.images:fetch",
    ),
    "cifar10": DatasetSpec(
        "CIFAR-10",
        "adamqlr.problems.images:load",
        {
            "model": "resnet18",
            "loss": "cross_entropy",
            "epochs": 72,
            "batch_size": 128,
            "augmentation": "crop_flip",
            "runtime": 3600.0,
        },
        fetcher="adamqlr.problems.images:fetch",
    ),
    "penn_treebank": DatasetSpec(
        "Penn Treebank",
        "adamqlr.problems.penn_treebank:load",
        {
            "model": "gpt2",
            "loss": "cross_entropy",
            "epochs": 100,
            "batch_size": 30,
            "seeds": 10,
            "space": {
                "batch_size": choice(5, 10, 20, 35, 50, 100, 200),
                "length": choice(*range(10, 101, 10)),
                "lr": loguniform(1e-4, 1e2),
            },
            "tuning_limit": 3600.0,
            "suites": ["epochs"],
        },
        fetcher="adamqlr.problems.penn_treebank:fetch",
    ),
    "imagenet": DatasetSpec(
        "ImageNet",
        "adamqlr.problems.imagenet:load",
        {
            "model": "resnet50",
            "loss": "cross_entropy",
            "epochs": 72,
            "batch_size": 1024,
            "fixed_batch_size": True,
            "seeds": 1,
            "augmentation": "resized_crop_flip",
            "suites": ["epochs"],
        },
        fetcher="adamqlr.problems.imagenet:fetch",
        threads=8,
    ),
    "digits": DatasetSpec(
        "Digits",
        "adamqlr.problems.embedded:load_digits",
        {
            "model": "mlp",
            "hidden": [50],
            "loss": "cross_entropy",
            "epochs": 20,
            "batch_size": 200,
            "validation_fraction": 0.176,
        },
    ),
    "diabetes": DatasetSpec(
        "Diabetes",
        "adamqlr.problems.embedded:load_diabetes",
        {
            "model": "mlp",
            "hidden": [50],
            "loss": "half_mse",
            "epochs": 100,
            "batch_size": 100,
            "validation_fraction": 0.176,
        },
    ),
    "descriptions": DatasetSpec(
        "Descriptions",
        "adamqlr.problems.embedded:load_descriptions",
        {
            "model": "gpt2",
            "transformer": {"layers": 1, "heads": 2, "width": 16, "length": 20},
            "loss": "cross_entropy",
            "epochs": 20,
            "batch_size": 20,
            "space": {"batch_size": choice(5, 10, 20, 50), "length": choice(10, 20, 40), "lr": loguniform(1e-4, 1)},
        },
    ),
}
