"""Datasets that come with scikit-learn: small, real, and there without a network."""

from pathlib import Path

import numpy as np
from sklearn import datasets

from adamqlr.problems.problem import Problem
from adamqlr.problems.splits import build_problem, split_fractions
from adamqlr.settings import DatasetConfig


def load_digits(key: str, settings: DatasetConfig, folder: Path, seed: int) -> Problem:
    """Load handwritten digits: 1,797 rows of 64 pixels, 10 classes."""
    data = datasets.load_digits()
    return build_problem(key, settings, split_fractions(key, data.data, data.target, settings, seed))


def load_diabetes(key: str, settings: DatasetConfig, folder: Path, seed: int) -> Problem:
    """Load diabetes progression: 442 rows of 10 features, one real target."""
    data = datasets.load_diabetes()
    return build_problem(key, settings, split_fractions(key, data.data, np.asarray(data.target), settings, seed))
