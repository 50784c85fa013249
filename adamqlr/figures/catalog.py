"""Which figures and tables a suite has.

Importing this module does not import matplotlib: the workflow asks it what to make.
"""

from collections.abc import Callable
from typing import NamedTuple

from adamqlr.config import StudyConfig


class Entry(NamedTuple):
    """One family of figures, or one table.

    Attributes:
        title: Its name in the report.
        maker: ``module:function`` that makes it.
        applies: Whether a suite of a study has it.
    """

    title: str
    maker: str
    applies: Callable[[StudyConfig, str], bool]


def _has_data(config: StudyConfig, suite: str) -> bool:
    return any(config.dataset(dataset).model != "rosenbrock" for dataset, _ in config.pairs(suite))


def _has_rosenbrock(config: StudyConfig, suite: str) -> bool:
    return any(config.dataset(dataset).model == "rosenbrock" for dataset, _ in config.pairs(suite))


def _has_tuned(config: StudyConfig, suite: str) -> bool:
    return any(config.is_tuned(optimizer, dataset) for dataset, optimizer in config.pairs(suite))


FIGURES: dict[str, Entry] = {
    "trajectories": Entry("Rosenbrock trajectories", "adamqlr.figures.trajectories:draw", _has_rosenbrock),
    "performance": Entry("Performance against training time", "adamqlr.figures.evolution:performance", _has_data),
    "loss": Entry("Loss against training time", "adamqlr.figures.evolution:loss", _has_data),
    "learning_rate": Entry("Learning rates", "adamqlr.figures.evolution:learning_rate", _has_data),
}

TABLES: dict[str, Entry] = {
    "final_results": Entry("Final results", "adamqlr.figures.tables:final_results", lambda *_: True),
    "best_hyperparameters": Entry("Best hyperparameters", "adamqlr.figures.tables:best_hyperparameters", _has_tuned),
    "search_space": Entry("Search space", "adamqlr.figures.tables:search_space", _has_tuned),
}
