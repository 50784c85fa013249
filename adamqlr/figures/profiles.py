"""Time-to-target performance profiles (Dolan & Moré, Mathematical Programming 91, 2002)."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from adamqlr.figures.lines import line_style
from adamqlr.figures.panels import add_legend
from adamqlr.figures.style import TEXT_WIDTH
from adamqlr.results.study import Pair, Study, by_dataset
from adamqlr.results.targets import steps_to_target, target_loss, time_to_target
from adamqlr.study.optimizers import OptimizerSpec

_MEASURES = {"time": time_to_target, "step": steps_to_target}
_AXIS_LABELS = {"time": "Training time / fastest", "step": "Steps / fewest"}
_WIDEST_RATIO = 1000.0


def draw(study: Study, suite: str, target_gap: float) -> tuple[Figure, pd.DataFrame]:
    """Draw which fraction of all (dataset, seed) cases each optimizer solves within a multiple of the best one's cost.

    A case is solved when the test loss reaches the dataset's target (:func:`adamqlr.results.targets.target_loss`).
    Every case counts, so nothing is resampled.

    Returns:
        The figure, and its lines: a row for each measure of cost, optimizer and corner.
    """
    groups = by_dataset(study.test_pairs(suite))
    targets = {key: target_loss([pair.cube for pair in group], target_gap) for key, group in groups.items()}
    pairs = [pair for pair in study.test_pairs(suite) if pair.optimizer not in study.config.factorial_optimizers]
    specs = {pair.optimizer: pair.spec for pair in pairs}
    figure, grid = plt.subplots(1, 2, figsize=(TEXT_WIDTH, 3.1), sharey=True, squeeze=False)
    tables = []
    for axes, measure in zip(grid.flat, _MEASURES, strict=True):
        ratios = cost_ratios(pairs, measure, targets)
        tables.append(_draw_profiles(axes, ratios, specs).assign(measure=measure))
        axes.set(xscale="log", xlabel=_AXIS_LABELS[measure], xlim=(1, _WIDEST_RATIO), ylim=(-0.02, 1.02))
    grid.flat[0].set_ylabel("Fraction of cases at target")
    add_legend(figure, specs.values())
    return figure, pd.concat(tables, ignore_index=True)


def cost_ratios(pairs: list[Pair], measure: str, targets: Mapping[str, float]) -> dict[str, np.ndarray]:
    """Return each optimizer's cost over the lowest of all optimizers, one value a (dataset, seed) case.

    A case that an optimizer does not solve, or has not been given, is +inf.

    Args:
        pairs: Cubes of one suite.
        measure: ``time`` or ``step``.
        targets: The test loss to reach on each dataset.
    """
    optimizers = list(dict.fromkeys(pair.optimizer for pair in pairs))
    blocks = []
    for dataset, group in by_dataset(pairs).items():
        target = targets[dataset]
        costs = {pair.optimizer: _MEASURES[measure](pair.cube, target).to_series() for pair in group}
        table = pd.DataFrame(costs).reindex(columns=optimizers).fillna(np.inf)
        # Reached at once, whatever the optimizer: no case at all.
        table = table[table.min(axis=1) > 0]
        with np.errstate(invalid="ignore"):
            ratios = table.div(table.min(axis=1), axis=0)
        blocks.append(ratios.where(np.isfinite(table), np.inf))
    joined = pd.concat(blocks)
    return {optimizer: joined[optimizer].to_numpy() for optimizer in optimizers}


def _draw_profiles(axes: Axes, ratios: dict[str, np.ndarray], specs: dict[str, OptimizerSpec]) -> pd.DataFrame:
    tables = []
    for optimizer, values in ratios.items():
        solved = np.sort(values[np.isfinite(values)])
        levels = np.arange(1, len(solved) + 1) / max(1, len(values))
        at = np.concatenate([[1.0], solved, [max(_WIDEST_RATIO, *solved, 1.0)]])
        fraction = np.concatenate([[0.0], levels, levels[-1:] if len(levels) else [0.0]])
        axes.step(at, fraction, where="post", **line_style(specs[optimizer]))
        tables.append(pd.DataFrame({"optimizer": optimizer, "ratio": at, "fraction": fraction, "cases": len(values)}))
    return pd.concat(tables, ignore_index=True)
