"""Claims: intervals against scipy and by hand, and what verdicts follow."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from adamqlr.claims.judge import Judgment, Verdict, judge_ratio, judge_spread, resampled
from adamqlr.claims.statements import CLAIMS
from adamqlr.results.attributes import file_attributes
from adamqlr.results.bootstrap import divide, interval
from adamqlr.results.cube import build_cube, write_cube
from adamqlr.results.join import write_study
from adamqlr.results.judged import performance
from adamqlr.results.runs import runs_dataset
from adamqlr.stages.claims import judge_claims
from adamqlr.study.case import Case
from adamqlr.study.config import StudyConfig, parse_config
from adamqlr.study.settings import ClaimsConfig
from adamqlr.training.history import History
from tests.results.histories import cube_of

INF, NAN = float("inf"), float("nan")
SETTINGS = ClaimsConfig(resamples=4000)


def runs(*values: float) -> xr.DataArray:
    return xr.DataArray(list(values), dims="seed")


def test_ratios_agree_with_scipys_bootstrap() -> None:
    generator = np.random.default_rng(0)
    below = generator.normal(2, 0.2, 50)
    # Of the same seeds, and so with much in common.
    above = 1.5 * below + generator.normal(0, 0.1, 50)
    ours = judge_ratio(runs(*above), [runs(*below)], 1.1, SETTINGS)
    reference = scipy.stats.bootstrap(
        (above, below),
        lambda a, b, axis: np.median(a, axis=axis) / np.median(b, axis=axis),
        n_resamples=4000,
        paired=True,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    # Both are of 4,000 random resamples; the tolerance is several times their Monte Carlo error.
    assert ours.estimate == np.median(above) / np.median(below)
    assert ours.lower == pytest.approx(reference.low, abs=0.01)
    assert ours.upper == pytest.approx(reference.high, abs=0.01)
    assert ours.upper - ours.lower < 0.1
    assert ours.verdict is Verdict.REFUTED


def test_what_runs_of_one_seed_share_cancels_and_what_others_have_does_not() -> None:
    first = runs(*np.random.default_rng(0).normal(2, 0.5, 10))
    assert judge_ratio(1.05 * first, [first], 1.1, SETTINGS)[:3] == pytest.approx((1.05, 1.05, 1.05))
    others = (1.05 * first).assign_coords(seed=range(10, 20))
    apart = judge_ratio(others, [first], 1.1, SETTINGS)
    assert apart.lower < 0.9 < 1.2 < apart.upper


def test_of_values_that_make_no_difference_a_spread_is_known_to_be_none() -> None:
    """Resampled apart, the worst of many equal ones would be above the best in every resample."""
    alike = runs(1.0, 1.1, 1.3, 0.8, 1.2)
    assert judge_spread([alike] * 7, 1.05, SETTINGS) == Judgment(1, 1, 1, 1.05)


@pytest.mark.parametrize(
    ("count", "least", "most"), [(2, 0.5, 0.5), (3, 0.75, 0.75), (4, 0.87, 0.95), (7, 0.87, 0.95), (10, 0.87, 0.95)]
)
def test_intervals_of_few_hold_the_true_median_as_often_as_claims_say(count: int, least: float, most: float) -> None:
    generator, held, draws = np.random.default_rng(count), 0, 1000
    for number in range(draws):
        medians = resampled(runs(*generator.normal(size=count)), SETTINGS, stream=number)
        lower, upper = interval(medians, SETTINGS.confidence)
        held += lower <= 0 <= upper
    # Three standard errors of so many draws.
    assert least - 0.045 < held / draws < most + 0.045


def test_a_single_run_decides_nothing() -> None:
    for above, below in ((runs(1), runs(4, 4, 4)), (runs(1, 1, 1), runs(4)), (runs(1), runs(4))):
        judgment = judge_ratio(above, [below], 1, SETTINGS)
        assert judgment == Judgment(0.25, 0, INF, 1)
        assert judgment.verdict is Verdict.UNDECIDED
        assert np.isnan(judgment.units_to_decide(1))


def test_by_hand() -> None:
    assert judge_ratio(runs(2, 2, 2), [runs(4, 4, 4), runs(1, 1, 1)], 2, SETTINGS) == Judgment(2, 2, 2, 2)
    assert judge_spread([runs(3, 3), runs(1, 1), runs(2, 2)], 2, SETTINGS) == Judgment(3, 3, 3, 2)
    assert divide(np.array([0.0, 1, 0, INF, 1, INF]), np.array([0.0, 0, 1, 1, INF, INF])).tolist()[:5] == [
        1,
        INF,
        0,
        INF,
        0,
    ]


@pytest.mark.parametrize(
    ("judgment", "verdict"),
    [
        (Judgment(1, 0.9, 1.1, 1.1), "supported"),
        (Judgment(1, 0.9, 1.2, 1.1), "undecided"),
        (Judgment(1.2, 1.11, 1.3, 1.1), "refuted"),
        (Judgment(0.5, 0.5, 0.7, 0.5, at_least=True), "supported"),
        (Judgment(0.5, 0.2, 0.7, 0.5, at_least=True), "undecided"),
        (Judgment(0.1, 0.0, 0.2, 0.5, at_least=True), "refuted"),
        # What is equal is no worse, and no better either.
        (Judgment(1, 1, 1, 1), "supported"),
        (Judgment(1, 1, 1, 1, is_strict=True), "refuted"),
        (Judgment(0.9, 0.8, 1, 1, is_strict=True), "undecided"),
        (Judgment(1, 1, 1, 1, at_least=True), "supported"),
        (Judgment(1, 1, 1, 1, at_least=True, is_strict=True), "refuted"),
        (Judgment(1.1, 1, 1.2, 1, at_least=True, is_strict=True), "undecided"),
    ],
)
def test_verdicts_follow_from_the_interval(judgment: Judgment, verdict: str) -> None:
    assert str(judgment.verdict) == verdict


def test_relations_say_what_is_wanted() -> None:
    said = [
        Judgment(1, 1, 1, 1, at_least=at_least, is_strict=is_strict).relation
        for at_least in (False, True)
        for is_strict in (False, True)
    ]
    assert said == ["≤", "<", "≥", ">"]


def test_divergence_decides_against_the_one_that_diverged_and_nothing_where_both_did() -> None:
    good, bad = runs(1, 1, 1), runs(INF, INF, INF)
    assert judge_ratio(bad, [good], 1.1, SETTINGS).verdict is Verdict.REFUTED
    assert judge_ratio(good, [bad], 1.1, SETTINGS).verdict is Verdict.SUPPORTED
    both = judge_ratio(bad, [bad], 1.1, SETTINGS)
    assert (both.lower, both.upper, both.verdict) == (0, INF, Verdict.UNDECIDED)


@given(
    values=st.lists(st.floats(0.1, 10), min_size=2, max_size=9),
    others=st.lists(st.floats(0.1, 10), min_size=2, max_size=9),
    diverged=st.integers(0, 8),
)
@settings(max_examples=50, deadline=None)
def test_a_diverged_run_never_helps_its_claim(values: list[float], others: list[float], diverged: int) -> None:
    worse = list(values)
    worse[diverged % len(values)] = INF
    settings = ClaimsConfig(resamples=200)
    before, after = (judge_ratio(runs(*v), [runs(*others)], 1.1, settings) for v in (values, worse))
    assert after.estimate >= before.estimate
    assert after.lower >= before.lower
    assert after.upper >= before.upper


STUDY = parse_config(
    {
        "name": "made-up",
        "datasets": ["digits", "diabetes"],
        "optimizers": ["adam", "adam_untuned", "adamqlr", "adamqlr_untuned", "adamqlr_hessian", "kfac"],
        "sensitivity": {
            "damping": {"dataset": "digits", "optimizer": "adamqlr", "parameter": "damping", "values": [0.01, 1]},
            "scale": {"dataset": "digits", "optimizer": "adamqlr", "parameter": "lr_rescaling", "values": [0.5, 1, 2]},
        },
    },
    "test",
)


def flat_history(seed: int, final: float, duration: float, accuracy: bool) -> History:
    """Make a history that falls from 1 to ``final`` in equal factors."""
    made = History(seed)
    for record in range(11):
        value = final ** (record / 10) * (1 + 1e-3 * seed)
        metrics = {"train_loss": value, "test_loss": value}
        made.append(record, duration * record / 10, metrics | ({"test_accuracy": 1 - value} if accuracy else {}))
    return made


def cube_file(
    folder: Path, config: StudyConfig, dataset: str, optimizer: str, final: float, duration: float = 1.0, **labels: str
) -> Path:
    histories = [flat_history(seed, final, duration, dataset == "digits") for seed in range(3)]
    path = folder / f"{dataset}_{optimizer}_{labels.get('sweep', '')}_{labels.get('sweep_point', '')}.nc"
    write_cube(path, cube_of(Case(config, "epochs", dataset, optimizer), histories, 100, **labels))
    return path


@pytest.fixture(scope="module")
def study_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("claims")
    finals = {
        ("digits", "adam"): 0.1,
        ("digits", "adam_untuned"): 0.2,
        ("digits", "adamqlr"): 0.05,
        ("digits", "adamqlr_untuned"): 0.1,
        ("digits", "adamqlr_hessian"): 0.2,
        ("digits", "kfac"): 0.3,
        ("diabetes", "adam"): 0.1,
        ("diabetes", "adam_untuned"): 0.1,
        ("diabetes", "adamqlr"): 0.2,
        ("diabetes", "adamqlr_untuned"): 0.4,
        ("diabetes", "adamqlr_hessian"): 0.1,
        ("diabetes", "kfac"): 0.09,
    }
    parts = [cube_file(folder, STUDY, *pair, final) for pair, final in finals.items()]
    for sweep, ends in (("damping", {"0.01": 0.1, "1": 0.15}), ("scale", {"0.5": 0.1, "1": 0.2, "2": 0.1})):
        parameter = STUDY.sweep(sweep).parameter
        for point, final in ends.items():
            labels: dict[str, Any] = {"sweep": sweep, "sweep_parameter": parameter, "sweep_point": point}
            parts.append(cube_file(folder, STUDY, "digits", "adamqlr", final, **labels))
    write_study(parts, folder / "study.nc")
    return folder / "study.nc"


def test_each_claim_gets_its_verdict_where_the_study_speaks_of_it(study_file: Path, tmp_path: Path) -> None:
    judge_claims([study_file], None, tmp_path / "claims")
    table = pd.read_csv(tmp_path / "claims.csv").set_index(["claim", "dataset"])
    verdicts = table["verdict"].to_dict()
    assert verdicts == {
        ("untuned_adamqlr", "digits"): "supported",
        ("untuned_adamqlr", "diabetes"): "refuted",
        ("tuned_adamqlr", "digits"): "supported",
        ("tuned_adamqlr", "diabetes"): "refuted",
        ("heuristics_vary", "2 datasets"): "supported",
        ("untuned_pair", "digits"): "supported",
        ("untuned_pair", "diabetes"): "refuted",
        # Their losses on training and test data are made equal.
        ("kfac_generalization", "digits"): "supported",
        ("kfac_generalization", "diabetes"): "supported",
        ("ranks", "2 datasets"): "refuted",
        ("curvature", "digits"): "supported",
        ("curvature", "diabetes"): "refuted",
        ("initial_damping", "digits"): "supported",
        ("rescaling", "digits"): "refuted",
    }
    assert table.loc[("tuned_adamqlr", "digits"), "estimate"] == pytest.approx(0.5)
    assert table.loc[("rescaling", "digits"), "estimate"] == pytest.approx(2)
    # On digits one of five is better and one as good, on diabetes all five are better.
    assert table.loc[("ranks", "2 datasets"), "estimate"] == pytest.approx((1.5 / 5 + 1) / 2)
    # K-FAC ends lowest on diabetes, Adam on digits.
    quantities = table["quantity"].to_dict()
    assert quantities["untuned_adamqlr", "diabetes"].endswith("÷ best of 2 tuned baselines (K-FAC)")
    assert quantities["untuned_adamqlr", "digits"].endswith("÷ best of 2 tuned baselines (Adam)")
    text = (tmp_path / "claims.md").read_text()
    for claim in CLAIMS:
        assert claim.statement in text
    lacking = text.partition("what to add to the configuration")[2]
    assert "- Damping improves AdamQLR. Add the optimizer `adamqlr_undamped`." in lacking
    assert "`batch_size` of AdamQLR." in lacking
    assert "<table" in (tmp_path / "claims.html").read_text()


def test_the_margin_is_the_configurations(study_file: Path, tmp_path: Path) -> None:
    lenient = STUDY.model_copy(update={"claims": ClaimsConfig(margin=5, flatness=1.2)})
    judge_claims([study_file], lenient, tmp_path / "claims")
    verdicts = pd.read_csv(tmp_path / "claims.csv").set_index(["claim", "dataset"])["verdict"]
    assert verdicts["untuned_adamqlr", "diabetes"] == "supported"
    assert verdicts["initial_damping", "digits"] == "refuted"


def judged(folder: Path, config: StudyConfig, parts: list[Path]) -> pd.DataFrame:
    write_study(parts, folder / "study.nc")
    judge_claims([folder / "study.nc"], config, folder / "claims")
    return pd.read_csv(folder / "claims.csv")


@pytest.mark.parametrize(("ours", "theirs", "at_that_time"), [(1, 10, 0.1**0.1), (10, 1, 0.1)])
def test_a_baseline_is_read_when_the_other_ends_or_at_its_own_end_before(
    ours: float, theirs: float, at_that_time: float, tmp_path: Path
) -> None:
    config = STUDY.model_copy(update={"sensitivity": {}})
    parts = [
        cube_file(tmp_path, config, "diabetes", "adam", 0.1, duration=theirs),
        cube_file(tmp_path, config, "diabetes", "adamqlr_untuned", 0.1, duration=ours),
    ]
    row = judged(tmp_path, config, parts).set_index("claim").loc["untuned_adamqlr"]
    # After a tenth of its run Adam has done one of its ten equal factors.
    assert row["estimate"] == pytest.approx(0.1 / at_that_time, rel=0.01)


def test_a_baseline_that_would_be_the_best_later_is_not_the_best(tmp_path: Path) -> None:
    config = STUDY.model_copy(update={"sensitivity": {}})
    parts = [
        cube_file(tmp_path, config, "diabetes", "adam", 0.2),
        cube_file(tmp_path, config, "diabetes", "kfac", 0.01, duration=100),
        cube_file(tmp_path, config, "diabetes", "adamqlr_untuned", 0.25),
    ]
    row = judged(tmp_path, config, parts).set_index("claim").loc["untuned_adamqlr"]
    assert row["quantity"].endswith("AdamQLR (Untuned) ÷ best of 2 tuned baselines (Adam)")
    assert (row["estimate"], row["verdict"]) == (pytest.approx(1.25), "refuted")


def sudden(ends: list[float]) -> xr.Dataset:
    """Return a cube of runs of which only the last step, at a time of its own, makes a difference."""
    histories = []
    for seed, end in enumerate(ends):
        history = History(seed)
        for step, time, loss in ((0, 0.0, 9.0), (1, 1e-3, 5.0), (2, end, 1.0)):
            history.append(step, time, {"train_loss": loss, "test_loss": loss})
        histories.append(history)
    return build_cube([runs_dataset(histories, {"loss": "half_mse", "seeds": "[0, 1, 2]"})], 200)


def test_runs_that_have_ended_by_a_time_are_judged_by_their_ends() -> None:
    """The time grid ends with the last run, and its last but one point may be long before."""
    assert performance(sudden([899.9, 900.0, 900.1]), 900.0).values.tolist() == [1, 1, 5]


@pytest.mark.parametrize("suite", ["epochs", "runtime_train"])
def test_runs_are_compared_at_the_end_whatever_their_jitter(suite: str, tmp_path: Path) -> None:
    """All at theirs, where their time is fixed: half of them end a moment after their median."""
    config = STUDY.model_copy(update={"sensitivity": {}})
    if suite != "epochs":
        config = parse_config({**config.model_dump(mode="json"), "suites": ["epochs", suite]}, "test")
    parts = []
    for optimizer, ends in (("adam", [10.0, 10.1, 10.2]), ("adamqlr_untuned", [9.9, 10.0, 10.1])):
        attrs = file_attributes(
            Case(config, suite, "diabetes", optimizer), seeds=[0, 1, 2], hyperparameters={}, device="a CPU"
        )
        parts.append(tmp_path / f"{optimizer}.nc")
        write_cube(parts[-1], sudden(ends).assign_attrs(attrs))
    table = judged(tmp_path, config, parts)
    (estimate,) = table[(table["claim"] == "untuned_adamqlr") & (table["suite"] == suite)]["estimate"]
    # AdamQLR has ended: with fixed epochs, two of Adam's runs are then still before their last step.
    assert estimate == (1 / 5 if suite == "epochs" else 1)


def test_what_nothing_was_tuned_of_is_no_tuned_baseline(tmp_path: Path) -> None:
    fixed = {"adam": {"options": {"lr": 1e-3, "batch_size": 100}}, "adamqlr_untuned": {}}
    config = parse_config({"name": "fixed", "datasets": ["diabetes"], "optimizers": fixed}, "test")
    parts = [cube_file(tmp_path, config, "diabetes", optimizer, 0.1) for optimizer in fixed]
    write_study(parts, tmp_path / "study.nc")
    judge_claims([tmp_path / "study.nc"], config, tmp_path / "claims")
    assert "untuned_adamqlr" not in set(pd.read_csv(tmp_path / "claims.csv")["claim"])


def test_baselines_that_the_configuration_in_force_leaves_out_count_as_they_did(tmp_path: Path) -> None:
    """What was tuned of them is not known there; the study's file has their runs."""
    config = STUDY.model_copy(update={"sensitivity": {}})
    parts = [cube_file(tmp_path, config, "diabetes", optimizer, 0.1) for optimizer in ("adam", "adamqlr_untuned")]
    write_study(parts, tmp_path / "study.nc")
    smaller = parse_config({"name": "made-up", "datasets": ["digits"], "optimizers": ["adamqlr_untuned"]}, "test")
    judge_claims([tmp_path / "study.nc"], smaller, tmp_path / "claims")
    assert "untuned_adamqlr" in set(pd.read_csv(tmp_path / "claims.csv")["claim"])


def test_performance_is_lower_the_better_at_any_time(study_file: Path) -> None:
    cube = xr.load_dataset(study_file, group="epochs/digits/adam")
    assert cube.attrs["loss"] == "cross_entropy"
    np.testing.assert_allclose(performance(cube), 0.1 * (1 + 1e-3 * np.arange(3)))
    np.testing.assert_allclose(performance(cube, 0.0), performance(cube, cube["time"].values[0]))
    assert json.loads(cube.attrs["seeds"]) == [0, 1, 2]
