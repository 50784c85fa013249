"""How figures look."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter
from numpy.typing import ArrayLike, NDArray

from adamqlr.files import replacing

# Inches: the text width of a paper in two columns.
TEXT_WIDTH = 6.75


@contextmanager
def paper_style() -> Iterator[None]:
    """Draw with fonts and lines that are legible at a paper's text width."""
    with sns.axes_style("ticks"), sns.plotting_context("paper"):
        settings: dict[Any, Any] = {
            "font.size": 8,
            "axes.labelsize": 8,
            "axes.titlesize": 8.5,
            "axes.linewidth": 0.6,
            "xtick.labelsize": 7,
            "ytick.labelsize": 7,
            "xtick.major.width": 0.6,
            "ytick.major.width": 0.6,
            "xtick.minor.width": 0.4,
            "ytick.minor.width": 0.4,
            "legend.fontsize": 7.5,
            "legend.frameon": False,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.linewidth": 0.3,
            "grid.color": "#dddddd",
            "savefig.dpi": 300,
            "pdf.fonttype": 42,
            "figure.constrained_layout.use": True,
        }
        with plt.rc_context(settings):
            yield


def space_log_ticks(axis: Axis) -> None:
    """Label a logarithmic axis of less than two decades at few round values, as plain numbers.

    Matplotlib labels most minor ticks of such an axis, as 2 × 10⁻³, which collide at a panel's width.
    """
    low, high = sorted(axis.get_view_interval())
    axis.set_minor_formatter(NullFormatter())
    if high >= 100 * low:
        return
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.log10(high))
    ticks = np.outer(decades, (1, 2, 5) if high < 30 * low else (1, 3)).ravel()
    ticks = _within(ticks, low, high)
    if len(ticks) < 2:
        # Of the steps that give two ticks, the widest may give as many as five.
        ticks = _within(MaxNLocator(3, steps=[1, 2, 5, 10]).tick_values(low, high), low, high)
        ticks = ticks[:: 2 if len(ticks) > 3 else 1]
    axis.set_major_locator(FixedLocator(ticks.tolist()))
    axis.set_major_formatter(FuncFormatter(lambda value, position: f"{value:g}"))


def _within(ticks: ArrayLike, low: float, high: float) -> NDArray[np.float64]:
    found = np.asarray(ticks, dtype=float)
    # With room for rounding: a color bar ends at its first and last values.
    return found[(found > low * (1 - 1e-9)) & (found < high * (1 + 1e-9))]


def save(figure: Figure, numbers: pd.DataFrame, stem: Path) -> None:
    """Write ``stem``.pdf, .png and, with what is drawn, .csv; equal input gives equal files."""
    for suffix, metadata in ((".png", {"Software": None}), (".pdf", {"CreationDate": None})):
        with replacing(stem.with_name(stem.name + suffix)) as temporary:
            figure.savefig(temporary, format=suffix[1:], metadata=metadata)
        # Laid out once, for both formats: that takes as long as drawing.
        figure.set_layout_engine("none")
    plt.close(figure)
    with replacing(stem.with_name(stem.name + ".csv")) as temporary:
        numbers.to_csv(temporary, index=False, float_format="%.8g")
