"""What others published beside what this study's runs end with."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from adamqlr.errors import UserError
from adamqlr.figures.style import TEXT_WIDTH, space_log_ticks
from adamqlr.results.final import QUANTITIES, final_values
from adamqlr.results.statistics import median_over_seeds, survived_fraction
from adamqlr.results.study import Study

_COLUMNS = 2
# A panel whose values differ by more than this factor has a logarithmic axis.
_WIDE = 10.0
_OFFSET = 0.17


def draw(study: Study, suite: str) -> tuple[Figure, pd.DataFrame]:
    """Draw published values and this study's medians, a panel for each dataset and metric, a row an optimizer.

    Returns:
        The figure, and its numbers: a row for each dataset, optimizer and metric of which something was published.

    Raises:
        UserError: Nothing of what was published is in this study.
    """
    numbers = _numbers(study, suite)
    if numbers.empty:
        raise UserError(f"suite '{suite}': no published value is of a dataset and an optimizer of this study")
    panels = [panel for _, panel in numbers.groupby(["dataset", "metric"], sort=False)]
    columns = min(_COLUMNS, len(panels))
    blocks = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    heights = [0.75 + 0.26 * max(len(panel) for panel in block) for block in blocks]
    figure, grid = plt.subplots(
        len(blocks), columns, figsize=(TEXT_WIDTH, sum(heights) + 0.3), squeeze=False, height_ratios=heights
    )
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw_panel(axes, panel)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    _add_legend(figure, is_infinite=bool(np.isinf(numbers["median"]).any()))
    return figure, numbers.drop(columns=["label", "title", "color"])


def _numbers(study: Study, suite: str) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for pair in study.pairs(suite):
        finals = final_values(pair.cube)
        for metric, published in study.published_of(suite, pair).items():
            found = median_over_seeds(finals[metric], study.resampling)
            rows.append(
                {
                    "dataset": pair.dataset,
                    "optimizer": pair.optimizer,
                    "metric": metric,
                    "published": published.value,
                    "published_error": published.error,
                    **{name: float(found[name]) for name in ("median", "std", "lower", "upper")},
                    "survived": survived_fraction(pair.cube),
                    "label": pair.optimizer_label,
                    "title": f"{pair.dataset_label}: {QUANTITIES[metric].label.lower()}",
                    "color": pair.spec.color,
                }
            )
    return pd.DataFrame(rows)


def _draw_panel(axes: Axes, panel: pd.DataFrame) -> None:
    rows = panel.to_dict("records")
    for height, row in enumerate(rows):
        error = row["published_error"] if row["published_error"] > 0 else None
        style: dict[str, Any] = {"color": row["color"], "markersize": 4.5, "linewidth": 1.1}
        axes.errorbar(
            row["published"], height - _OFFSET, xerr=error, fmt="o", markerfacecolor="white", capsize=2, **style
        )
        if np.isfinite(row["median"]):
            ends = [end if np.isfinite(end) else row["median"] for end in (row["lower"], row["upper"])]
            axes.plot(ends, [height + _OFFSET] * 2, **style)
            axes.plot(row["median"], height + _OFFSET, "o", **style)
        elif not np.isnan(row["median"]):
            side = 0.985 if row["median"] > 0 else 0.015
            axes.plot(side, height + _OFFSET, "X", transform=axes.get_yaxis_transform(), **style)
    axes.set(yticks=range(len(rows)), yticklabels=[row["label"] for row in rows], ylim=(len(rows) - 0.5, -0.5))
    axes.set_title(rows[0]["title"])
    axes.grid(visible=False, axis="y")
    drawn = panel[["published", "median"]].to_numpy().ravel()
    if _is_wide(drawn[np.isfinite(drawn)].tolist()):
        axes.set_xscale("log")
        space_log_ticks(axes.xaxis)


def _is_wide(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) > _WIDE * min(values)


def _add_legend(figure: Figure, is_infinite: bool) -> None:
    style: dict[str, Any] = {"color": "#555555", "linestyle": "", "marker": "o", "markersize": 4.5}
    handles = [
        Line2D([], [], label="Published ± error", markerfacecolor="white", **style),
        Line2D([], [], label="This study, median and interval", **style),
    ]
    if is_infinite:
        handles.append(Line2D([], [], label="Median diverges", **{**style, "marker": "X"}))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=7)
