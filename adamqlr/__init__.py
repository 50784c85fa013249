"""QLR, AdamQLR and K-FAC, which need PyTorch alone; and the study of them, which needs ``adamqlr[study]``."""

from importlib import import_module, metadata
from typing import Any

from adamqlr.extras import extras_named

__version__ = metadata.version("adamqlr")

# Resolved on first use: the workflow's head process reads the configuration without loading PyTorch.
EXPORTS = {
    "QLR": "adamqlr.optim.qlr",
    "AdamQLR": "adamqlr.optim.adamqlr",
    "KFAC": "adamqlr.optim.kfac",
    "Direction": "adamqlr.optim.directions",
    "Loss": "adamqlr.optim.passes.losses",
    "CrossEntropy": "adamqlr.optim.passes.losses",
    "NegativeLogLikelihood": "adamqlr.optim.passes.losses",
    "SquaredError": "adamqlr.optim.passes.losses",
    "load_results": "adamqlr.results.study_file",
}

# Without load_results, as `from adamqlr import *` and help() need what they list.
__all__ = [
    "KFAC",
    "QLR",
    "AdamQLR",
    "CrossEntropy",
    "Direction",
    "Loss",
    "NegativeLogLikelihood",
    "SquaredError",
]


def __getattr__(name: str) -> Any:
    if name not in EXPORTS:
        raise AttributeError(f"module 'adamqlr' has no attribute {name!r}")
    with extras_named():
        return getattr(import_module(EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
