"""Which figures and tables a suite has, and what they show.

Importing this module does not import matplotlib: the workflow asks it what to make.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from adamqlr.config import SENSITIVITY, TUNING, StudyConfig


class Entry(NamedTuple):
    """One figure, or one table.

    Attributes:
        title: Its name in the report.
        caption: What it shows.
        maker: ``module:function`` that makes it from the study's file, a suite and how to resample.
        options: Further arguments of the maker.
        part: The group of the study's file that it needs, where it is not the suite.
    """

    title: str
    caption: str
    maker: str
    options: Mapping[str, Any] = {}
    part: str | None = None


_BANDS = (
    "Lines are medians over seeds, bands the 95 % percentile interval of the median under bootstrap resampling of the "
    "seeds. Training metrics are those of the minibatch, test metrics of the whole test set. Above a panel stands how "
    "many runs of which optimizer diverged; a cross marks where a median becomes infinite."
)
_BOUNDED = "What runs away leaves the panel; the CSV file has it whole. "
_ENDS = (
    "On the left every value's course: lines are medians over seeds, bands the 95 % percentile interval of the median "
    "under bootstrap resampling. On the right where runs end; a number is the fraction of runs that did not diverge, "
    "where some did, and a cross on a dotted line stands for a median that is infinite."
)

TRAJECTORIES = Entry(
    "Rosenbrock trajectories",
    "One run from (1, −1) for each optimizer, over the logarithm of the objective; the star is the optimum.",
    "adamqlr.figures.trajectories:draw",
)
PERFORMANCE = Entry(
    "Performance against training time",
    "Loss for regression, accuracy for classification. " + _BANDS,
    "adamqlr.figures.evolution:performance",
)
LOSS = Entry("Loss against training time", _BANDS, "adamqlr.figures.evolution:loss")
LEARNING_RATE = Entry(
    "Learning rates",
    "The magnitude of the learning rate taken. " + _BOUNDED + _BANDS,
    "adamqlr.figures.evolution:learning_rate",
)
DAMPING = Entry(
    "Damping and reduction ratio",
    "Damping λ and reduction ratio ρ, for the optimizers that have them: λ falls where ρ is above the upper dashed "
    "line, and grows where it is below the lower one. " + _BOUNDED + _BANDS,
    "adamqlr.figures.evolution:damping",
)
TUNING_BUDGET = Entry(
    "What a tuning budget buys",
    "The objective of the trial that a search of so many trials would choose: medians over random orders of the "
    "trials. It can rise where a trial first reaches a later rung, which then decides.",
    "adamqlr.figures.tuning_budget:draw",
    part=TUNING,
)


def figures_of(config: StudyConfig, suite: str) -> dict[str, Entry]:
    """Return the figures of a suite by name; of the suite ``sensitivity``, one for each sensitivity study."""
    if suite == SENSITIVITY:
        return {name: _sweep(config, name) for name in config.sensitivity}
    figures = {}
    if _trains(config, suite, lambda model: model == "rosenbrock"):
        figures["trajectories"] = TRAJECTORIES
    if _trains(config, suite, lambda model: model != "rosenbrock"):
        figures |= {"performance": PERFORMANCE, "loss": LOSS, "learning_rate": LEARNING_RATE}
        figures |= {f"ablation_{name}": _ablation(config, name) for name in _ablations(config, suite)}
        if any(key.startswith(("adamqlr", "kfac")) for key in config.optimizers):
            figures["damping"] = DAMPING
        figures["profiles"] = _profiles(config)
    if _has_tuned(config, suite):
        figures["tuning_budget"] = TUNING_BUDGET
    return figures


def tables_of(config: StudyConfig, suite: str) -> dict[str, Entry]:
    """Return the tables of a suite by name."""
    if suite == SENSITIVITY:
        return {}
    tables = {"provenance": PROVENANCE, "final_results": FINAL_RESULTS, "divergence": DIVERGENCE}
    if _trains(config, suite, lambda model: model != "rosenbrock"):
        tables["time_to_target"] = _time_to_target(config)
    if _has_tuned(config, suite):
        tables |= {"best_hyperparameters": BEST_HYPERPARAMETERS, "search_space": SEARCH_SPACE}
    return tables


PROVENANCE = Entry(
    "What was run, and where",
    "Training time is of all runs together, without tuning, evaluation and checkpoints. The revision is the code's; "
    "*dirty* says that files differed from it.",
    "adamqlr.figures.endings:provenance",
)
FINAL_RESULTS = Entry(
    "Final results",
    "Medians over seeds at the end of training, ± the standard deviation of the medians of bootstrap resamples; the "
    "best of each dataset is bold. *Survived* is the fraction of runs that did not diverge.",
    "adamqlr.figures.tables:final_results",
)
BEST_HYPERPARAMETERS = Entry(
    "Best hyperparameters",
    "What final training used; values in parentheses were fixed, not tuned.",
    "adamqlr.figures.tables:best_hyperparameters",
)
SEARCH_SPACE = Entry("Search space", "What was tuned, and over which range.", "adamqlr.figures.tables:search_space")
DIVERGENCE = Entry(
    "Divergence",
    "How many runs ended because their numbers were no longer finite, and when: medians over those runs.",
    "adamqlr.figures.endings:divergence",
)


_PARAMETERS = {
    "lr": "Learning rate",
    "damping": "Initial damping",
    "damping_increase": "Damping stepping factor",
    "lr_clipping": "Learning-rate clipping",
    "lr_rescaling": "Learning-rate rescaling",
}


def _sweep(config: StudyConfig, name: str) -> Entry:
    sweep = config.sweep(name)
    label, dataset = config.optimizer_label(sweep.optimizer), config.dataset_label(sweep.dataset)
    parameter = _PARAMETERS.get(sweep.parameter, sweep.parameter.replace("_", " ").capitalize())
    options = {"sweep": name, "parameter": parameter}
    return Entry(f"{parameter} of {label} on {dataset}", _ENDS, "adamqlr.figures.sensitivity:draw", options)


def _ablations(config: StudyConfig, suite: str) -> list[str]:
    """Return the ablations of which a suite has at least two optimizers on some dataset."""
    return [
        name
        for name, ablation in config.ablations.items()
        if any(
            len({key for data, key in config.pairs(suite) if data == dataset and key in ablation.optimizers}) > 1
            for dataset in config.datasets
            if config.dataset(dataset).model != "rosenbrock" and dataset in (ablation.datasets or config.datasets)
        )
    ]


def _ablation(config: StudyConfig, name: str) -> Entry:
    ablation = config.ablations[name]
    options = {"optimizers": ablation.optimizers, "datasets": ablation.datasets}
    return Entry(f"Ablation of {name.replace('_', ' ')}", _BANDS, "adamqlr.figures.evolution:ablation", options)


def _profiles(config: StudyConfig) -> Entry:
    gap = config.statistics.target_gap
    caption = (
        "The fraction of all cases, (dataset, seed) pairs, in which an optimizer reaches the target within a multiple "
        f"of what the best optimizer of that case takes. A dataset's target is the test loss that leaves {gap:.0%} of "
        "the way from the initial loss to the lowest final median of all optimizers."
    )
    return Entry("Time-to-target profiles", caption, "adamqlr.figures.profiles:draw", {"target_gap": gap})


def _time_to_target(config: StudyConfig) -> Entry:
    gap = config.statistics.target_gap
    caption = (
        f"How many runs reach the test loss that leaves {gap:.0%} of the way from the initial loss to the lowest final "
        "median of all optimizers, and what it takes: medians over all runs, – where half of them never get there."
    )
    return Entry("Time to target", caption, "adamqlr.figures.endings:time_to_target_table", {"target_gap": gap})


def _trains(config: StudyConfig, suite: str, wanted: Callable[[str], bool]) -> bool:
    return any(wanted(config.dataset(dataset).model) for dataset, _ in config.pairs(suite))


def _has_tuned(config: StudyConfig, suite: str) -> bool:
    return any(config.is_tuned(optimizer, dataset) for dataset, optimizer in config.pairs(suite))
