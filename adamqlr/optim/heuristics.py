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
side by side. For one network on a CPU they are Python's numbers: reading one there takes less than the smallest kernel.
"""

import math
from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor

from adamqlr.optim.numbers import Number, at_hand, is_zero, magnitude, plus_product, quotient, rounded, where, where_all
from adamqlr.optim.ratios import GOOD_RATIO, POOR_RATIO

Vector = Sequence[Tensor]
Matrix = Sequence[Sequence[Tensor]]


def inner_product(first: Tensor, second: Tensor) -> Tensor:
    """Return the inner product of vectors of shape (…, n)."""
    # For one network there is a kernel that has less to find out.
    return torch.dot(first, second) if first.dim() == 1 else torch.linalg.vecdot(first, second)


def gram(vectors: Vector, others: Vector) -> list[list[Tensor]]:
    """Return the inner products of one or two vectors with as many others, where those form a symmetric matrix."""
    first = inner_product(vectors[0], others[0])
    if len(vectors) == 1:
        return [[first]]
    mixed = inner_product(vectors[1], others[0])
    return [[first, mixed], [mixed, inner_product(vectors[1], others[1])]]


def quadratic_forms(gradient: Tensor, directions: Vector, curvature: Matrix, damping: Tensor) -> list[Tensor]:
    """Return what a quadratic model is made of: λ, b, and Q and D by their upper triangles.

    Args:
        gradient: g, of shape (…, n).
        directions: v₁ and perhaps v₂, of shape (…, n) each.
        curvature: Q.
        damping: λ.
    """
    slopes = [inner_product(gradient, direction) for direction in directions]
    triangles = [
        row[index:] for matrix in (curvature, gram(directions, directions)) for index, row in enumerate(matrix)
    ]
    return [damping, *slopes, *chain(*triangles)]


class QuadraticModel:
    """M(θ + V w) − L = bᵀw + ½ wᵀ (Q + λ D) w, in one or two directions.

    Args:
        forms: The numbers that :func:`quadratic_forms` says.

    Attributes:
        damping: λ.
        slopes: b.
        curvature: Q.
        damped: Q + λ D.
    """

    def __init__(self, forms: Sequence[Number]) -> None:
        # Written out for one and for two directions: Python's loops would take longer than the rest.
        if len(forms) == 4:
            self.damping, b, q, d = forms
            self.slopes, self.curvature = [b], [[q]]
            self.damped = [[plus_product(q, self.damping, d)]]
            return
        self.damping, b1, b2, q11, q12, q22, d11, d12, d22 = forms
        self.slopes, self.curvature = [b1, b2], [[q11, q12], [q12, q22]]
        mixed = plus_product(q12, self.damping, d12)
        first, second = plus_product(q11, self.damping, d11), plus_product(q22, self.damping, d22)
        self.damped = [[first, mixed], [mixed, second]]

    def minimizer(
        self, nothing: Number, lr: Number | None = None, momentum: Number | None = None, rounding: float = 0.0
    ) -> Sequence[Number]:
        """Return w = −(Q + λ D)⁻¹ b, or its minimum over what is free where a coefficient is given.

        A direction that has vanished gets the weight 0, and so does the second of two that are parallel.

        Args:
            nothing: Minus the smallest number, which makes no difference but there.
            lr: Fixed α = −w₁, or None; for networks side by side also one for each.
            momentum: Fixed w₂, or None; for two directions; likewise.
            rounding: The relative error of a product, below which a determinant says nothing.
        """
        first = self.slopes[0]
        w1, w2 = None if lr is None else _given(-lr, first), None if momentum is None else _given(momentum, first)
        if len(self.slopes) == 1:
            # A gradient that has vanished must not undo what was learned: 0/0 would.
            return [quotient(first, nothing - self.damped[0][0]) if w1 is None else w1]
        (q11, q12), (_, q22) = self.damped
        b1, b2 = self.slopes
        # A direction without length has no curvature either: a 1 in its place leaves the other one's equation alone.
        q11, q22 = (where(is_zero(q) & is_zero(b), 1.0, q) for q, b in ((q11, b1), (q22, b2)))
        if w1 is None and w2 is None:
            product = q11 * q22
            determinant = product - q12 * q12
            both = [quotient(q12 * b2 - q22 * b1, determinant), quotient(q12 * b1 - q11 * b2, determinant)]
            return where_all(magnitude(determinant) > rounding * magnitude(product), both, [quotient(-b1, q11), 0.0])
        if w1 is None:
            assert w2 is not None
            return [quotient(-(b1 + q12 * w2), q11), w2]
        return [w1, quotient(-(b2 + q12 * w1), q22) if w2 is None else w2]

    def change(self, weights: Sequence[Number], damped: bool = True) -> Number:
        """Return M(θ + V w) − M(θ), with the damping in M or without."""
        matrix = self.damped if damped else self.curvature
        if len(weights) == 1:
            return weights[0] * plus_product(self.slopes[0], weights[0], matrix[0][0], 0.5)
        (w1, w2), (b1, b2), ((q11, q12), (_, q22)) = weights, self.slopes, matrix
        first = plus_product(plus_product(b1, w1, q11, 0.5), w2, q12, 0.5)
        second = plus_product(plus_product(b2, w1, q12, 0.5), w2, q22, 0.5)
        return w1 * first + w2 * second


def _given(value: Number, other: Number) -> Number:
    """Return a given coefficient in the form of another number: no constant, as a schedule may change it."""
    return torch.full_like(other, value) if isinstance(other, Tensor) and not isinstance(value, Tensor) else value


class DampingRule:
    """How λ follows ρ: Levenberg–Marquardt (paper, section 3.2; Martens & Grosse 2015, section 6.5).

    Args:
        decrease: ω_dec, multiplies λ where ρ > 3/4; for networks side by side also one for each.
        increase: ω_inc, multiplies λ where ρ < 1/4; likewise.
        minimum: λ_min.
        maximum: λ_max.
        like: A tensor of the dtype and on the device of λ.
        nan_is_poor: Whether a ρ that is not a number counts as poor (K-FAC) or leaves λ alone.
        resolution: λ stays where |ΔL| is at most so many units of L's last place, or of the outputs': ρ then says
            nothing, and λ would run away. None: ρ always counts.
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
        # Of no units, so much of any change is seen.
        self._resolution = resolution or 0.0
        self._fraction = None if resolution is None else 0.5 / max(resolution, 1e-30)
        numbers = self._decrease, self._increase, self._minimum, self._maximum
        self._host = list(map(float, numbers)) if at_hand(like) else None
        self._dtype = like.dtype

    def __call__(
        self, damping: Number, rho: Number, loss: Number, true_change: Number, unresolved: Number | None = None
    ) -> Number:
        """Return what becomes of λ.

        Args:
            damping: λ.
            rho: ρ.
            loss: L(θ), which says what can be resolved.
            true_change: ΔL.
            unresolved: By how much L changes with a unit of the outputs' last place, where L resolves more; or None.
        """
        if isinstance(rho, Tensor):
            return self._of_tensors(damping, rho, loss, true_change, unresolved)  # type: ignore[arg-type]
        return self._of_numbers(damping, rho, loss, true_change, unresolved)  # type: ignore[arg-type]

    def _of_tensors(
        self, damping: Tensor, rho: Tensor, loss: Tensor, true_change: Tensor, unresolved: Tensor | None
    ) -> Tensor:
        poor = ~(rho >= self._poor) if self._nan_is_poor else rho < self._poor
        factor = torch.where(rho > self._good, self._decrease, torch.where(poor, self._increase, self._unchanged))
        if self._fraction is not None:
            # What is lost when it is added to L is less than half a unit of L's last place.
            lost = torch.add(loss, true_change, alpha=self._fraction) == loss
            if unresolved is not None:
                lost = lost | (true_change.abs() <= unresolved * self._resolution)
            factor = torch.where(lost, self._unchanged, factor)
        adapted = torch.maximum(damping * factor, self._minimum)
        return torch.minimum(adapted, self._maximum) if self._limited else adapted

    def _of_numbers(
        self, damping: float, rho: float, loss: float, true_change: float, unresolved: float | None
    ) -> float:
        """Return the new λ as above, for one network on a CPU."""
        assert self._host is not None
        decrease, increase, minimum, maximum = self._host
        poor = not rho >= POOR_RATIO if self._nan_is_poor else rho < POOR_RATIO
        factor = decrease if rho > GOOD_RATIO else increase if poor else 1.0
        if self._fraction is not None:
            is_lost = rounded(loss + self._fraction * true_change, self._dtype) == loss
            if is_lost or (unresolved is not None and abs(true_change) <= unresolved * self._resolution):
                factor = 1.0
        return min(max(damping * factor, minimum), maximum)
