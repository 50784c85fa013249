"""The Levenberg–Marquardt rule."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from adamqlr.optim.damping import DampingRule

RATIOS = st.one_of(st.floats(allow_nan=True, allow_infinity=True, width=64), st.sampled_from([0.25, 0.75]))


@given(damping=st.floats(1e-8, 1e6), rho=RATIOS)
def test_rule(damping: float, rho: float) -> None:
    rule = DampingRule(0.5, 2.0, 1e-8, like=torch.zeros((), dtype=torch.float64))
    new = float(rule(torch.tensor(damping, dtype=torch.float64), torch.tensor(rho, dtype=torch.float64)))
    if rho > 0.75:
        assert new == max(0.5 * damping, 1e-8)
    elif rho < 0.25:
        assert new == 2 * damping
    else:
        assert new == damping


def test_a_ratio_that_is_no_number_counts_as_poor_where_asked() -> None:
    damping, rho = torch.tensor(1.0), torch.tensor(math.nan)
    assert float(DampingRule(0.9, 1 / 0.9, 0.0, like=rho)(damping, rho)) == 1.0
    poor = DampingRule(0.9, 1 / 0.9, 0.0, like=rho, increase_on_nan=True)
    assert math.isclose(float(poor(damping, rho)), 1 / 0.9, rel_tol=1e-6)
