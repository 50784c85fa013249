"""Kronecker-factored matrices F ≈ A ⊗ G: second moments, and products with the damped inverse.

A and G are symmetric and only their lower triangles are kept: what stands above is not defined.
"""

from typing import NamedTuple

import torch
from torch import Tensor

# Panels narrower than this make matrix products slower than what they save.
_MIN_PANEL, _MAX_PANELS = 96, 8


def add_second_moment(total: Tensor, samples: Tensor, scale: float) -> None:
    """Add ``scale`` · samples samplesᵀ to the lower triangle of ``total``, in place.

    Args:
        total: Symmetric matrix, of shape (d, d).
        samples: Of shape (d, n): a column a sample.
        scale: Factor of the added matrix.
    """
    size = len(total)
    panel = max(_MIN_PANEL, -(-size // _MAX_PANELS))
    for start in range(0, size, panel):
        stop = min(start + panel, size)
        total[start:, start:stop].addmm_(samples[start:], samples[start:stop].T, alpha=scale)


def symmetric(lower: Tensor) -> Tensor:
    """Return the whole matrix whose lower triangle is that of ``lower``."""
    return lower.tril() + lower.tril(-1).T


class KroneckerInverse(NamedTuple):
    """A product of inverses that stands for (A ⊗ G + λ I)⁻¹.

    Attributes:
        input_cholesky: Cholesky factor of A / tr A + γ_A I, of shape (d_A, d_A).
        output_cholesky: Cholesky factor of G / tr G + γ_G I, of shape (d_G, d_G).
        scale: 1 / s, a 0-d tensor; NaN where a matrix is not positive definite.
    """

    input_cholesky: Tensor
    output_cholesky: Tensor
    scale: Tensor

    def __matmul__(self, gradient: Tensor) -> Tensor:
        """Return G⁻¹ V A⁻¹ for V of shape (d_G, d_A)."""
        right = torch.cholesky_solve(gradient.T, self.input_cholesky)
        return torch.cholesky_solve(right.T, self.output_cholesky).mul_(self.scale)


def damped_inverse(input_factor: Tensor, output_factor: Tensor, weight: Tensor, damping: Tensor) -> KroneckerInverse:
    """Return the damped inverse of A ⊗ G, as kfac-jax 0.0.3 computes it.

    With s = tr A · tr G, A⁻¹ = (A / tr A + γ_A I)⁻¹ / √s and G⁻¹ = (G / tr G + γ_G I)⁻¹ / √s, where
    γ_A = √(λ d_G / (s d_A)) and γ_G = √(λ d_A / (s d_G)): the π-correction (Martens & Grosse 2015, section 6.3), with
    traces as norms. Where a factor is 1×1, the product is damped exactly instead: the other one's γ is λ / s. (Where
    both are, kfac-jax returns the damped product itself; here it is the inverse.) Where a factor vanishes, the
    inverse is I / λ.

    Nothing is checked on the host: a matrix that is not positive definite ends as NaN.

    Args:
        input_factor: ``weight`` · A, its lower triangle, of shape (d_A, d_A).
        output_factor: ``weight`` · G, its lower triangle, of shape (d_G, d_G).
        weight: Weight of the moving averages, a 0-d tensor.
        damping: λ, a 0-d tensor.
    """
    input_size, output_size = len(input_factor), len(output_factor)
    input_trace, output_trace = input_factor.trace(), output_factor.trace()
    s = input_trace * output_trace / (weight * weight)
    present = s > 0
    relative = damping / s
    if output_size == 1:
        input_damping, output_damping = relative, torch.zeros_like(s)
    elif input_size == 1:
        input_damping, output_damping = torch.zeros_like(s), relative
    else:
        input_damping = (relative * (output_size / input_size)).sqrt()
        output_damping = (relative * (input_size / output_size)).sqrt()
    otherwise = damping.sqrt()
    zero = torch.zeros_like(s)
    input_cholesky, input_info = _shifted_cholesky(
        input_factor, torch.where(present, 1 / input_trace, zero), torch.where(present, input_damping, otherwise)
    )
    output_cholesky, output_info = _shifted_cholesky(
        output_factor, torch.where(present, 1 / output_trace, zero), torch.where(present, output_damping, otherwise)
    )
    scale = torch.where(present, 1 / s, 1.0)
    # After a failure LAPACK leaves a half-finished factor behind, which looks like a result.
    scale = scale.masked_fill((input_info != 0) | (output_info != 0), float("nan"))
    return KroneckerInverse(input_cholesky, output_cholesky, scale)


def _shifted_cholesky(matrix: Tensor, multiplier: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Factor multiplier · matrix + shift · I; the second result is 0 where that is positive definite."""
    shifted = matrix * multiplier
    shifted.diagonal().add_(shift)
    return torch.linalg.cholesky_ex(shifted)
