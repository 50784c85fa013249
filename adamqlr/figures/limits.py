"""Where vertical axes end: every curve's course is shown, but not the heights to which runs jump as they diverge."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatter
from numpy.typing import ArrayLike

# Nothing is shown beyond so many times the height at which curves start, nor below such a part of the top.
_ABOVE_START, _BELOW_TOP = 3.0, 1e-6


def limit_height(
    axes: Axes,
    heights: ArrayLike,
    scale: str = "log",
    start: float | None = None,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> None:
    """Limit a vertical axis to what is drawn.

    Args:
        axes: A panel.
        heights: Of the curves; what is not finite, or not positive on a logarithmic axis, does not count.
        scale: ``log``, ``symlog`` or ``linear``.
        start: Where curves that fall begin.
        bounds: What the axis never goes beyond.
    """
    values = np.asarray(heights, dtype=float).ravel()
    values = values[np.isfinite(values) & ((values > 0) | (scale != "log"))]
    if not len(values):
        return
    low, high = (float(np.clip(end, *bounds)) for end in (values.min(), values.max()))
    if start is not None:
        high = min(high, _ABOVE_START * start)
        low = max(low, high * _BELOW_TOP)
    if scale == "log":
        set_log_limits(axes, low, high)
    elif scale == "symlog":
        axes.set_ylim(2 * low if low < 0 else -0.1 * high, 2 * high)
    elif high > low:
        axes.set_ylim(low - 0.04 * (high - low), high + 0.04 * (high - low))


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
