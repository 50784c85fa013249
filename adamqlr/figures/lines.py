"""One color and line for each optimizer everywhere, and its place in legends and tables.

Importing this module does not import matplotlib: tables need the order alone.
"""

from typing import Any

_STYLES: dict[str, tuple[str, str]] = {
    "sgd_minimal": ("#7fb3d9", "-"),
    "sgd_full": ("#1f6fb4", "-"),
    "adam": ("#e6550d", "-"),
    "adam_untuned": ("#f2a33a", "--"),
    "adam_eps": ("#8c2d04", ":"),
    "baydin_sgd": ("#8c8c8c", "-"),
    "kfac": ("#2ca25f", "-"),
    "kfac_untuned": ("#84cc83", "--"),
    "kfac_unadaptive": ("#00441b", ":"),
    "adamqlr": ("#6a3d9a", "-"),
    "adamqlr_untuned": ("#d6218b", "--"),
    "adamqlr_undamped": ("#a58fd0", ":"),
    "adamqlr_hessian": ("#111111", "-."),
}
# Eight hues of equal lightness and saturation (HUSL).
_SPARE_COLORS = ("#f77189", "#ce9032", "#97a431", "#32b166", "#36ada4", "#39a7d0", "#a48cf4", "#f561dd")


def line_style(optimizer: str) -> dict[str, Any]:
    """Return the optimizer's color and line: dashed where untuned, dotted where an ablation."""
    color, line = _STYLES.get(optimizer, (_SPARE_COLORS[sum(optimizer.encode()) % len(_SPARE_COLORS)], "-"))
    return {"color": color, "linestyle": line, "linewidth": 1.2}


def order(optimizer: str) -> int:
    """Return where the optimizer stands in legends."""
    keys = list(_STYLES)
    return keys.index(optimizer) if optimizer in keys else len(keys)
