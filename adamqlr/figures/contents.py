"""Which figures a suite has, and what they show.

Importing this module does not import matplotlib: the workflow asks it what to make.
"""

from collections.abc import Mapping

from adamqlr.results.published import Key, Value, published_of
from adamqlr.study.case import cases_of
from adamqlr.study.config import StudyConfig
from adamqlr.study.exhibits import Exhibit
from adamqlr.study.names import SENSITIVITY, TUNING

_BANDS = (
    "Lines are medians over seeds, bands the 95 % percentile interval of the median under bootstrap resampling of the "
    "seeds. Training metrics are those of the minibatch, test metrics of the whole test set. Above a panel stands how "
    "many runs of which optimizer diverged; a cross marks where a median becomes infinite, and a band ends at its line "
    "where the interval has no end. What runs away, or falls below a millionth of the rest, leaves the panel; the CSV "
    "file has it whole."
)
_OF_SURVIVORS = "Runs that have diverged have no more steps, and medians are over the others. "
_ENDS = (
    "On the left every value's course: lines are medians over seeds, bands the 95 % percentile interval of the median "
    "under bootstrap resampling. On the right where runs end; a number is the fraction of runs that did not diverge, "
    "where some did, and a cross on a dotted line stands for a median that is infinite."
)

TRAJECTORIES = Exhibit(
    "Rosenbrock trajectories",
    "One run from (1, −1) for each optimizer, over the logarithm of the objective; the star is the optimum.",
    "adamqlr.figures.trajectories:draw",
)
PERFORMANCE = Exhibit(
    "Performance against training time",
    "Loss for regression, accuracy for classification. " + _BANDS,
    "adamqlr.figures.evolution:performance",
)
LOSS = Exhibit("Loss against training time", _BANDS, "adamqlr.figures.evolution:loss")
LOSS_BY_STEP = Exhibit("Loss against steps", _BANDS, "adamqlr.figures.evolution:loss_by_step")
LOSS_WITH_EVALUATION = Exhibit(
    "Loss against the time of training and evaluation",
    "As if the validation and test sets were evaluated after every step, within the time that counts. So does the "
    "paper's code, whose runtimes and budgets favor expensive steps and large batches; everywhere else here evaluation "
    "is off the clock. Optimizers of which it is not known what an evaluation takes are left out. " + _BANDS,
    "adamqlr.figures.evolution:loss_with_evaluation",
)
LEARNING_RATE = Exhibit(
    "Learning rates",
    "The learning rate taken, against training time; in a panel where a median or its band is negative, the axis is "
    "symmetric, and linear about 0. " + _OF_SURVIVORS + _BANDS,
    "adamqlr.figures.evolution:learning_rate",
)
SHARPNESS = Exhibit(
    "Directional sharpness",
    "Sharpness uᵀCu / ‖u‖² of the updates u that were taken, C the Fisher matrix on the step's minibatch: how much the "
    "loss bends along a step of length one, whatever its optimizer knows of it. " + _OF_SURVIVORS + _BANDS,
    "adamqlr.figures.evolution:sharpness",
)
TOGETHER = Exhibit(
    "Rosenbrock trajectories together",
    "One run from (1, −1) for each of the optimizers that the paper shows, in one panel; the star is the optimum.",
    "adamqlr.figures.trajectories:draw_together",
)
DAMPING = Exhibit(
    "Damping and reduction ratio",
    "Damping λ and reduction ratio ρ, for the optimizers that have them: λ falls where ρ is above the upper dashed "
    "line, and grows where it is below the lower one. " + _OF_SURVIVORS + _BANDS,
    "adamqlr.figures.evolution:damping",
)
TUNING_BUDGET = Exhibit(
    "What a tuning budget buys",
    "The objective of the trial that a search of so many trials would choose: medians over random orders of the "
    "trials. It can rise where a trial first reaches a later rung, which then decides.",
    "adamqlr.figures.tuning_budget:draw",
)
PUBLISHED = Exhibit(
    "Published and reproduced",
    "What runs of this study end with, medians over seeds (filled) with the 95 % percentile interval under bootstrap "
    "resampling of the seeds, beside the value published (open) ± its error as published. Published errors need not be "
    "intervals of the same kind, and times are of the machine that took them.",
    "adamqlr.figures.published:draw",
)


def figures_of(config: StudyConfig, suite: str, published: Mapping[Key, Value]) -> dict[str, Exhibit]:
    """Return the figures of a suite by name; of the suite ``sensitivity``, one for each sensitivity study.

    Args:
        config: The study.
        suite: The suite.
        published: What others published; ``published`` is a figure of the suites on which there is any of it.
    """
    if suite == SENSITIVITY:
        return {name: _sweep(config, name) for name in config.sensitivity}
    figures: dict[str, Exhibit] = {}
    cases = [case for case in cases_of(config, suite) if case.optimizer not in config.factorial_optimizers]
    if any(case.is_trajectory for case in cases):
        figures |= {"trajectories": TRAJECTORIES, "trajectories_together": TOGETHER}
    if not all(case.is_trajectory for case in cases):
        figures |= {"performance": PERFORMANCE, "loss": LOSS, "loss_by_step": LOSS_BY_STEP}
        figures |= {"loss_with_evaluation": LOSS_WITH_EVALUATION, "learning_rate": LEARNING_RATE}
        figures["sharpness"] = SHARPNESS
        figures |= {f"ablation_{name}": _ablation(config, name) for name in _ablations(config, suite)}
        if any(case.spec.has_damping and not case.is_trajectory for case in cases):
            figures["damping"] = DAMPING
        figures["profiles"] = _profiles(config)
    if any(case.is_tuned for case in cases):
        figures["tuning_budget"] = TUNING_BUDGET._replace(part=f"{TUNING}/{suite}")
    for name in config.factorials_of(suite):
        figures |= _factorial(config, name)
    if own := published_of(config, suite, published):
        figures["published"] = PUBLISHED._replace(published=own)
    return figures


_PARAMETERS = {
    "lr": "Learning rate",
    "damping": "Initial damping",
    "damping_increase": "Damping stepping factor",
    "lr_clipping": "Learning-rate clipping",
    "lr_rescaling": "Learning-rate rescaling",
}


def _sweep(config: StudyConfig, name: str) -> Exhibit:
    sweep = config.sweep(name)
    label, dataset = config.spec(sweep.optimizer).label, config.dataset_label(sweep.dataset)
    parameter = _PARAMETERS.get(sweep.parameter, sweep.parameter.replace("_", " ").capitalize())
    options = {"sweep": name, "parameter": parameter}
    title, part = f"{parameter} of {label} on {dataset}", f"{SENSITIVITY}/{name}"
    return Exhibit(title, _ENDS, "adamqlr.figures.sensitivity:draw", options, part)


def _ablations(config: StudyConfig, suite: str) -> list[str]:
    """Return the ablations of which a suite has at least two optimizers on some dataset."""
    cases = [case for case in cases_of(config, suite) if not case.is_trajectory]
    found = []
    for name, ablation in config.ablations.items():
        wanted = [case.dataset for case in cases if case.optimizer in ablation.optimizers]
        if any(wanted.count(dataset) > 1 for dataset in ablation.datasets or set(wanted)):
            found.append(name)
    return found


def _ablation(config: StudyConfig, name: str) -> Exhibit:
    ablation = config.ablations[name]
    options = {"optimizers": ablation.optimizers, "datasets": ablation.datasets}
    return Exhibit(f"Ablation of {name.replace('_', ' ')}", _BANDS, "adamqlr.figures.evolution:ablation", options)


def _factorial(config: StudyConfig, name: str) -> dict[str, Exhibit]:
    layout = config.factorials[name]
    first = layout.heuristics_label(layout.first)
    title, options = f"What heuristics do: {name.replace('_', ' ')}", {"factorial": name}
    relative = (
        f"The test loss of each direction relative to that with “{first}”, the line at 1: markers left of it say that "
        "heuristics help. Filled markers are runs as they end, open ones where their validation loss is lowest, which "
        "forgives a later divergence. Lines are the 95 % percentile interval of the ratio of medians under bootstrap "
        "resampling of the seeds. A diverged run counts as infinitely bad; an arrow at the edge is beyond the axis."
    )
    course = (
        f"A color below that of “{first}” helps the row's direction; look whether it does so in every row. " + _BANDS
    )
    return {
        f"factorial_{name}": Exhibit(title, relative, "adamqlr.figures.factorial:draw", options),
        f"factorial_{name}_curves": Exhibit(
            f"{title}, against time", course, "adamqlr.figures.factorial:curves", options
        ),
    }


def _profiles(config: StudyConfig) -> Exhibit:
    gap = config.statistics.target_gap
    caption = (
        "The fraction of all cases, (dataset, seed) pairs, in which an optimizer reaches the target within a multiple "
        "of what the best optimizer of that case takes. A dataset's target is the test loss that leaves "
        f"{100 * gap:g}% of the way from the initial loss to the lowest final median of all optimizers."
    )
    return Exhibit("Time-to-target profiles", caption, "adamqlr.figures.profiles:draw", {"target_gap": gap})
