"""The quadratic model and the Levenberg–Marquardt rule, against dense algebra."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from adamqlr.optim.heuristics import DampingRule, QuadraticModel, quadratic_forms
from adamqlr.optim.numbers import HostNumbers, Numbers, quotient

SEEDS = st.integers(0, 2**31)
# One network on a CPU has its numbers read, all else leaves them on the device.
NUMBERS = st.sampled_from([Numbers(), HostNumbers(torch.float64)])
RATIOS = st.one_of(st.floats(allow_nan=True, allow_infinity=True, width=64), st.sampled_from([0.25, 0.75]))


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def drawn(seed: int, count: int) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """Return a model's forms in ``count`` directions of six dimensions, and the dense V, g and C + λ I behind them."""
    generator = torch.Generator().manual_seed(seed)
    directions, gradient, root = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((count, 6), (6,), (6, 6))
    )
    curvature, damping = root @ root.T, 0.3
    forms = directions @ curvature @ directions.T
    made_of = quadratic_forms(gradient, list(directions), [list(row) for row in forms], number(damping))
    return made_of, directions, gradient, curvature + damping * torch.eye(6, dtype=torch.float64)


def minimizer(forms: list[Tensor], numbers: Numbers, lr: float | None = None, momentum: float | None = None) -> Tensor:
    nothing = numbers.minus_nothing(forms[0])
    return torch.stack([*numbers.call(lambda *read: QuadraticModel(read).minimizer(nothing, lr, momentum), *forms)])


@given(SEEDS, st.sampled_from([1, 2]), NUMBERS, st.booleans(), st.booleans())
@settings(max_examples=160, deadline=None)
def test_the_model_is_at_its_minimum_over_what_is_free(
    seed: int, count: int, numbers: Numbers, fix_lr: bool, fix_momentum: bool
) -> None:
    forms, directions, gradient, matrix = drawn(seed, count)
    weights = minimizer(forms, numbers, 0.3 if fix_lr else None, 0.7 if fix_momentum else None)
    slope = directions @ (gradient + matrix @ (weights @ directions))
    for index, fixed in enumerate([(-0.3 if fix_lr else None), (0.7 if fix_momentum else None)][:count]):
        if fixed is None:
            assert abs(float(slope[index])) < 1e-8 * (1 + float((directions @ gradient).abs().max()))
        else:
            assert float(weights[index]) == fixed


@given(SEEDS, st.sampled_from([1, 2]), NUMBERS, st.booleans())
@settings(max_examples=80, deadline=None)
def test_its_change_is_that_of_the_dense_quadratic(seed: int, count: int, numbers: Numbers, damped: bool) -> None:
    forms, directions, gradient, matrix = drawn(seed, count)
    weights = torch.linspace(-1, 0.5, count, dtype=torch.float64)
    update = weights @ directions
    expected = gradient @ update + 0.5 * update @ matrix @ update - (0.0 if damped else 0.5 * 0.3 * update @ update)
    (change,) = numbers.call(
        lambda *read: [QuadraticModel(read[count:]).change(read[:count], damped)], *weights.unbind(), *forms
    )
    torch.testing.assert_close(change, expected)


@pytest.mark.parametrize("numbers", [Numbers(), HostNumbers(torch.float32)], ids=["device", "host"])
def test_directions_that_have_vanished_get_no_weight(numbers: Numbers) -> None:
    gradient, zero, damping = torch.tensor([2.0, 0.0]), torch.zeros(2), torch.tensor(0.1)
    one = quadratic_forms(gradient, [zero], [[torch.tensor(0.0)]], damping)
    assert float(minimizer(one, numbers)) == 0
    forms = [[torch.tensor(3.9), torch.tensor(0.0)], [torch.tensor(0.0), torch.tensor(0.0)]]
    two = quadratic_forms(gradient, [torch.tensor([1.0, 0.0]), zero], forms, damping)
    torch.testing.assert_close(minimizer(two, numbers), torch.tensor([-0.5, 0.0]))


@given(st.floats(width=32), st.floats(width=32), st.sampled_from([torch.float32, torch.float64]))
def test_quotients_on_the_host_are_those_of_tensors(numerator: float, denominator: float, dtype: torch.dtype) -> None:
    given = torch.tensor(numerator, dtype=dtype), torch.tensor(denominator, dtype=dtype)
    (found,) = HostNumbers(dtype).call(lambda *read: [quotient(*read)], *given)
    torch.testing.assert_close(found, given[0] / given[1], rtol=0, atol=0, equal_nan=True)


def rule(**options: Any) -> DampingRule:
    given = {"decrease": 0.5, "increase": 2.0, "minimum": 1e-8, "maximum": math.inf, **options}
    return DampingRule(**given, like=number(0.0))


@given(damping=st.floats(1e-8, 1e6), rho=RATIOS)
def test_damping_follows_the_ratio(damping: float, rho: float) -> None:
    new = float(rule()(number(damping), number(rho), number(1.0), number(-0.1)))
    if rho > 0.75:
        assert new == max(0.5 * damping, 1e-8)
    elif rho < 0.25:
        assert new == 2 * damping
    else:
        assert new == damping


@given(
    damping=st.floats(2**-20, 2**20, width=32),
    rho=st.one_of(st.floats(allow_nan=True, allow_infinity=True, width=32), st.sampled_from([0.25, 0.75])),
    loss=st.floats(-10, 10, width=32),
    change=st.floats(-1, 1, width=32),
    nan_is_poor=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_the_rule_is_the_same_on_the_host_as_on_a_device(
    damping: float, rho: float, loss: float, change: float, nan_is_poor: bool, dtype: torch.dtype
) -> None:
    given = [torch.tensor(value, dtype=dtype) for value in (damping, rho, loss, change)]
    follow = DampingRule(0.9, 1 / 0.9, 1e-8, 1e5, given[0], nan_is_poor, 4.0)
    (on_host,) = HostNumbers(dtype).call(lambda *read: [follow(*read)], *given)
    torch.testing.assert_close(on_host, follow(*given), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("resolution", [4.0, 0.0])
@pytest.mark.parametrize("loss", [3.4e38, math.inf, math.nan])
def test_losses_at_the_end_of_single_precision_do_no_harm(loss: float, resolution: float) -> None:
    given = [torch.tensor(value) for value in (1.0, 0.0, loss, loss)]
    follow = DampingRule(0.5, 2.0, 0.0, math.inf, given[0], resolution=resolution)
    (on_host,) = HostNumbers(torch.float32).call(lambda *read: [follow(*read)], *given)
    assert float(on_host) == float(follow(*given))


def test_numbers_that_are_kept_outlast_the_next_call() -> None:
    numbers, one = HostNumbers(torch.float64), number(1.0)
    (passing,), (kept,) = (numbers.call(lambda read: [read + 1], one, keep=keep) for keep in (False, True))
    numbers.call(lambda read: [read + 2], one)
    assert (float(passing), float(kept)) == (3.0, 2.0)


def test_damping_is_bounded_above() -> None:
    assert float(rule(maximum=3.0)(number(2.0), number(0.0), number(1.0), number(-0.1))) == 3.0


def test_a_ratio_that_is_no_number_counts_as_poor_where_asked() -> None:
    given = number(1.0), number(math.nan), number(1.0), number(math.nan)
    assert float(rule()(*given)) == 1.0
    assert float(rule(nan_is_poor=True)(*given)) == 2.0


@pytest.mark.parametrize("change", [0.0, 1e-16, -1e-16])
def test_a_change_below_the_losss_resolution_says_nothing(change: float) -> None:
    given = number(1.0), number(0.0), number(1.0), number(change)
    assert float(rule(resolution=4.0)(*given)) == 1.0
    assert float(rule()(*given)) == 2.0
    # Of no units, every change is one.
    assert float(rule(resolution=0.0)(*given)) == (1.0 if change == 0 else 2.0)
    # Twenty units of the last place are a change.
    assert float(rule(resolution=4.0)(number(1.0), number(0.0), number(1.0), number(5e-15))) == 2.0


@pytest.mark.parametrize("numbers", [Numbers(), HostNumbers(torch.float64)], ids=["device", "host"])
@pytest.mark.parametrize(("resolution", "change", "expected"), [(4.0, 0.3, 1.0), (4.0, 0.5, 2.0), (None, 0.3, 2.0)])
def test_a_change_below_the_outputs_resolution_says_nothing_either(
    numbers: Numbers, resolution: float | None, change: float, expected: float
) -> None:
    given = number(1.0), number(0.0), number(1.0), number(change), number(0.1)
    (found,) = numbers.call(lambda *read: [rule(resolution=resolution)(*read)], *given)
    assert float(found) == expected
