"""The picture: ratios to Adam, growth with batch and parameters, packs."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from adamqlr.figures.lines import line_style
from adamqlr.figures.style import paper_style
from adamqlr.files import replacing
from adamqlr.study.optimizers import OPTIMIZERS

from .cases import CAPTURED, MEASURED, label
from .rows import BATCH, PACKS, PARAMETERS, STEPS
from .step_times import GROWING

WIDTH, LEGEND_HEIGHT, ROW_HEIGHT, LOWER_HEIGHT = 7.0, 1.05, 0.42, 2.1
_MARKERS = {
    "sgd_full": "v",
    "adam": "s",
    "baydin_sgd": "X",
    "adamqlr": "o",
    "adamqlr_hessian": "D",
    "kfac": "P",
    "kfac_unadaptive": "^",
}


def draw(frame: pd.DataFrame, path: Path) -> None:
    """Draw all panels into one PNG."""
    section = dict(list(frame.groupby("section")))
    upper_height = LEGEND_HEIGHT + ROW_HEIGHT * len(section[STEPS].groupby(["network", "batch"]))
    with paper_style():
        figure = plt.figure(figsize=(WIDTH, upper_height + LOWER_HEIGHT))
        (upper,), (lower,) = figure.subfigures(2, 1, squeeze=False, height_ratios=[upper_height, LOWER_HEIGHT])
        _draw_ratios(upper.subplots(), section[STEPS])
        by_batch, by_parameters, packs = lower.subplots(1, 3)
        _draw_growth(by_batch, section[BATCH], "batch", "Batch size (784-50-10)")
        _draw_growth(by_parameters, section[PARAMETERS], "parameters", "Parameters (784-h-10, batch 400)")
        _draw_packs(packs, section[PACKS])
        upper.legend(
            handles=[_handle(key) for key in MEASURED],
            title=f"{frame['device'].iloc[0]}; synthetic inputs",
            title_fontsize=7.5,
            loc="outside upper center",
            ncols=len(MEASURED),
            columnspacing=0.9,
        )
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", metadata={"Software": None})
        plt.close(figure)


def _handle(optimizer: str) -> Line2D:
    style = {
        "color": line_style(OPTIMIZERS[optimizer])["color"],
        "marker": _MARKERS[optimizer],
        "markersize": 4,
        "linestyle": "",
    }
    return Line2D([], [], label=label(optimizer), **style)


def _draw_ratios(axes: Axes, steps: pd.DataFrame) -> None:
    """Draw a band of dots for each network; where steps are captured, the eager ones are hollow."""
    names = list(dict.fromkeys(zip(steps["network"], steps["batch"], strict=True)))
    has_captured = bool((steps["mode"] == CAPTURED).any())
    for place, optimizer in enumerate(MEASURED):
        shift = 0.7 * (place / (len(MEASURED) - 1) - 0.5)
        color = line_style(OPTIMIZERS[optimizer])["color"]
        for mode, of in steps[steps["optimizer"] == optimizer].groupby("mode"):
            axes.errorbar(
                of["ratio"].astype(float),
                [names.index(key) + shift for key in zip(of["network"], of["batch"], strict=True)],
                xerr=of["ratio_iqr"].astype(float) / 2,
                fmt=_MARKERS[optimizer],
                color=color,
                markersize=3.8,
                markerfacecolor="white" if has_captured and mode != CAPTURED else color,
                elinewidth=0.8,
                zorder=3 + place,
            )
    for height in range(1, len(names)):
        axes.axhline(height - 0.5, color="#cccccc", linewidth=0.5)
    axes.axvline(1, color="#555555", linewidth=0.8)
    axes.set_yticks(range(len(names)), [f"{network}\nbatch {batch}" for network, batch in names])
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xscale("log")
    _plain_numbers(axes.xaxis)
    axes.set_xlabel("Step time in steps of PyTorch's fused Adam" + (" (hollow: eager)" if has_captured else ""))


def _draw_growth(axes: Axes, frame: pd.DataFrame, column: str, title: str) -> None:
    for optimizer in GROWING:
        of = frame[frame["optimizer"] == optimizer].astype({column: float, "milliseconds": float})
        axes.plot(of[column], of["milliseconds"], **_line(optimizer))
    axes.set(xscale="log", yscale="log", xlabel=title, ylabel="Step (ms)")
    _plain_numbers(axes.yaxis)
    _ticks(axes, frame[column])


def _draw_packs(axes: Axes, frame: pd.DataFrame) -> None:
    """Draw throughput by the number of networks, a line style for each kind of them."""
    styles = dict(zip(frame["network"].unique(), ("-", "--"), strict=True))
    for (network, optimizer), of in frame.groupby(["network", "optimizer"], sort=False):
        rates = of["seed_steps_per_second"].astype(float)
        line = _line(str(optimizer)) | {"linestyle": styles[network]}
        axes.plot(of["members"].iloc[1:].astype(float), rates.iloc[1:] / rates.iloc[0], **line)
    axes.axhline(1, color="#555555", linewidth=0.8)
    axes.set(xscale="log", xlabel="Networks side by side", ylabel="Seeds · steps a second / solo", ylim=(0, None))
    _ticks(axes, frame["members"].dropna())
    axes.legend(
        handles=[Line2D([], [], color="#333333", linewidth=1.2, linestyle=s, label=n) for n, s in styles.items()],
        fontsize=6.5,
        handlelength=1.8,
    )


def _line(optimizer: str) -> dict[str, Any]:
    return line_style(OPTIMIZERS[optimizer]) | {"marker": _MARKERS[optimizer], "markersize": 3.5}


def _ticks(axes: Axes, measured: pd.Series) -> None:
    """Label the horizontal axis where something was measured."""
    places = sorted(set(measured))
    axes.set_xticks(places, [_short(place, None) for place in places])
    axes.set_xticks([], minor=True)


def _plain_numbers(axis: Axis) -> None:
    """Label 1, 2 and 5 times each power of ten on a logarithmic axis."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(_short))
    axis.set_minor_formatter(NullFormatter())


def _short(value: float, _: object) -> str:
    if value >= 10_000:
        return f"{value / 1000:.0f}k"
    return f"{value / 1000:.1f}k" if value >= 1000 else f"{value:g}"
