"""What a study lacks that says nothing of a claim, as something to add to its configuration."""

from collections import Counter
from collections.abc import Sequence

from adamqlr.claims.evidence import runs_by_dataset, sweeps_of
from adamqlr.results.study import Study


def lacks_optimizers(study: Study, optimizers: Sequence[str], datasets: int = 1, otherwise: str = "") -> str:
    """Return what to add, so that some optimizers are trained on the same datasets of a suite.

    Args:
        study: A study in which they say nothing.
        optimizers: Which ones.
        datasets: On how many datasets.
        otherwise: What to add where they are.
    """
    tested = list(runs_by_dataset(study))
    if not tested:
        return "a dataset that has a test set"
    missing = [key for key in optimizers if not any(key in runs for *_, runs in tested)]
    if missing:
        return f"the optimizer{'s' if len(missing) > 1 else ''} {_listed(missing)}"
    together = Counter(suite for suite, _, runs in tested if all(key in runs for key in optimizers))
    if not together:
        return f"a dataset on which {_listed(optimizers)} are all trained, in one suite"
    if max(together.values()) < datasets:
        return f"datasets, so that {_listed(optimizers)} are trained on at least {datasets} in one suite"
    return otherwise


def lacks_sweeps(study: Study, parameter: str, families: Sequence[str]) -> str:
    """Return what to add, so that a hyperparameter of some families of optimizers is varied, on one dataset if several.

    Args:
        study: A study in which they say nothing.
        parameter: The hyperparameter.
        families: Of :attr:`adamqlr.study.optimizers.OptimizerSpec.family`.
    """
    missing = [family for family in families if not any(sweeps_of(study, parameter, family))]
    if len(missing) == 1:
        return f"a sensitivity study of the `{parameter}` of {missing[0]}"
    return f"sensitivity studies of the `{parameter}` of {' and '.join(families)} on the same dataset"


def _listed(keys: Sequence[str]) -> str:
    return " and ".join(f"`{key}`" for key in keys)
