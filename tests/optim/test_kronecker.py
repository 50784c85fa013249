"""Kronecker-factored inverses, against dense matrices."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from adamqlr.optim import numbers
from adamqlr.optim.directions.kronecker_factors import (
    KroneckerInverse,
    KroneckerInverses,
    add_second_moment,
)

SIZES = st.integers(1, 6)
SEEDS = st.integers(0, 2**31)


@pytest.fixture(scope="module", params=["host", "device"], autouse=True)
def _numbers(request: Any) -> Iterator[None]:
    """Compute with Python's numbers, and as elsewhere than on a CPU."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "device":
            patch.setattr(numbers, "at_hand", lambda tensor: False)
        yield


def second_moment(size: int, generator: torch.Generator) -> Tensor:
    samples = torch.randn(size, size + 3, generator=generator, dtype=torch.float64)
    return samples @ samples.T


def scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def preconditioned(gradient: Tensor, a: Tensor, g: Tensor, weight: Tensor, damping: Tensor) -> Tensor:
    """Return the damped inverse times V, for averages times their weight."""
    inverse = KroneckerInverse(a, g)
    KroneckerInverses([inverse], damping).renew(weight, damping)
    inverse.gradient.copy_(gradient)
    return inverse.apply()


@given(SIZES, SIZES, SEEDS, st.floats(1e-6, 10.0), st.floats(1.0, 20.0))
@settings(max_examples=60, deadline=None)
def test_damped_inverse_is_that_of_the_damped_kronecker_product(
    input_size: int, output_size: int, seed: int, damping: float, weight: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, g = second_moment(input_size, generator), second_moment(output_size, generator)
    gradient = torch.randn(output_size, input_size, generator=generator, dtype=torch.float64)
    lower_a, lower_g = (torch.tril(weight * one) + torch.triu(torch.full_like(one, 7.0), 1) for one in (a, g))
    product = preconditioned(gradient, lower_a, lower_g, scalar(weight), scalar(damping))
    trace_a, trace_g = float(a.trace()), float(g.trace())
    if 1 in (input_size, output_size):
        matrix = torch.kron(g, a) + damping * torch.eye(input_size * output_size, dtype=torch.float64)
    else:
        # π balances the two factors' damping: π² = (tr A / d_A) / (tr G / d_G).
        pi = np.sqrt(trace_a / input_size / (trace_g / output_size))
        shifted_a = a + pi * np.sqrt(damping) * torch.eye(input_size, dtype=torch.float64)
        shifted_g = g + np.sqrt(damping) / pi * torch.eye(output_size, dtype=torch.float64)
        matrix = torch.kron(shifted_g, shifted_a)
    expected = torch.linalg.solve(matrix, gradient.flatten())
    torch.testing.assert_close(product.flatten(), expected, rtol=1e-8, atol=1e-12)


def test_vanished_factor_leaves_the_damping() -> None:
    zero, gradient = torch.zeros(3, 3, dtype=torch.float64), torch.ones(2, 3, dtype=torch.float64)
    product = preconditioned(gradient, zero, torch.eye(2, dtype=torch.float64), scalar(1.0), scalar(0.25))
    torch.testing.assert_close(product, gradient / 0.25)


@pytest.mark.parametrize("broken", [float("nan"), -0.5])
def test_matrix_that_is_not_positive_definite_ends_as_nan(broken: float) -> None:
    bad = torch.eye(3, dtype=torch.float64)
    bad[1, 1] = broken
    good = torch.eye(2, dtype=torch.float64) * 5
    product = preconditioned(torch.ones(2, 3, dtype=torch.float64), bad, good, scalar(1.0), scalar(1e-8))
    assert torch.isnan(product).all()


def test_one_layers_matrix_that_is_not_positive_definite_ends_all_as_nan() -> None:
    good, bad = torch.eye(3, dtype=torch.float64), -torch.eye(2, dtype=torch.float64)
    inverses = [KroneckerInverse(good, good), KroneckerInverse(good, bad)]
    KroneckerInverses(inverses, scalar(1e-8)).renew(scalar(1.0), scalar(1e-8))
    for inverse in inverses:
        inverse.gradient.fill_(1.0)
        assert torch.isnan(inverse.apply()).all()


def test_layers_renewed_together_are_as_if_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = [(4, 3), (2, 5), (6, 1), (1, 4)]
    factors = [[second_moment(size, generator) for size in pair] for pair in sizes]
    gradients = [torch.randn(g, a, generator=generator, dtype=torch.float64) for a, g in sizes]
    inverses = [KroneckerInverse(a, g) for a, g in factors]
    KroneckerInverses(inverses, scalar(0.2)).renew(scalar(3.0), scalar(0.2))
    for inverse, (a, g), gradient in zip(inverses, factors, gradients, strict=True):
        inverse.gradient.copy_(gradient)
        alone = preconditioned(gradient, a, g, scalar(3.0), scalar(0.2))
        torch.testing.assert_close(inverse.apply(), alone, rtol=0, atol=0)


def test_damping_beyond_the_dtypes_range_ends_as_nan_without_an_exception() -> None:
    tiny, gradient = torch.full((1, 1), 1e-42), torch.ones(1, 3)
    product = preconditioned(gradient, torch.eye(3), tiny, torch.tensor(1.0), torch.tensor(1e3))
    assert torch.isnan(product).all()


def symmetric(lower: Tensor) -> Tensor:
    return lower.tril() + lower.tril(-1).T


@pytest.mark.parametrize("size", [3, 95, 97, 1000])
def test_second_moments_accumulate_in_the_lower_triangle(size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    total = torch.ones(size, size, dtype=torch.float64)
    samples = torch.randn(size, 20, generator=generator, dtype=torch.float64)
    add_second_moment(total, samples, 0.3)
    torch.testing.assert_close(symmetric(total), 1 + 0.3 * samples @ samples.T)
    add_second_moment(total, samples, 0.3, decay=0.5)
    torch.testing.assert_close(symmetric(total), 0.5 + 0.45 * samples @ samples.T)
