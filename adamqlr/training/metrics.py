"""The metrics that a run records: names, units, meaning."""

from typing import NamedTuple


class Metric(NamedTuple):
    """What one metric is.

    Attributes:
        units: Physical units; ``"1"`` where there are none.
        long_name: A label for axes and tables.
        worst: What a diverged run counts as: +inf for losses, −inf for accuracies, NaN for diagnostics that have no
            better or worse.
    """

    units: str
    long_name: str
    worst: float


_INF, _NAN = float("inf"), float("nan")

METRICS: dict[str, Metric] = {
    "train_loss": Metric("1", "training loss (minibatch)", _INF),
    "validation_loss": Metric("1", "validation loss", _INF),
    "test_loss": Metric("1", "test loss", _INF),
    "train_accuracy": Metric("1", "training accuracy (minibatch)", -_INF),
    "validation_accuracy": Metric("1", "validation accuracy", -_INF),
    "test_accuracy": Metric("1", "test accuracy", -_INF),
    "lr": Metric("1", "learning rate α", _NAN),
    "damping": Metric("1", "damping λ", _NAN),
    "rho": Metric("1", "reduction ratio ρ", _NAN),
    "curvature": Metric("1", "curvature c along the direction", _NAN),
    "grad_norm": Metric("1", "gradient norm", _NAN),
    "update_norm": Metric("1", "update norm", _NAN),
    "momentum": Metric("1", "momentum, the previous update's coefficient w₂", _NAN),
    "model_change": Metric("1", "change of the quadratic model", _NAN),
    "true_change": Metric("1", "change of the minibatch loss", _NAN),
    "grad_dot_direction": Metric("1", "slope along the direction gᵀd", _NAN),
    "sharpness": Metric("1", "directional sharpness uᵀCu / ‖u‖² of the update u", _NAN),
}
