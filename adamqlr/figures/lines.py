"""One color and line for each optimizer everywhere.

Importing this module does not import matplotlib.
"""

from typing import Any

from adamqlr.study.optimizers import OptimizerSpec


def line_style(optimizer: OptimizerSpec) -> dict[str, Any]:
    """Return the arguments of matplotlib's that draw an optimizer's line."""
    return {"color": optimizer.color, "linestyle": optimizer.line, "linewidth": 1.2}
