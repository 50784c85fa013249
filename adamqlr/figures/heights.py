"""Which heights a vertical axis shows: every curve's course, but not where runs jump as they diverge.

Importing this module does not import matplotlib.
"""

import numpy as np
from numpy.typing import ArrayLike

# Nothing is shown beyond so many times the height at which curves start, nor below such a part of the top.
_ABOVE_START, _BELOW_TOP = 3.0, 1e-6


def visible_heights(
    heights: ArrayLike,
    scale: str = "log",
    start: float | None = None,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> tuple[float, float] | None:
    """Return the lowest and highest of what is to be seen, without margins; None if there is nothing.

    Args:
        heights: Of the curves; what is not finite, or not positive on a logarithmic axis, does not count.
        scale: ``log`` or ``linear``.
        start: Where curves that fall begin.
        bounds: What the axis never goes beyond.
    """
    values = np.asarray(heights, dtype=float).ravel()
    values = values[np.isfinite(values) & ((values > 0) | (scale != "log"))]
    if not len(values):
        return None
    low, high = (float(np.clip(end, *bounds)) for end in (values.min(), values.max()))
    if start is not None:
        high = min(high, _ABOVE_START * start)
        low = max(low, high * _BELOW_TOP)
    return low, high
