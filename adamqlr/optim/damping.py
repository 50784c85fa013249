"""Levenberg–Marquardt adaptation of the damping λ (paper, section 3.2; Martens & Grosse 2015, section 6.5)."""

from typing import NamedTuple

import torch
from torch import Tensor

GOOD_RATIO = 0.75
POOR_RATIO = 0.25


class DampingRule(NamedTuple):
    """How λ follows the reduction ratio ρ = true change of the loss / change predicted by the model.

    Attributes:
        decrease: ω_dec, multiplies λ where ρ > 3/4.
        increase: ω_inc, multiplies λ where ρ < 1/4.
        minimum: λ never falls below.
        increase_on_nan: Whether a ρ that is not a number counts as poor (K-FAC) or leaves λ alone (AdamQLR).
    """

    decrease: float
    increase: float
    minimum: float
    increase_on_nan: bool = False

    def __call__(self, damping: Tensor, rho: Tensor) -> Tensor:
        """Return the new damping λ, a 0-d tensor on the device of ``rho``."""
        poor = ~(rho >= POOR_RATIO) if self.increase_on_nan else rho < POOR_RATIO
        adapted = torch.where(rho > GOOD_RATIO, damping * self.decrease, damping)
        adapted = torch.where(poor, damping * self.increase, adapted)
        return adapted.clamp(min=self.minimum)
