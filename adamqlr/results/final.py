"""What runs end with: the quantities of final results, of each seed."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    # The workflow, which asks what was published, need not wait for its import.
    import xarray as xr


class Quantity(NamedTuple):
    """One quantity that runs end with.

    Attributes:
        label: Its name for readers.
        sign: 1 where more is better, −1 where less is, 0 where there is no better.
    """

    label: str
    sign: int


QUANTITIES = {
    "train_loss": Quantity("Training loss", -1),
    "test_loss": Quantity("Test loss", -1),
    "generalization_gap": Quantity("Generalization gap", 0),
    "train_accuracy": Quantity("Training accuracy", 1),
    "test_accuracy": Quantity("Test accuracy", 1),
    "steps": Quantity("Steps", 0),
    "time": Quantity("Time (s)", 0),
}


def final_values(cube: "xr.Dataset") -> "dict[str, xr.DataArray]":
    """Return each quantity that runs end with, of shape (seed,), in the order of :data:`QUANTITIES`."""
    last = cube["value"].isel(time=-1, drop=True)
    found = {name: last.sel(metric=name, drop=True) for name in QUANTITIES if name in last["metric"]}
    gap = found["test_loss"] - found["train_loss"]
    found |= {
        # Where both losses are infinite the gap is unknown, and no better than infinite.
        "generalization_gap": gap.where(~(cube["diverged"] & np.isinf(found["test_loss"])), np.inf),
        "steps": cube["final_step"].astype(float),
        "time": cube["final_time"],
    }
    return {name: found[name] for name in QUANTITIES}
