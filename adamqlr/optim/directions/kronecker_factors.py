"""Kronecker-factored matrices F ≈ A ⊗ G: second moments, and products with the damped inverse.

A and G are symmetric and only their lower triangles are kept: what stands above is not defined. They may have leading
dimensions, of networks side by side. LAPACK factors matrices where they lie if their columns are contiguous.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.linalg import solve_triangular

# Panels narrower than this make matrix products slower than what they save.
_MIN_PANEL, _MAX_PANELS = 96, 8


def add_second_moment(total: Tensor, samples: Tensor, scale: float) -> None:
    """Add ``scale`` · samples samplesᵀ to the lower triangle of ``total``, in place.

    Args:
        total: Symmetric matrix, of shape (…, d, d).
        samples: Of shape (…, d, n): a column a sample; or (d, n) if all networks share them.
        scale: Factor of the added matrix.
    """
    size = total.shape[-1]
    panel = max(_MIN_PANEL, -(-size // _MAX_PANELS))
    for start in range(0, size, panel):
        stop = min(start + panel, size)
        part = total[..., start:, start:stop] if size > panel else total
        rows, columns = samples[..., start:, :], samples[..., start:stop, :].mT
        if total.dim() == 2:
            part.addmm_(rows, columns, alpha=scale)
        elif samples.dim() == 2:
            part.add_(torch.mm(rows, columns), alpha=scale)
        else:
            part.baddbmm_(rows, columns, alpha=scale)


def symmetric(lower: Tensor) -> Tensor:
    """Return the whole matrix whose lower triangle is that of ``lower``."""
    return lower.tril() + lower.tril(-1).T


class KroneckerInverse(NamedTuple):
    """A product of inverses that stands for (A ⊗ G + λ I)⁻¹.

    Attributes:
        input_cholesky: Cholesky factor of A / tr A + γ_A I, of shape (…, d_A, d_A).
        output_cholesky: Cholesky factor of G / tr G + γ_G I, of shape (…, d_G, d_G).
        scale: 1 / s, of shape (…); NaN where a matrix is not positive definite.
    """

    input_cholesky: Tensor
    output_cholesky: Tensor
    scale: Tensor

    def __matmul__(self, gradient: Tensor) -> Tensor:
        """Return G⁻¹ V A⁻¹ for V of shape (…, d_G, d_A)."""
        return self.apply_(gradient.clone(memory_format=torch.contiguous_format))

    def apply_(self, gradient: Tensor) -> Tensor:
        """Turn a contiguous V into G⁻¹ V A⁻¹, in place."""
        input_is_one, output_is_one = _which_is_one(self.input_cholesky, self.output_cholesky)
        # The columns of Vᵀ are contiguous, so that A⁻¹ Vᵀ G⁻¹ takes no copies for BLAS.
        product = gradient.mT
        if not input_is_one:
            solve_triangular(self.input_cholesky, product, upper=False, out=product)
            solve_triangular(self.input_cholesky.mT, product, upper=True, out=product)
        if not output_is_one:
            solve_triangular(self.output_cholesky.mT, product, upper=True, left=False, out=product)
            solve_triangular(self.output_cholesky, product, upper=False, left=False, out=product)
        return gradient.mul_(self.scale[..., None, None] if self.scale.dim() else self.scale)


def damped_inverse(input_factor: Tensor, output_factor: Tensor, weight: Tensor, damping: Tensor) -> KroneckerInverse:
    """Return the damped inverse of one A ⊗ G, as :func:`damped_inverses` does."""
    return damped_inverses([(input_factor, output_factor)], weight, damping)[0]


def damped_inverses(
    factors: Sequence[tuple[Tensor, Tensor]], weight: Tensor, damping: Tensor
) -> list[KroneckerInverse]:
    """Return the damped inverse of A ⊗ G for each of several layers, as kfac-jax 0.0.3 computes it.

    With s = tr A · tr G, A⁻¹ = (A / tr A + γ_A I)⁻¹ / √s and G⁻¹ = (G / tr G + γ_G I)⁻¹ / √s, where
    γ_A = √(λ d_G / (s d_A)) and γ_G = √(λ d_A / (s d_G)): the π-correction (Martens & Grosse 2015, section 6.3), with
    traces as norms. Where a factor is 1×1, the product is damped exactly instead: the other one's γ is λ / s. (Where
    both are, kfac-jax returns the damped product itself; here it is the inverse.) Where a factor vanishes, the
    inverse is I / λ.

    Nothing is checked on the host: a matrix that is not positive definite ends as NaN.

    Args:
        factors: For each layer ``weight`` · A and ``weight`` · G, their lower triangles, of shapes (…, d_A, d_A) and
            (…, d_G, d_G).
        weight: Weight of the moving averages, of shape (…).
        damping: λ, of shape (…).
    """
    # What are numbers is computed for all layers at once: of shape (layers, …), or with two factors (layers, 2, …).
    traces = torch.stack([_trace(matrix) for pair in factors for matrix in pair])
    members = traces.shape[1:]
    traces = traces.view(-1, 2, *members)
    s = traces[:, 0] * traces[:, 1] / (weight * weight)
    vanished = s == 0
    multipliers = traces.reciprocal().masked_fill_(vanished.unsqueeze(1), 0.0).view(-1, *members, 1, 1).unbind()
    relative = torch.where(vanished, damping, damping / s).view(-1, *members, 1)
    failures = torch.zeros(traces.shape, dtype=torch.int32, device=s.device)
    shifts, roots, infos = relative.unbind(), relative.sqrt().unbind(), failures.view(-1, *members).unbind()
    found = []
    for layer, pair in enumerate(factors):
        sizes, is_one = [matrix.shape[-1] for matrix in pair], _which_is_one(*pair)
        for side, matrix in enumerate(pair):
            if is_one[side]:
                found.append(torch.ones_like(matrix))
                continue
            index, shift, ratio = 2 * layer + side, shifts[layer], 1.0
            if not any(is_one):
                shift, ratio = roots[layer], math.sqrt(sizes[1 - side] / sizes[side])
            found.append(_shifted_cholesky(matrix, multipliers[index], shift, ratio, infos[index]))
    # s / s is NaN where a factor has overflowed.
    scales = (s / s / s).masked_fill_(vanished, 1.0)
    # After a failure LAPACK leaves a half-finished factor behind, which looks like a result.
    scales.masked_fill_(failures.amax(dim=1) != 0, math.nan)
    return [KroneckerInverse(*inverse) for inverse in zip(found[0::2], found[1::2], scales.unbind(), strict=True)]


def _trace(matrix: Tensor) -> Tensor:
    """Return the trace, of shape (…)."""
    return matrix.trace() if matrix.dim() == 2 else matrix.diagonal(dim1=-2, dim2=-1).sum(dim=-1)


def _which_is_one(input_matrix: Tensor, output_matrix: Tensor) -> tuple[bool, bool]:
    """Tell of each factor whether it is a number that its trace makes 1, with all damping left to the other."""
    output_is_one = output_matrix.shape[-1] == 1
    return input_matrix.shape[-1] == 1 and not output_is_one, output_is_one


def _shifted_cholesky(matrix: Tensor, multiplier: Tensor, shift: Tensor, ratio: float, info: Tensor) -> Tensor:
    """Factor multiplier · matrix + ratio · shift · I; ``info`` becomes 0 where that is positive definite."""
    shifted = matrix * multiplier
    shifted.diagonal(dim1=-2, dim2=-1).add_(shift, alpha=ratio)
    # In place: LAPACK would be given a copy.
    torch.linalg.cholesky_ex(shifted, out=(shifted, info))
    return shifted
