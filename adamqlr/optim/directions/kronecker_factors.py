"""Kronecker-factored matrices F ≈ A ⊗ G: second moments, and products with the damped inverse.

A and G are symmetric and only their lower triangles are kept: what stands above is not defined. They may have leading
dimensions, of networks side by side. LAPACK factors matrices where they lie if their columns are contiguous.
"""

import math

import torch
from torch import Tensor
from torch.linalg import solve_triangular

from adamqlr.optim.numbers import Number, is_zero, numbers_like, quotient, root, where

# Panels narrower than this make matrix products slower than what they save.
_MIN_PANEL, _MAX_PANELS = 96, 8


def add_second_moment(total: Tensor, samples: Tensor, scale: float, decay: float = 1.0) -> None:
    """Replace the lower triangle of ``total`` by that of ``decay`` · total + ``scale`` · samples samplesᵀ.

    Args:
        total: Symmetric matrix, of shape (…, d, d).
        samples: Of shape (…, d, n): a column a sample; or (d, n) if all networks share them.
        scale: Factor of the added matrix.
        decay: Factor of what was there.
    """
    size = total.shape[-1]
    if size <= _MIN_PANEL:
        _add_product(total, samples, samples.mT, scale, decay)
        return
    panel = max(_MIN_PANEL, -(-size // _MAX_PANELS))
    for start in range(0, size, panel):
        stop = min(start + panel, size)
        rows, columns = samples[..., start:, :], samples[..., start:stop, :].mT
        _add_product(total[..., start:, start:stop], rows, columns, scale, decay)


def _add_product(total: Tensor, rows: Tensor, columns: Tensor, scale: float, decay: float) -> None:
    if total.dim() == 2:
        total.addmm_(rows, columns, beta=decay, alpha=scale)
    elif rows.dim() == 2:
        total.mul_(decay).add_(torch.mm(rows, columns), alpha=scale)
    else:
        total.baddbmm_(rows, columns, beta=decay, alpha=scale)


def symmetric(lower: Tensor) -> Tensor:
    """Return the whole matrix whose lower triangle is that of ``lower``."""
    return lower.tril() + lower.tril(-1).T


class DampedFactor:
    """Keeps the Cholesky factor of A + γ I, for a factor A that is not a number.

    Args:
        cholesky: Where it is kept, of shape (…, d, d), the columns contiguous.
    """

    def __init__(self, cholesky: Tensor) -> None:
        # Making views takes as long as small kernels do.
        self.lower, self.upper, self._diagonal = cholesky, cholesky.mT, cholesky.diagonal(dim1=-2, dim2=-1)
        self.failure = torch.zeros(cholesky.shape[:-2], dtype=torch.int32, device=cholesky.device)

    def renew(self, matrix: Tensor, kept: Tensor, shift: Tensor) -> None:
        """Factor ``kept`` · ``matrix`` + ``shift`` · I; ``failure`` is 0 if it could."""
        if kept.dim():
            kept, shift = kept[..., None, None], shift.unsqueeze(-1)
        torch.mul(matrix, kept, out=self.lower)
        self._diagonal.add_(shift)
        # In place: LAPACK would be given a copy.
        torch.linalg.cholesky_ex(self.lower, out=(self.lower, self.failure))


class KroneckerInverse:
    """Keeps a product of inverses that stands for (A ⊗ G + λ I)⁻¹.

    Args:
        input_cholesky: Where the Cholesky factor of A + γ_A I is kept, of shape (…, d_A, d_A).
        output_cholesky: That of G + γ_G I, of shape (…, d_G, d_G).
        scale: What multiplies the inverses, of shape (…); NaN where a matrix is not positive definite.
    """

    def __init__(self, input_cholesky: Tensor, output_cholesky: Tensor, scale: Tensor) -> None:
        # A number goes into the scale, and all damping to the other factor.
        output_is_one = output_cholesky.shape[-1] == 1
        self.input = DampedFactor(input_cholesky) if input_cholesky.shape[-1] > 1 or output_is_one else None
        self.output = None if output_is_one else DampedFactor(output_cholesky)
        self.scale, self._scale_of_matrix = scale, scale[..., None, None] if scale.dim() else scale
        self._numbers = numbers_like(scale)

    def __matmul__(self, gradient: Tensor) -> Tensor:
        """Return G⁻¹ V A⁻¹ for V of shape (…, d_G, d_A)."""
        return self.apply_(gradient.clone(memory_format=torch.contiguous_format).mT).mT

    def apply_(self, product: Tensor) -> Tensor:
        """Turn Vᵀ into A⁻¹ Vᵀ G⁻¹, in place; its columns must be contiguous, so that BLAS takes no copies."""
        if self.input is not None:
            solve_triangular(self.input.lower, product, upper=False, out=product)
            solve_triangular(self.input.upper, product, upper=True, out=product)
        if self.output is not None:
            solve_triangular(self.output.upper, product, upper=True, left=False, out=product)
            solve_triangular(self.output.lower, product, upper=False, left=False, out=product)
        return product.mul_(self._scale_of_matrix)

    def renew(self, input_factor: Tensor, output_factor: Tensor, weight: Tensor, damping: Tensor) -> None:
        """Become the inverse for other factors, as :func:`damped_inverse` says."""
        traces = _trace(input_factor), _trace(output_factor)
        shift, other_shift, kept, scale = self._numbers.call(self._shifts_and_scale, *traces, weight, damping)
        failures = []
        for factor, matrix, added in (
            (self.input, input_factor, shift),
            (self.output, output_factor, other_shift),
        ):
            if factor is not None:
                factor.renew(matrix, kept, added)
                failures.append(factor.failure)
        self.scale.copy_(self._numbers.call(_unless_failed, scale, *failures)[0])

    def _shifts_and_scale(
        self, trace: Number, other_trace: Number, weight: Number, damping: Number
    ) -> tuple[Number, Number, Number, Number]:
        """Return γ_A, γ_G, 0 where a factor vanishes and else 1, and the scale, all for averages times their weight."""
        norm = trace * other_trace
        # 1, and not a number where a trace has overflowed or a factor vanishes.
        one = quotient(norm, norm)
        scale = weight * weight * one
        if self.input is None or self.output is None:
            scale = quotient(scale, trace if self.input is None else other_trace)
            shift = other_shift = damping * scale
        else:
            pi_squared = quotient(trace * self.output.lower.shape[-1], other_trace * self.input.lower.shape[-1])
            shift, other_shift = weight * root(damping * pi_squared), weight * root(quotient(damping, pi_squared))
        vanished = is_zero(norm)
        shift, other_shift = where(vanished, 1.0, shift), where(vanished, 1.0, other_shift)
        scale = where(vanished, quotient(1.0, damping), scale)
        return shift, other_shift, where(vanished, 0.0, one), scale


def _unless_failed(scale: Number, *failures: Number) -> list[Number]:
    """Return the scale: after a failure LAPACK leaves a half-finished factor behind, which looks like a result."""
    failed = sum(failures[1:], start=failures[0]) != 0
    return [where(failed, math.nan, scale)]


def damped_inverse(
    input_factor: Tensor, output_factor: Tensor, weight: Tensor, damping: Tensor, out: KroneckerInverse | None = None
) -> KroneckerInverse:
    """Return the damped inverse of A ⊗ G, to the numbers of kfac-jax 0.0.3, which divides both by their traces first.

    With the π-correction (A ⊗ G + λ I)⁻¹ ≈ (A + π √λ I)⁻¹ ⊗ (G + √λ / π I)⁻¹, where π² = (tr A / d_A) / (tr G / d_G):
    Martens & Grosse 2015, section 6.3, with traces as norms. Where a factor is 1×1, the product is damped exactly
    instead: for G that is (A + λ / G I)⁻¹ / G. (Where both are, kfac-jax returns the damped product itself; here it is
    the inverse.) Where a factor vanishes, the inverse is I / λ.

    Nothing waits for the device: a matrix that is not positive definite ends as NaN.

    Args:
        input_factor: ``weight`` · A, its lower triangle, of shape (…, d_A, d_A).
        output_factor: ``weight`` · G, likewise, of shape (…, d_G, d_G).
        weight: Weight of the moving averages, of shape (…).
        damping: λ, of shape (…).
        out: Where the inverse is kept; a new place if None.
    """
    if out is None:
        input_place, output_place = (
            torch.empty_like(one, memory_format=torch.contiguous_format).mT for one in (input_factor, output_factor)
        )
        out = KroneckerInverse(input_place, output_place, torch.empty_like(damping))
    out.renew(input_factor, output_factor, weight, damping)
    return out


def _trace(matrix: Tensor) -> Tensor:
    """Return the trace, of shape (…)."""
    return matrix.trace() if matrix.dim() == 2 else matrix.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
