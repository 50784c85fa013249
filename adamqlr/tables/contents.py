"""Which tables a suite has, and what they show."""

from collections.abc import Mapping

from adamqlr.results.published import Key, Value, published_of
from adamqlr.study.case import cases_of
from adamqlr.study.config import StudyConfig
from adamqlr.study.exhibits import Exhibit
from adamqlr.study.names import SENSITIVITY


def tables_of(config: StudyConfig, suite: str, published: Mapping[Key, Value]) -> dict[str, Exhibit]:
    """Return the tables of a suite by name.

    Args:
        config: The study.
        suite: The suite.
        published: What others published, which stands beside final results.
    """
    if suite == SENSITIVITY:
        return {}
    final_results = FINAL_RESULTS._replace(published=published_of(config, suite, published))
    tables = {"provenance": PROVENANCE, "final_results": final_results, "divergence": DIVERGENCE}
    cases = cases_of(config, suite)
    if not all(case.is_trajectory for case in cases):
        tables |= {"best_so_far": BEST_SO_FAR, "time_to_target": _time_to_target(config)}
    if any(case.is_tuned for case in cases):
        tables |= {"best_hyperparameters": BEST_HYPERPARAMETERS, "search_space": SEARCH_SPACE}
    tables |= {f"factorial_{name}": _factorial(config, name) for name in config.factorials_of(suite)}
    return tables


PROVENANCE = Exhibit(
    "What was run, and where",
    "Training time is of all runs together, without tuning, evaluation and checkpoints. The revision is the code's; "
    "*dirty* says that files differed from it.",
    "adamqlr.tables.what_was_run:tabulate",
)
FINAL_RESULTS = Exhibit(
    "Final results",
    "Medians over seeds at the end of training, ± the standard deviation of the medians of bootstrap resamples, "
    "∞ where some of these diverge; the best of each dataset is bold. Training metrics are of the last minibatch, "
    "before its step; test metrics are of the whole test set. *Survived* is the fraction of runs that did not diverge. "
    "*Published* is what others found ± their error, where the study's folder has it.",
    "adamqlr.tables.final_results:tabulate",
)
BEST_SO_FAR = Exhibit(
    "Best-so-far results",
    "What runs would end with if they stopped where their validation loss is lowest, beside what they end with: "
    "medians over seeds, ± the standard deviation of the medians of bootstrap resamples, ∞ where some of these "
    "diverge. Stopping forgives a later divergence.",
    "adamqlr.tables.best_so_far:tabulate",
)
BEST_HYPERPARAMETERS = Exhibit(
    "Best hyperparameters",
    "What final training used; values in parentheses were fixed, not tuned.",
    "adamqlr.tables.hyperparameters:best",
)
SEARCH_SPACE = Exhibit(
    "Search space",
    "What was tuned, and over which range. A dataset's own distributions replace those of the same name.",
    "adamqlr.tables.hyperparameters:search_space",
)
DIVERGENCE = Exhibit(
    "Divergence",
    "How many runs ended because their numbers were no longer finite, and when: medians over those runs.",
    "adamqlr.tables.divergence:tabulate",
)


def _time_to_target(config: StudyConfig) -> Exhibit:
    gap = config.statistics.target_gap
    caption = (
        f"How many runs reach the test loss that leaves {100 * gap:g}% of the way from the initial loss to the lowest "
        "final median of all optimizers, and what it takes: medians over all runs, – where half of them never get "
        "there."
    )
    return Exhibit("Time to target", caption, "adamqlr.tables.time_to_target:tabulate", {"target_gap": gap})


def _factorial(config: StudyConfig, name: str) -> Exhibit:
    layout = config.factorials[name]
    caption = (
        "Test losses, final and where the validation loss is lowest, of each direction relative to those with "
        f"“{layout.heuristics_label(layout.first)}”: below 1 heuristics help. Ratios of medians over seeds, with 95 % "
        "percentile intervals under bootstrap resampling; a diverged run ends with an infinite loss."
    )
    title = f"What heuristics do: {name.replace('_', ' ')}"
    return Exhibit(title, caption, "adamqlr.tables.factorial:tabulate", {"factorial": name})
