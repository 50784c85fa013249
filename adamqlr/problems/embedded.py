"""Datasets that come with scikit-learn: small, real, and there without a network.

Their files are read without importing scikit-learn, which takes longer than to train on them.
"""

from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adamqlr.problems.problem import Problem
from adamqlr.problems.splits import build_problem, split_fractions
from adamqlr.problems.text import UNKNOWN, Text, text_problem
from adamqlr.study.settings import DatasetConfig

Table = NDArray[np.float64]


def load_digits(key: str, settings: DatasetConfig, folder: Path, seed: int) -> Problem:
    """Load handwritten digits: 1,797 rows of 64 pixels, 10 classes."""
    return build_problem(settings, split_fractions(key, *read_digits(), settings, seed))


def load_diabetes(key: str, settings: DatasetConfig, folder: Path, seed: int) -> Problem:
    """Load diabetes progression: 442 rows of 10 features, one real target."""
    return build_problem(settings, split_fractions(key, *read_diabetes(), settings, seed))


def load_descriptions(key: str, settings: DatasetConfig, folder: Path, seed: int) -> Problem:
    """Load what scikit-learn says of its data sets: some 6,000 words, of which those that appear once count as one."""
    files = sorted((_datasets() / "descr").glob("*.rst"))
    words = [word for file in files for word in file.read_text(encoding="utf-8").lower().split()]
    counts = Counter(words)
    words = [word if counts[word] > 1 else UNKNOWN for word in words]
    test = len(words) - round(settings.test_fraction * len(words))
    validation = test - round(settings.validation_fraction * test)
    parts = words[:validation], words[validation:test], words[test:]
    return text_problem(key, settings, *(Text(files[0].parent, part) for part in parts))


def read_digits() -> tuple[Table, NDArray[np.int64]]:
    """Return pixels and classes, to the last bit those of ``sklearn.datasets.load_digits``."""
    table = _read("digits.csv.gz", ",")
    return table[:, :-1], table[:, -1].astype(np.int64)


def read_diabetes() -> tuple[Table, Table]:
    """Return features and targets, to the last bit those of ``sklearn.datasets.load_diabetes``."""
    features, targets = _read("diabetes_data_raw.csv.gz"), _read("diabetes_target.csv.gz")
    scale = features.std(axis=0)
    features -= features.mean(axis=0)
    features /= scale
    features /= len(features) ** 0.5
    return features, targets


def _read(name: str, delimiter: str | None = None) -> Table:
    return np.loadtxt(_datasets() / "data" / name, delimiter=delimiter)


def _datasets() -> Path:
    package = find_spec("sklearn")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "datasets"
