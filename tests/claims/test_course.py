"""Claims about the course of training and about sensitivity, from made-up runs whose answers are known."""

from collections.abc import Mapping

import numpy as np
import pytest
import xarray as xr

from adamqlr.claims.course import generalizes_worse, learning_rate_grows, overfits, ranks_high
from adamqlr.claims.evidence import Evidence, matters_more
from adamqlr.claims.judge import Verdict, judge_difference, judge_spreads
from adamqlr.results.judged import at_lowest_validation_loss
from adamqlr.results.study import Study
from adamqlr.study.case import Case
from adamqlr.study.config import parse_config
from adamqlr.study.settings import ClaimsConfig
from adamqlr.training.history import History
from tests.results.histories import cube_of

SWEEP = {"dataset": "diabetes", "parameter": "batch_size", "values": [50, 100]}
CONFIG = parse_config(
    {
        "name": "made-up",
        "datasets": ["diabetes"],
        "optimizers": ["adam", "kfac", "adamqlr", "adamqlr_untuned"],
        "sensitivity": {"ours": {**SWEEP, "optimizer": "adamqlr"}, "theirs": {**SWEEP, "optimizer": "adam"}},
    },
    "test",
)


def cube(optimizer: str, validation: list[float], test: list[float], lr: list[float], **labels: str) -> xr.Dataset:
    histories = []
    for seed in range(4):
        history = History(seed)
        for step, values in enumerate(zip(validation, test, lr, strict=True)):
            metrics = dict(zip(("validation_loss", "test_loss", "lr"), values, strict=True))
            history.append(step, 0.1 * step, {name: value * (1 + 0.001 * seed) for name, value in metrics.items()})
        histories.append(history)
    return cube_of(Case(CONFIG, "epochs", "diabetes", optimizer), histories, 20, **labels)


def study(cubes: dict[str, xr.Dataset]) -> Study:
    return Study(xr.DataTree.from_dict(cubes), CONFIG)


FALLING = [1.0, 0.5, 0.4, 0.3, 0.2, 0.1, 0.09, 0.08]
RISING = [1.0, 0.5, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]


def test_an_optimizer_overfits_that_ends_above_its_best() -> None:
    (evidence,) = overfits(study({"epochs/diabetes/kfac": cube("kfac", RISING, RISING, RISING)}), "kfac")
    assert evidence.judgment.estimate == pytest.approx(0.7 / 0.2, rel=1e-2)
    assert evidence.judgment.verdict is Verdict.SUPPORTED
    (evidence,) = overfits(study({"epochs/diabetes/kfac": cube("kfac", FALLING, FALLING, RISING)}), "kfac")
    assert evidence.judgment.estimate == pytest.approx(1)
    assert evidence.judgment.verdict is Verdict.REFUTED


def test_without_a_validation_loss_nothing_is_said_of_overfitting() -> None:
    nothing = [float("nan")] * 8
    assert not list(overfits(study({"epochs/diabetes/kfac": cube("kfac", nothing, FALLING, RISING)}), "kfac"))


@pytest.mark.parametrize("diverged", [[0], [0, 1, 2, 3]])
def test_a_run_that_diverged_has_not_overfitted(diverged: list[int]) -> None:
    """Nor has it a larger gap: how it would have ended is not known."""
    kfac, other = cube("kfac", RISING, RISING, RISING), cube("adamqlr", FALLING, FALLING, FALLING)
    for made, runs in ((kfac, diverged), (other, [])):
        made["diverged"][runs] = True
        made["value"].loc[{"metric": "test_loss", "seed": runs, "time": made["time"][-1]}] = np.inf
        made["value"].loc[{"metric": "train_loss"}] = 0.0
    found = study({"epochs/diabetes/kfac": kfac, "epochs/diabetes/adamqlr": other})
    (overfitting,) = overfits(found, "kfac")
    (gap,) = generalizes_worse(found, "kfac", "adamqlr")
    assert overfitting.judgment.verdict is gap.judgment.verdict is Verdict.UNDECIDED


def test_a_run_without_a_validation_loss_does_not_silence_the_others() -> None:
    made = cube("kfac", RISING, RISING, RISING)
    made["value_by_step"].loc[{"metric": "validation_loss", "seed": 0}] = np.nan
    (evidence,) = overfits(study({"epochs/diabetes/kfac": made}), "kfac")
    assert evidence.judgment.verdict is Verdict.UNDECIDED


def test_how_the_learning_rate_of_a_run_went_on_that_diverged_is_not_known() -> None:
    runs = cube("adamqlr", FALLING, FALLING, RISING)
    judged = []
    for diverged in ([], [0], [0, 1, 2, 3]):
        rates = runs["value_by_step"].copy()
        rates.loc[{"metric": "lr", "seed": diverged, "step": rates["step"][4:]}] = np.nan
        found = study({"epochs/diabetes/adamqlr": runs.assign(value_by_step=rates)})
        judged += [item.judgment for item in learning_rate_grows(found, "adamqlr")]
    # Of those that all diverged there is no row.
    (known, partly) = judged
    assert partly.estimate == pytest.approx(known.estimate, rel=1e-2)
    assert (partly.lower, partly.upper) == (0, np.inf)
    assert known.verdict is not partly.verdict is Verdict.UNDECIDED


def test_where_the_validation_loss_is_lowest_is_where_runs_should_have_stopped() -> None:
    test = [float(10 - step) for step in range(8)]
    stopped = at_lowest_validation_loss(cube("adam", RISING, test, RISING))
    np.testing.assert_allclose(stopped.sel(metric="test_loss"), 8.0 * (1 + 0.001 * np.arange(4)))


def test_a_learning_rate_grows_from_the_first_to_the_last_quarter() -> None:
    rates = [float("nan"), 0.1, 0.1, 0.2, 0.3, 0.3, 0.4, 0.4]
    found = study({"epochs/diabetes/adamqlr": cube("adamqlr", FALLING, FALLING, rates)})
    (evidence,) = learning_rate_grows(found, "adamqlr")
    assert evidence.judgment.estimate == pytest.approx(4)
    assert evidence.judgment.verdict is Verdict.SUPPORTED


def test_quarters_are_of_the_steps_and_not_of_their_records() -> None:
    made = cube("adamqlr", FALLING, FALLING, [float("nan"), 1.0, 1.0, 1.0, 1.0, 4.0, 4.0, 4.0])
    # Dense at first, as records are: the fifth of seven is of step 30 of 100.
    dense = made.assign_coords(step=[0, 1, 2, 3, 4, 30, 60, 100])
    (evidence,) = learning_rate_grows(study({"epochs/diabetes/adamqlr": dense}), "adamqlr")
    assert evidence.judgment.estimate == pytest.approx(4)
    late = made.assign_coords(step=[0, 1, 2, 3, 4, 5, 6, 100])
    (evidence,) = learning_rate_grows(study({"epochs/diabetes/adamqlr": late}), "adamqlr")
    assert evidence.judgment.estimate == pytest.approx(1)
    assert evidence.judgment.verdict is Verdict.REFUTED


def test_ranks_count_how_many_are_better() -> None:
    finals = {"adam": 0.3, "kfac": 0.1, "adamqlr": 0.4, "adamqlr_untuned": 0.2}
    cubes = {f"epochs/diabetes/{k}": cube(k, FALLING, [*FALLING[:-1], v], FALLING) for k, v in finals.items()}
    (evidence,) = ranks_high(study(cubes), "adamqlr_untuned")
    assert evidence.judgment.estimate == pytest.approx(1 / 3)
    assert evidence.judgment.verdict is Verdict.SUPPORTED
    cubes["epochs/diabetes/adam"] = cubes["epochs/diabetes/adam"].isel(seed=[0])
    assert not list(ranks_high(study(cubes), "adamqlr_untuned")), "a single run has no place"


def spreads(ours: Mapping[str, float], theirs: Mapping[str, float]) -> list[Evidence]:
    """Weigh two studies of the batch size, AdamQLR's and Adam's, by what the runs at each value end with."""
    cubes = {
        f"sensitivity/{sweep}/{point}": cube(
            optimizer, FALLING, [*FALLING[:-1], end], FALLING, sweep=sweep, sweep_parameter="batch_size"
        )
        for sweep, optimizer, ends in (("ours", "adamqlr", ours), ("theirs", "adam", theirs))
        for point, end in ends.items()
    }
    assert not list(matters_more(study(cubes), "K-FAC", "batch_size"))
    return list(matters_more(study(cubes), "Adam", "batch_size"))


def test_a_hyperparameter_matters_more_where_its_values_spread_further() -> None:
    (evidence,) = spreads({"50": 0.1, "100": 0.12}, {"50": 0.1, "100": 0.4})
    assert evidence.judgment.estimate == pytest.approx(4 / 1.2)
    assert evidence.judgment.verdict is Verdict.SUPPORTED


def test_spreads_are_compared_over_values_of_both_studies() -> None:
    (evidence,) = spreads({"50": 0.1, "100": 0.12, "200": 9.0}, {"100": 0.4, "50": 0.1, "400": 1e-3})
    assert evidence.judgment.estimate == pytest.approx(4 / 1.2)
    assert not spreads({"50": 0.1, "100": 0.12}, {"50": 0.1, "200": 0.4}), "one value has no spread"


def test_where_both_diverge_neither_hyperparameter_matters_more() -> None:
    both, one = {"50": 0.1, "100": 0.12, "200": np.inf}, {"50": 0.1, "100": 0.4, "200": np.inf}
    (evidence,) = spreads(both, one)
    assert evidence.judgment.estimate == pytest.approx(4 / 1.2)
    (evidence,) = spreads(both, {**one, "200": 0.2})
    assert evidence.judgment.estimate == 0
    assert evidence.judgment.verdict is Verdict.REFUTED


def test_the_ratio_of_spreads_by_hand() -> None:
    above, below = (
        [xr.DataArray([value] * 3, dims="seed") for value in values] for values in ((1.0, 6.0, 2.0), (3.0, 1.5))
    )
    assert judge_spreads(above, below, 1.0, ClaimsConfig(resamples=50))[:3] == (3.0, 3.0, 3.0)


def test_a_generalization_gap_is_compared_by_its_difference() -> None:
    def with_gap(optimizer: str, gap: float) -> xr.Dataset:
        made = cube(optimizer, FALLING, FALLING, FALLING)
        made["value"].loc[{"metric": "train_loss"}] = made["value"].sel(metric="test_loss") - gap
        return made

    for kfac, adamqlr, verdict in ((0.3, -0.1, Verdict.SUPPORTED), (-0.1, 0.3, Verdict.REFUTED)):
        cubes = {"kfac": with_gap("kfac", kfac), "adamqlr": with_gap("adamqlr", adamqlr)}
        found = study({f"epochs/diabetes/{key}": value for key, value in cubes.items()})
        (evidence,) = generalizes_worse(found, "kfac", "adamqlr")
        assert evidence.judgment.estimate == pytest.approx(kfac - adamqlr)
        assert evidence.judgment.verdict is verdict


def test_the_difference_of_infinite_medians_could_be_anything() -> None:
    inf, one = (xr.DataArray([value] * 3, dims="seed") for value in (np.inf, 1.0))
    lenient = ClaimsConfig(resamples=50)
    both = judge_difference(inf, inf, 0.0, lenient)
    assert (both.lower, both.upper, both.verdict) == (-np.inf, np.inf, Verdict.UNDECIDED)
    assert judge_difference(inf, one, 0.0, lenient)[:3] == (np.inf, np.inf, np.inf)
    assert judge_difference(one, one, 0.0, lenient)[:3] == (0, 0, 0)
