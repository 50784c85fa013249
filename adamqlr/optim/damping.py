"""Levenberg–Marquardt adaptation of the damping λ (paper, section 3.2; Martens & Grosse 2015, section 6.5)."""

from collections.abc import Sequence

import torch
from torch import Tensor

GOOD_RATIO = 0.75
POOR_RATIO = 0.25


class DampingRule:
    """How λ follows the reduction ratio ρ = true change of the loss / change predicted by the model.

    Args:
        decrease: ω_dec, multiplies λ where ρ > 3/4; for networks side by side also one for each.
        increase: ω_inc, multiplies λ where ρ < 1/4; likewise.
        minimum: λ never falls below.
        like: A tensor of the dtype and on the device of λ.
        increase_on_nan: Whether a ρ that is not a number counts as poor (K-FAC) or leaves λ alone (AdamQLR).
    """

    def __init__(
        self,
        decrease: float | Sequence[float],
        increase: float | Sequence[float],
        minimum: float,
        like: Tensor,
        increase_on_nan: bool = False,
    ) -> None:
        # Tensors, as arithmetic with Python's numbers takes twice the time.
        self._decrease, self._increase, self._minimum, self._unchanged, self._good, self._poor = (
            like.new_tensor(value) for value in (decrease, increase, minimum, 1.0, GOOD_RATIO, POOR_RATIO)
        )
        self._increase_on_nan = increase_on_nan

    def __call__(self, damping: Tensor, rho: Tensor) -> Tensor:
        """Return the new damping λ for λ and ρ of one shape."""
        poor = ~(rho >= self._poor) if self._increase_on_nan else rho < self._poor
        factor = torch.where(rho > self._good, self._decrease, torch.where(poor, self._increase, self._unchanged))
        return torch.maximum(damping * factor, self._minimum)
