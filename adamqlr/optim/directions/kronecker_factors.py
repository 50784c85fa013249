"""Kronecker-factored matrices F ≈ A ⊗ G: second moments, and products with the damped inverse.

A and G are symmetric and only their lower triangles are kept: what stands above is not defined. They may have leading
dimensions, of networks side by side. LAPACK factors matrices where they lie if their columns are contiguous.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.linalg import solve_triangular

from adamqlr.optim.numbers import Number, constant_like, is_zero, numbers_like, quotient, root, where, where_all

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
        # Products of many small matrices take half the time where they are not added to something; their rows are
        # contiguous, and so are those of the transpose.
        total = total.mT
        torch.add(torch.baddbmm(total, columns.mT, rows.mT, beta=0, alpha=scale), total, alpha=decay, out=total)


class DampedFactor:
    """Keeps the Cholesky factor of A + γ I, for a factor A that is not a number.

    Args:
        matrix: A, its lower triangle, of shape (…, d, d), as of each renewal.
        place: Where it is kept, of the same shape, the columns contiguous; a new place if None.
    """

    def __init__(self, matrix: Tensor, place: Tensor | None) -> None:
        cholesky = matrix.new_zeros(matrix.shape).mT if place is None else place
        # Making views takes as long as small kernels do.
        self.lower, self.upper, self._diagonal = cholesky, cholesky.mT, cholesky.diagonal(dim1=-2, dim2=-1)
        self._matrix = matrix
        self.failure = torch.zeros(cholesky.shape[:-2], dtype=torch.int32, device=cholesky.device)

    def renew(self, kept: Tensor, shift: Tensor) -> None:
        """Factor ``kept`` · A + ``shift`` · I; ``failure`` is 0 if it could."""
        torch.mul(self._matrix, _of_matrices(kept), out=self.lower)
        self._diagonal.add_(shift.unsqueeze(-1) if shift.dim() else shift)
        # In place: LAPACK would be given a copy.
        torch.linalg.cholesky_ex(self.lower, out=(self.lower, self.failure))


class KroneckerInverse:
    """Keeps a product of inverses that stands for (A ⊗ G + λ I)⁻¹; :class:`KroneckerInverses` renews it.

    Args:
        input_factor: The average of A times its weight, its lower triangle, of shape (…, d_A, d_A).
        output_factor: Likewise of G, of shape (…, d_G, d_G).
        kept: Where the Cholesky factors of A + γ_A I and G + γ_G I, with contiguous columns, and the scale of their
            inverses, of shape (…), are kept for later steps; None if this one needs them alone.

    Attributes:
        factors: What is kept of A and of G; None for what is a number.
        gradient: Where V is put, of shape (…, d_G, d_A).
    """

    def __init__(
        self,
        input_factor: Tensor,
        output_factor: Tensor,
        kept: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> None:
        self._sizes = input_factor.shape[-1], output_factor.shape[-1]
        self._size_ratio = self._sizes[1] / self._sizes[0]
        diagonals = (one.diagonal(dim1=-2, dim2=-1) for one in (input_factor, output_factor))
        # Of a number there is nothing to sum.
        self._traced = [one[..., 0] if one.shape[-1] == 1 else one for one in diagonals]
        self._ones = [input_factor.new_ones(1, size) for size in self._sizes]
        # A number goes into the scale, and all damping to the other factor.
        output_is_one = output_factor.shape[-1] == 1
        has_input = input_factor.shape[-1] > 1 or output_is_one
        input_place, output_place, scale = kept or (None, None, None)
        self.factors = (
            DampedFactor(input_factor, input_place) if has_input else None,
            None if output_is_one else DampedFactor(output_factor, output_place),
        )
        self._kept_scale = scale
        if scale is not None:
            self._scale = _of_matrices(scale)
        # V or Vᵀ: BLAS takes less time where columns are longer than rows, and no copies where they are contiguous.
        members, (short, long) = input_factor.shape[:-2], sorted(self._sizes)
        self._columns = input_factor.new_zeros(*members, short, long).mT
        is_tall = output_factor.shape[-1] > input_factor.shape[-1]
        self.gradient = self._columns if is_tall else self._columns.mT
        self._left, self._right = reversed(self.factors) if is_tall else self.factors

    def apply(self) -> Tensor:
        """Turn V, which is in ``gradient``, into G⁻¹ V A⁻¹ there."""
        if self._left is not None:
            solve_triangular(self._left.lower, self._columns, upper=False, out=self._columns)
            solve_triangular(self._left.upper, self._columns, upper=True, out=self._columns)
        if self._right is not None:
            solve_triangular(self._right.upper, self._columns, upper=True, left=False, out=self._columns)
            solve_triangular(self._right.lower, self._columns, upper=False, left=False, out=self._columns)
        self._columns.mul_(self._scale)
        return self.gradient

    def set_scale(self, scale: Tensor) -> None:
        """Let a number multiply the inverses."""
        if self._kept_scale is None:
            self._scale = _of_matrices(scale)
        else:
            self._kept_scale.copy_(scale)

    def traces(self) -> list[Tensor]:
        """Return those of the two factors, of shape (…)."""
        each = zip(self._traced, self._ones, self._sizes, strict=True)
        return [one if size == 1 else _sum(one, ones) for one, ones, size in each]

    def shifts_and_scale(self, weight: Number, damping: Number, trace: Number, other_trace: Number) -> Sequence[Number]:
        """Return γ_A, γ_G, 0 where a factor vanishes and else 1, and the scale, all for averages times their weight."""
        norm = trace * other_trace
        # 1, and not a number where a trace has overflowed or a factor vanishes.
        one = quotient(norm, norm)
        scale = weight * weight * one
        if None in self.factors:
            scale = quotient(scale, trace if self.factors[0] is None else other_trace)
            shift = other_shift = damping * scale
        else:
            pi_squared = quotient(trace, other_trace) * constant_like(trace, self._size_ratio)
            shift, other_shift = weight * root(damping * pi_squared), weight * root(quotient(damping, pi_squared))
        return where_all(is_zero(norm), [1.0, 1.0, 0.0, quotient(1.0, damping)], [shift, other_shift, one, scale])


class KroneckerInverses:
    """The inverses of all layers: on the host, numbers for all are read and written in a fraction of the time of each.

    Args:
        inverses: The inverses.
        like: A tensor of the shape of λ and on its device.
    """

    def __init__(self, inverses: Sequence[KroneckerInverse], like: Tensor) -> None:
        self._inverses, self._numbers = inverses, numbers_like(like)

    def renew(self, weight: Tensor, damping: Tensor) -> None:
        """Let the inverses be those for the factors as they are now, to the numbers of kfac-jax 0.0.3.

        kfac-jax divides both factors by their traces first. With the π-correction
        (A ⊗ G + λ I)⁻¹ ≈ (A + π √λ I)⁻¹ ⊗ (G + √λ / π I)⁻¹, where π² = (tr A / d_A) / (tr G / d_G): Martens & Grosse
        2015, section 6.3, with traces as norms. Where a factor is 1×1, the product is damped exactly instead: for G
        that is (A + λ / G I)⁻¹ / G. (Where both are, kfac-jax returns the damped product itself; here it is the
        inverse.) Where a factor vanishes, the inverse is I / λ.

        Nothing waits for the device: if a matrix is not positive definite, all end as NaN.

        Args:
            weight: Weight of the moving averages, of shape (…).
            damping: λ, of shape (…).
        """
        traces = [trace for inverse in self._inverses for trace in inverse.traces()]
        found = self._numbers.call(self._shifts_and_scales, weight, damping, *traces)
        failures = []
        for inverse, shift, other_shift, kept in zip(
            self._inverses, found[0::4], found[1::4], found[2::4], strict=True
        ):
            for factor, added in zip(inverse.factors, (shift, other_shift), strict=True):
                if factor is not None:
                    factor.renew(kept, added)
                    failures.append(factor.failure)
        scales = self._numbers.call(self._unless_failed, *found[3::4], *failures)
        for inverse, scale in zip(self._inverses, scales, strict=True):
            inverse.set_scale(scale)

    def _shifts_and_scales(self, weight: Number, damping: Number, *traces: Number) -> list[Number]:
        found: list[Number] = []
        for inverse, trace, other_trace in zip(self._inverses, traces[0::2], traces[1::2], strict=True):
            found += inverse.shifts_and_scale(weight, damping, trace, other_trace)
        return found

    def _unless_failed(self, *numbers: Number) -> list[Number]:
        """Return the scales: after a failure LAPACK leaves a half-finished factor behind, which looks like a result."""
        count = len(self._inverses)
        failures = numbers[count:]
        succeeded = is_zero(sum(failures[1:], start=failures[0]))
        return [where(succeeded, scale, math.nan) for scale in numbers[:count]]


def _sum(diagonal: Tensor, ones: Tensor) -> Tensor:
    """Return the sum of a diagonal, of shape (…): for one network by a product, which takes less."""
    return torch.mv(ones, diagonal).squeeze(0) if diagonal.dim() == 1 else diagonal.sum(dim=-1)


def _of_matrices(numbers: Tensor) -> Tensor:
    """Return numbers, of shape (…), in the shape in which they multiply matrices."""
    return numbers[..., None, None] if numbers.dim() else numbers
