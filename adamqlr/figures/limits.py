"""Where vertical axes end: every curve's course is shown, but not the heights to which runs jump as they diverge."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatter, SymmetricalLogLocator
from numpy.typing import ArrayLike

from adamqlr.figures.heights import visible_heights

# A signed axis is linear below this part of what is largest, and labels so many heights.
_SIGNED_RANGE, _SIGNED_TICKS = 1e-6, 7
# Smaller numbers have no power of ten below them that is a number.
_SMALLEST = 1e-300


def limit_height(
    axes: Axes,
    heights: ArrayLike,
    scale: str = "log",
    start: float | None = None,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> None:
    """Limit a vertical axis to what is drawn; :func:`adamqlr.figures.heights.visible_heights` has the arguments."""
    visible = visible_heights(heights, scale, start, bounds)
    if visible is None:
        return
    low, high = visible
    if scale == "log":
        set_log_limits(axes, low, high)
    elif high > low:
        axes.set_ylim(low - 0.04 * (high - low), high + 0.04 * (high - low))


def limit_signed_height(
    axes: Axes, medians: ArrayLike, lower: ArrayLike, bounds: tuple[float, float] = (-np.inf, np.inf)
) -> None:
    """Make a vertical axis symmetric-logarithmic, so that negative medians and the lower ends of bands are seen.

    It is linear about 0 below the magnitude of the smaller medians, but spans few enough decades for its labels.

    Args:
        axes: A panel.
        medians: Heights of the curves.
        lower: Lower ends of their bands, of which the negative ones count.
        bounds: What the axis never goes beyond.
    """
    centers, ends = (np.asarray(values, dtype=float).ravel() for values in (medians, lower))
    centers = centers[np.isfinite(centers)]
    sizes = np.abs(centers[centers != 0])
    heights = np.clip(np.concatenate([centers, ends[ends < 0], [0]]), *bounds)
    low, high = float(heights.min()), float(heights.max())
    largest = max(-low, high)
    smallest = max(np.quantile(sizes, 0.1), _SIGNED_RANGE * largest) if len(sizes) else largest or 1.0
    threshold = float(10 ** np.floor(np.log10(max(smallest, _SMALLEST))))
    # With room for what is at 0, which would lie on the end of the axis.
    axes.set_yscale("symlog", linthresh=threshold)
    axes.set_ylim(min(2 * low, -0.5 * threshold), max(2 * high, 0.5 * threshold))
    locator = SymmetricalLogLocator(base=10, linthresh=threshold)
    locator.set_params(numticks=_SIGNED_TICKS)
    axes.yaxis.set_major_locator(locator)


class _Decimals(LogFormatter):
    """Labels the ticks that a logarithmic axis would label anyway, as 0.6 instead of 6 × 10⁻¹."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def set_log_limits(axes: Axes, low: float, high: float) -> None:
    """Limit a logarithmic vertical axis, with a small margin; one of few decades gets plain numbers."""
    margin = max(high / low, 1.01) ** 0.05
    axes.set_ylim(low / margin, high * margin)
    if low > 1e-3 and high < 1e4 and high / low < 100:
        axes.yaxis.set_major_formatter(_Decimals())
        axes.yaxis.set_minor_formatter(_Decimals())
