"""The heuristics: how far to go along given directions, and how much to trust the model that says so.

The legend of symbols, here and in all of :mod:`adamqlr.optim` (paper, section 3; Martens & Grosse 2015, sections 6
and 7):

======  ================================================================================================
θ       parameters
L       loss on the minibatch B; g = ∇L its gradient
V       directions, [v₁] or [v₁ v₂]: v₁ is what a direction proposes, v₂ the previous update
C       curvature matrix: the Fisher E[Jᵀ H J] or the Hessian ∇²L; never formed
b       Vᵀ g, the slopes
Q       Vᵀ C V
D       Vᵀ V
λ       damping
M       M(θ + V w) = L + bᵀw + ½ wᵀ (Q + λ D) w, the quadratic model
w       coefficients of the directions: α = −w₁ is the learning rate, w₂ the momentum
ρ       (L(θ + V w) − L(θ)) / (M(θ + V w) − M(θ)), the reduction ratio
ω       ω_dec and ω_inc, by which λ shrinks and grows
======  ================================================================================================

Vectors and matrices of one or two elements are lists of numbers: 0-d tensors, or one of shape (members,) for networks
side by side.
"""

import math
from collections.abc import Sequence
from functools import cache
from struct import Struct

import torch
from torch import Tensor

GOOD_RATIO = 0.75
POOR_RATIO = 0.25

# What is larger does not fit into single precision.
_SINGLE, _ALMOST_LARGEST = Struct("f"), 3.4e38

Vector = Sequence[Tensor]
Matrix = Sequence[Sequence[Tensor]]


@cache
def _minus_nothing(dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(-torch.finfo(dtype).tiny, dtype=dtype, device=device)


class QuadraticModel:
    """M(θ + V w) − L = bᵀw + ½ wᵀ (Q + λ D) w, in one or two directions.

    Args:
        gradient: g, of shape (…, n).
        directions: v₁ and perhaps v₂, of shape (…, n) each.
        curvature: Q.
        damping: λ.

    Attributes:
        slopes: b.
        curvature: Q.
        damped: Q + λ D.
    """

    def __init__(self, gradient: Tensor, directions: Vector, curvature: Matrix, damping: Tensor) -> None:
        vecdot = torch.linalg.vecdot
        self.slopes = [vecdot(gradient, direction) for direction in directions]
        self.curvature = curvature
        self.damped = [
            [torch.addcmul(q, damping, vecdot(v, u)) for q, u in zip(row, directions, strict=True)]
            for row, v in zip(curvature, directions, strict=True)
        ]

    def minimizer(self, lr: float | None = None, momentum: float | None = None) -> list[Tensor]:
        """Return w = −(Q + λ D)⁻¹ b, or its minimum over what is free where a coefficient is given.

        A direction that has vanished gets the weight 0.

        Args:
            lr: Fixed α = −w₁, or None.
            momentum: Fixed w₂, or None; for two directions.
        """
        first = self.slopes[0]
        w1 = None if lr is None else torch.full_like(first, -lr)
        if len(self.slopes) == 1:
            # The smallest number makes no difference but to a vanished gradient: 0/0 must not undo what was learnt.
            return [first / (_minus_nothing(first.dtype, first.device) - self.damped[0][0]) if w1 is None else w1]
        w2 = None if momentum is None else torch.full_like(first, momentum)
        (q11, q12), (_, q22) = self.damped
        b1, b2 = self.slopes
        # A direction without length has no curvature either: a 1 in its place leaves the other one's equation alone.
        q11, q22 = (torch.where((q == 0) & (b == 0), 1.0, q) for q, b in ((q11, b1), (q22, b2)))
        if w1 is None and w2 is None:
            determinant = q11 * q22 - q12 * q12
            return [(q12 * b2 - q22 * b1) / determinant, (q12 * b1 - q11 * b2) / determinant]
        if w1 is None:
            assert w2 is not None
            return [-(b1 + q12 * w2) / q11, w2]
        return [w1, -(b2 + q12 * w1) / q22 if w2 is None else w2]

    def change(self, weights: Vector, damped: bool = True) -> Tensor:
        """Return M(θ + V w) − M(θ), with the damping in M or without."""
        matrix = self.damped if damped else self.curvature
        parts = []
        for weight, slope, row in zip(weights, self.slopes, matrix, strict=True):
            for other, element in zip(weights, row, strict=True):
                slope = torch.addcmul(slope, other, element, value=0.5)
            parts.append(weight * slope)
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]


class DampingRule:
    """How λ follows ρ: Levenberg–Marquardt (paper, section 3.2; Martens & Grosse 2015, section 6.5).

    Args:
        decrease: ω_dec, multiplies λ where ρ > 3/4; for networks side by side also one for each.
        increase: ω_inc, multiplies λ where ρ < 1/4; likewise.
        minimum: λ_min.
        maximum: λ_max.
        like: A tensor of the dtype and on the device of λ.
        nan_is_poor: Whether a ρ that is not a number counts as poor (K-FAC) or leaves λ alone.
        resolution: λ stays where |ΔL| is at most so many units of L's last place: ρ then says nothing, and λ would run
            away. None: ρ always counts.
    """

    def __init__(
        self,
        decrease: float | Sequence[float],
        increase: float | Sequence[float],
        minimum: float,
        maximum: float,
        like: Tensor,
        nan_is_poor: bool = False,
        resolution: float | None = None,
    ) -> None:
        # Tensors, as arithmetic with Python's numbers takes twice the time.
        self._decrease, self._increase, self._unchanged, self._good, self._poor, self._minimum, self._maximum = (
            like.new_tensor(value) for value in (decrease, increase, 1.0, GOOD_RATIO, POOR_RATIO, minimum, maximum)
        )
        self._limited = math.isfinite(maximum)
        self._nan_is_poor = nan_is_poor
        self._fraction = None if resolution is None else 0.5 / resolution
        # On a CPU the numbers are at hand, and reading them takes less than the kernels of the rule.
        numbers = self._decrease, self._increase, self._minimum, self._maximum
        self._host = list(map(float, numbers)) if like.device.type == "cpu" and like.dim() == 0 else None
        self._is_double = like.dtype == torch.float64

    def __call__(self, damping: Tensor, rho: Tensor, loss: Tensor, true_change: Tensor) -> Tensor:
        """Move λ, in place, and return what it is then.

        Args:
            damping: λ.
            rho: ρ.
            loss: L(θ), which says what can be resolved.
            true_change: ΔL.
        """
        if self._host is not None:
            new = self._on_host(damping.item(), rho.item(), loss.item(), true_change.item())
            return damping.fill_(new).clone()
        poor = ~(rho >= self._poor) if self._nan_is_poor else rho < self._poor
        factor = torch.where(rho > self._good, self._decrease, torch.where(poor, self._increase, self._unchanged))
        if self._fraction is not None:
            # What is lost when it is added to L is less than half a unit of L's last place.
            lost = torch.add(loss, true_change, alpha=self._fraction) == loss
            factor = torch.where(lost, self._unchanged, factor)
        adapted = torch.maximum(damping * factor, self._minimum)
        adapted = torch.minimum(adapted, self._maximum) if self._limited else adapted
        damping.copy_(adapted)
        return adapted

    def _on_host(self, damping: float, rho: float, loss: float, true_change: float) -> float:
        """Return the new λ as above, for one network on a CPU."""
        assert self._host is not None
        decrease, increase, minimum, maximum = self._host
        poor = not rho >= POOR_RATIO if self._nan_is_poor else rho < POOR_RATIO
        factor = decrease if rho > GOOD_RATIO else increase if poor else 1.0
        if self._fraction is not None and self._round(loss + self._fraction * true_change) == loss:
            factor = 1.0
        return min(max(damping * factor, minimum), maximum)

    def _round(self, number: float) -> float:
        """Return a number as the loss's precision holds it."""
        if self._is_double or not abs(number) < _ALMOST_LARGEST:
            return number
        return _SINGLE.unpack(_SINGLE.pack(number))[0]
