"""Whether there are the hyperparameters that a study names, found without importing an optimizer.

A misspelled one would be left out without a word, or be an error of a job that waits for a whole search.
"""

from collections.abc import Iterable

from adamqlr.study.datasets import DATASETS
from adamqlr.study.import_paths import keywords_of
from adamqlr.study.optimizer_settings import DIRECTION, DIRECTIONS, OptimizerConfig
from adamqlr.study.optimizers import OPTIMIZERS, OptimizerSpec
from adamqlr.study.settings import DatasetConfig, SweepConfig
from adamqlr.study.space import Space

# The data's; ``length`` is a text's.
_OF_DATA = ("batch_size", "length")


def check_cataloged(key: str, settings: OptimizerConfig) -> None:
    """Check the changes to an optimizer of the catalog.

    Raises:
        ValueError: It has no such hyperparameter.
    """
    known = _known(OPTIMIZERS[key])
    _check(f"optimizers.{key}.options", settings.options, known)
    _check(f"optimizers.{key}.space", settings.space, known)


def check_sweep(name: str, sweep: SweepConfig, spec: OptimizerSpec, dataset: DatasetConfig) -> None:
    """Check what a sensitivity study varies.

    Raises:
        ValueError: The optimizer has no such hyperparameter, or one of the data's gets no whole number.
    """
    of_data, known = dataset.data_hyperparameters, _known(spec)
    named = [sweep.parameter] + ([sweep.reciprocal] if sweep.reciprocal else [])
    if known is not None:
        known = (known - set(_OF_DATA)) | of_data.keys()
    _check(f"sensitivity.{name}", named, known)
    for parameter in named:
        values = [sweep.hyperparameters(point)[parameter] for point in sweep.points]
        wrong = [value for value in values if not isinstance(value, int) or value < 1]
        if parameter in of_data and wrong:
            raise ValueError(f"sensitivity.{name}: {parameter} must be a positive whole number, got {wrong[0]}")


def check_dataset_space(key: str, dataset: DatasetConfig, spaces: Iterable[Space]) -> None:
    """Check what is tuned otherwise on a dataset than elsewhere.

    Args:
        key: The dataset.
        dataset: Its settings.
        spaces: What the study's optimizers tune.

    Raises:
        ValueError: No optimizer tunes that.
    """
    cataloged = DATASETS[key].defaults.get("space", {}) if key in DATASETS else {}
    general = [*(spec.space for spec in OPTIMIZERS.values()), *spaces]
    known = sorted({name for space in (dataset.data_hyperparameters, cataloged, *general) for name in space})
    for name in dataset.space:
        if name not in known:
            raise ValueError(f"datasets.{key}.space: no optimizer tunes '{name}': there are {', '.join(known)}")


def _known(spec: OptimizerSpec) -> frozenset[str] | None:
    """Return an optimizer's hyperparameters, the data's among them; None where its source does not say."""
    if spec.wraps is None:
        keywords = keywords_of(spec.factory)
    else:
        keywords = frozenset() if spec.wraps in DIRECTIONS else keywords_of(spec.wraps)
        if spec.factory.endswith(":make_heuristics") and keywords is not None:
            heuristics = keywords_of("adamqlr.optim.qlr:QLR")
            assert heuristics is not None
            keywords = heuristics | {DIRECTION + name for name in keywords}
    return None if keywords is None else keywords | set(_OF_DATA)


def _check(where: str, names: Iterable[str], known: frozenset[str] | None) -> None:
    for name in names:
        if known is not None and name not in known:
            raise ValueError(f"{where}: unknown hyperparameter '{name}': known are {', '.join(sorted(known))}")
