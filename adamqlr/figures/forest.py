"""A forest plot of claims: what was measured on each dataset, its interval, and what the claim wants."""

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from adamqlr.figures.style import TEXT_WIDTH, space_log_ticks
from adamqlr.study.config import StudyConfig
from adamqlr.study.names import SENSITIVITY

# Legible in black and white by the markers, and to the color-blind by both.
_MARKS: dict[str, dict[str, Any]] = {
    "supported": {"color": "#0072b2", "marker": "o"},
    "refuted": {"color": "#c44e00", "marker": "X"},
    "mixed": {"color": "#8a3fa0", "marker": "P"},
    "undecided": {"color": "#6b6b6b", "marker": "D", "markerfacecolor": "white"},
}
_WANTED, _LIMIT = "#e3eef6", "#7aa6c8"
# Estimates beyond this many times a limit, and interval ends beyond the estimates by a factor, stand at the edge.
_WIDEST, _ROOM = 1000.0, 3.0
# Inches: of a row, a line of text, what is below an axis, the legend, the gap beside a panel, a character of a label.
_ROW, _LINE, _BELOW, _LEGEND, _GAP, _CHARACTER = 0.15, 0.13, 0.32, 0.3, 0.16, 0.052
_TITLE_CHARACTERS = 54


class _Panel(NamedTuple):
    """One claim: its statement in lines, its verdict, the rows, and their labels."""

    title: str
    verdict: str
    rows: list[dict[Any, Any]]
    labels: list[str]

    @property
    def head(self) -> float:
        return _LINE * (self.title.count("\n") + 2) + 0.05

    @property
    def height(self) -> float:
        return self.head + _ROW * len(self.rows) + _BELOW


def draw(table: pd.DataFrame, summary: pd.DataFrame, config: StudyConfig) -> Figure:
    """Draw the quantities of claims with their intervals, a panel for each claim and a row for each of its verdicts.

    Args:
        table: A row for each claim, dataset and suite: ``claim``, ``suite``, ``dataset``, ``scale`` (``log`` or
            ``linear``), ``estimate``, ``lower``, ``upper``, ``relation`` (≤, <, ≥ or >), ``limit`` and ``verdict``.
        summary: A row for each claim: ``claim``, ``statement`` and ``verdict``.
        config: Labels datasets.

    Returns:
        A figure as wide as the text and as high as its rows need.
    """
    columns = _columns(_panels(table, summary, config))
    height = max(sum(panel.height for panel in column) for column in columns) + _LEGEND
    # Every panel has its place: rows are equally high in all of them.
    figure = plt.figure(figsize=(TEXT_WIDTH, height))
    figure.set_layout_engine("none")
    width = TEXT_WIDTH / len(columns)
    for number, column in enumerate(columns):
        label = _CHARACTER * max([len(label) for panel in column for label in panel.labels], default=0) + _GAP
        top = height
        for panel in column:
            _add_title(figure, panel, number * width, top)
            bottom = top - panel.height + _BELOW
            box = (number * width + label, bottom, width - label - _GAP, _ROW * len(panel.rows))
            axes = figure.add_axes(tuple(np.array(box) / np.tile(figure.get_size_inches(), 2)))
            _draw_panel(axes, panel)
            top -= panel.height
    _add_legend(figure, table)
    return figure


def _panels(table: pd.DataFrame, summary: pd.DataFrame, config: StudyConfig) -> list[_Panel]:
    panels = []
    for claim in summary.to_dict("records"):
        rows = table[table["claim"] == claim["claim"]].to_dict("records")
        if rows:
            title = textwrap.fill(claim["statement"], _TITLE_CHARACTERS)
            panels.append(_Panel(title, claim["verdict"], rows, _labels(rows, config)))
    return panels


def _labels(rows: Sequence[Mapping[Any, Any]], config: StudyConfig) -> list[str]:
    """Return dataset and suite of each row, the suite where the study has several."""
    names = []
    for row in rows:
        dataset = config.dataset_label(row["dataset"]) if row["dataset"] in config.datasets else row["dataset"]
        names.append(dataset if row["suite"] == SENSITIVITY or len(config.suites) < 2 else f"{dataset}, {row['suite']}")
    count = Counter(names)
    # Several sensitivity studies of one dataset.
    seen: Counter[str] = Counter()
    for place, name in enumerate(names):
        seen[name] += 1
        names[place] = f"{name} ({seen[name]})" if count[name] > 1 else name
    return names


def _columns(panels: Sequence[_Panel]) -> list[Sequence[_Panel]]:
    """Divide panels, in their order, into two columns of about the same height; a single one stays alone."""
    if len(panels) < 2:
        return [panels]
    heights = np.cumsum([panel.height for panel in panels])
    first = 1 + int(np.argmin(np.maximum(heights, heights[-1] - heights)[:-1]))
    return [panels[:first], panels[first:]]


def _add_title(figure: Figure, panel: _Panel, left: float, top: float) -> None:
    size = figure.get_size_inches()
    x, below = left + 0.06, top - 0.03 - _LINE * (panel.title.count("\n") + 1)
    figure.text(x / size[0], (top - 0.03) / size[1], panel.title, va="top", fontsize=7.5, linespacing=1.2)
    mark = _MARKS[panel.verdict]
    place: dict[str, Any] = {"transform": figure.transFigure, "markersize": 4.5, "linestyle": ""}
    figure.add_artist(Line2D([(x + 0.04) / size[0]], [(below - 0.055) / size[1]], **place, **mark))
    wanted = {f" (wanted {row['relation']} {row['limit']:.3g})" for row in panel.rows}
    text = panel.verdict + (wanted.pop() if len(wanted) == 1 else "")
    style: dict[str, Any] = {"va": "top", "fontsize": 7, "color": mark["color"], "weight": "bold"}
    figure.text((x + 0.13) / size[0], below / size[1], text, **style)


def _draw_panel(axes: Axes, panel: _Panel) -> None:
    is_log = panel.rows[0]["scale"] == "log"
    low, high = _log_limits(panel.rows) if is_log else _linear_limits(panel.rows)
    count = len(panel.rows)
    axes.set(xscale="log" if is_log else "linear", xlim=(low, high), ylim=(count - 0.5, -0.5))
    for height, row in enumerate(panel.rows):
        ends, across = [height - 0.5, height + 0.5], (low, row["limit"])
        axes.fill_betweenx(ends, *(across if row["relation"] in "≤<" else (row["limit"], high)), color=_WANTED, lw=0)
        axes.plot([row["limit"]] * 2, ends, color=_LIMIT, linewidth=0.8)
        _draw_row(axes, row, height)
    axes.set(yticks=range(count), yticklabels=panel.labels)
    axes.tick_params("both", length=0, pad=2, labelsize=6.5)
    axes.tick_params("x", length=2)
    axes.grid(visible=False, axis="y")
    if is_log:
        space_log_ticks(axes.xaxis)


def _draw_row(axes: Axes, row: Mapping[Any, Any], height: float) -> None:
    """Draw an interval and the estimate; dotted, with the marker at the limit, where nothing is known."""
    low, high = axes.get_xlim()
    mark = _MARKS[row["verdict"]]
    is_known = not np.isnan(row["estimate"])
    ends = np.clip([row["lower"], row["upper"]], low, high)
    axes.plot(ends, [height] * 2, color=mark["color"], linewidth=1.1, linestyle="-" if is_known else ":")
    for edge, goes_on, arrow in ((low, row["lower"] < low, "<"), (high, row["upper"] > high, ">")):
        if goes_on:
            axes.plot(edge, height, arrow, color=mark["color"], markersize=3, clip_on=False)
    at = np.clip(row["estimate"] if is_known else row["limit"], low, high)
    axes.plot(at, height, markersize=4, markeredgewidth=0.9, linestyle="", clip_on=False, zorder=3, **mark)


def _log_limits(rows: Sequence[Mapping[Any, Any]]) -> tuple[float, float]:
    limits = np.array([row["limit"] for row in rows])
    centers = np.array([row["estimate"] for row in rows]) / limits
    centers = np.append(np.clip(centers[np.isfinite(centers)], 1 / _WIDEST, _WIDEST), [0.8, 1.25]) * limits[0]
    ends = np.array([[row["lower"], row["upper"]] for row in rows]).ravel()
    ends = np.clip(ends, centers.min() / _ROOM, centers.max() * _ROOM)
    low, high = min(centers.min(), *ends), max(centers.max(), *ends)
    margin = (high / low) ** 0.04
    return low / margin, high * margin


def _linear_limits(rows: Sequence[Mapping[Any, Any]]) -> tuple[float, float]:
    centers = np.array([row[name] for row in rows for name in ("estimate", "limit")])
    centers = centers[np.isfinite(centers)]
    ends = np.array([[row["lower"], row["upper"]] for row in rows])
    widths = np.diff(ends)[np.isfinite(ends).all(axis=1)]
    room = _ROOM * max(float(np.ptp(centers)), float(np.median(widths)) if len(widths) else 0.0) or 1.0
    ends = np.clip(ends.ravel(), centers.min() - room, centers.max() + room)
    low, high = min(centers.min(), *ends), max(centers.max(), *ends)
    margin = 0.06 * (high - low) or 0.5
    return low - margin, high + margin


def _add_legend(figure: Figure, table: pd.DataFrame) -> None:
    if table.empty:
        figure.text(0.5, 0.5, "No claim could be weighed", ha="center", va="center")
        return
    handles: list[Any] = [
        Line2D([], [], label=verdict.capitalize(), markersize=4.5, linestyle="", **mark)
        for verdict, mark in _MARKS.items()
    ]
    handles.append(Patch(facecolor=_WANTED, edgecolor=_LIMIT, linewidth=0.8, label="Wanted"))
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), fontsize=7, borderaxespad=0.2)
