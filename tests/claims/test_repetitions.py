"""Claims over repetitions of a study: what is weighed, what is said, and what is no repetition."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml

from adamqlr import cli
from adamqlr.claims.course import learning_rate_grows
from adamqlr.claims.evidence import against_best_baseline, pairwise
from adamqlr.claims.judge import Judgment, Verdict, judge_ratio
from adamqlr.claims.report import judging_rule
from adamqlr.claims.weigh import weigh
from adamqlr.results.bootstrap import units_to_exclude
from adamqlr.results.cube import write_cube
from adamqlr.results.join import write_study
from adamqlr.results.judged import performance
from adamqlr.results.repetitions import REPETITION, Runs, Sample, open_repetitions
from adamqlr.results.study import Study
from adamqlr.study.case import Case
from adamqlr.study.config import StudyConfig, load_config, parse_config
from adamqlr.study.settings import ClaimsConfig
from adamqlr.training.history import History
from tests.results.histories import cube_of

SETTINGS = {"name": "made-up", "datasets": ["diabetes"], "optimizers": ["adam", "sgd_full", "adamqlr"]}
CONFIG = parse_config(SETTINGS, "test")
# What five repetitions end with, whose seeds differ by two hundredths.
ENDS = (0.5, 1.3, 0.3, 2.0, 0.4)


def cube(
    optimizer: str, end: float, *, config: StudyConfig = CONFIG, seeds: int = 3, steps: int = 9, speed: float = 1.0
) -> xr.Dataset:
    """Make up runs whose loss falls to its end and whose learning rate grows by one half at every step."""
    histories = []
    for seed in range(seeds):
        histories.append(History(seed))
        for step in range(steps):
            loss = end * (1 + 0.01 * seed) * (steps - step)
            metrics = {"train_loss": loss, "test_loss": loss, "lr": 1.5**step if step else np.nan}
            histories[-1].append(step, step / speed, metrics)
    return cube_of(Case(config, "epochs", "diabetes", optimizer), histories)


def repeated(*repetitions: dict[str, xr.Dataset]) -> Study:
    trees = [
        xr.DataTree.from_dict({f"epochs/diabetes/{key}": one for key, one in cubes.items()}) for cubes in repetitions
    ]
    return Study(trees[0], CONFIG, others=tuple(trees[1:]))


def write_folder(folder: Path, ends: dict[str, float], **settings: Any) -> Path:
    """Write a study's folder, as far as claims need it."""
    path = folder / settings["name"]
    settings = {**SETTINGS, "optimizers": list(ends), **settings}
    config = parse_config(settings, "test")
    for optimizer, end in ends.items():
        write_cube(path / "cubes" / "epochs" / "diabetes" / f"{optimizer}.nc", cube(optimizer, end, config=config))
    (path / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Five repetitions, in each of which AdamQLR ends surely lower or surely higher than Adam."""
    folder = tmp_path_factory.mktemp("results")
    return [
        write_folder(folder, {"adam_untuned": 1.0, "adamqlr_untuned": end}, name=f"made-up_{seed}", seed=seed)
        for seed, end in enumerate(ENDS)
    ]


def adamqlr_claims(
    paths: Sequence[Path], stem: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *more: str
) -> tuple[str, str]:
    """Run the command, and return what it writes to the terminal and what it complains of."""
    studies = [f"--study={path}" for path in paths]
    monkeypatch.setattr(sys, "argv", ["adamqlr", "claims", *studies, "--output", str(stem), *more])
    with pytest.raises(SystemExit):
        cli.main()
    return capsys.readouterr()


def weighed(paths: Sequence[Path], config: StudyConfig | None = None) -> pd.DataFrame:
    with open_repetitions(paths, config) as study:
        return weigh(study)


def test_verdicts_are_those_of_all_searches(folders: list[Path]) -> None:
    for end, path in zip(ENDS, folders, strict=True):
        alone = weighed([path]).set_index("claim").loc["untuned_pair"]
        assert alone["verdict"] == ("refuted" if end > 1 else "supported")
    row = weighed(folders).set_index("claim").loc["untuned_pair"].to_dict()
    assert (row["verdict"], row["seeds"], row["repetitions"]) == ("undecided", 15, 5)
    assert row["estimate"] == pytest.approx(np.median(ENDS), rel=0.01)
    # The median of a resample of five may be each of them.
    ends = row["lower"], row["upper"]
    assert ends == pytest.approx((min(ENDS), max(ENDS)), rel=0.03)
    # The upper end is twice as far from the estimate as 1 is, on the logarithmic scale: that takes four times as many.
    assert row["more_repetitions"] == units_to_exclude(1.0, row["estimate"], ends, 5, is_ratio=True) - 5
    assert 13 <= row["more_repetitions"] <= 17


def test_all_that_is_written_says_what_intervals_are_of(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said, _ = adamqlr_claims(folders, tmp_path / "all", monkeypatch, capsys)
    for page in (said, (tmp_path / "all.md").read_text()):
        assert "bootstrap resamples of the 5 repetitions of the study, searches included" in page
        assert "Of few repetitions an interval of 95 % holds the true median less often than it says" in page
    page = (tmp_path / "all.html").read_text()
    assert all(f">{name}</th>" in page for name in ("Value [interval over repetitions]", "More repetitions"))
    assert "with 5 repetitions; more that would decide it: " in said
    more = pd.read_csv(tmp_path / "all.csv")["more_repetitions"].max()
    assert said.splitlines()[-1].strip() == f"{more:.0f} more repetitions of the study, each with a seed of its own"


def test_of_one_study_all_is_said_as_ever(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said, _ = adamqlr_claims(folders[:1], tmp_path / "one", monkeypatch, capsys)
    assert "repetition" not in said + (tmp_path / "one.md").read_text() + (tmp_path / "one.html").read_text()
    assert list(pd.read_csv(tmp_path / "one.csv"))[-4:] == ["verdict", "seeds", "more_seeds", "setting"]


def test_intervals_of_few_are_said_to_be_such() -> None:
    assert "Of few seeds an interval of 95 % holds the true median less often" in judging_rule(ClaimsConfig())
    assert "Of few repetitions an interval of 95 % holds" in judging_rule(ClaimsConfig(), 8)


def test_the_order_of_studies_does_not_matter(folders: list[Path]) -> None:
    pd.testing.assert_frame_equal(weighed(folders), weighed(folders[::-1]))


ALIKE = {"adam_untuned": 1.0, "adamqlr_untuned": 1.0}


@pytest.mark.parametrize(
    ("ends", "settings", "complaint"),
    [
        (
            ALIKE,
            {"tuning": {"trials": 7}},
            "tuning.trials: 200 in {0}, 7 in {1}: repetitions differ in name and seed alone",
        ),
        (
            {**ALIKE, "sgd_minimal": 1.0},
            {},
            "optimizers.sgd_minimal: nothing in {0}, a section in {1}: repetitions differ in name and seed alone",
        ),
        (
            ALIKE,
            {"claims": {"margin": 0.3}},
            "claims.margin: 0.1 in {0}, 0.3 in {1}: repetitions differ in name and seed alone",
        ),
        (ALIKE, {"seed": 0}, "{0} and {1}: both have the seed 0, so neither repeats the other: run one with another"),
    ],
)
def test_what_is_no_repetition_is_named(
    ends: dict[str, float],
    settings: dict[str, Any],
    complaint: str,
    folders: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    paths = [folders[0], write_folder(tmp_path, ends, **{"name": "other", "seed": 9, **settings})]
    _, error = adamqlr_claims(paths, tmp_path / "claims", monkeypatch, capsys)
    assert error.strip() == f"adamqlr: error: {complaint.format(*paths)}"
    assert not (tmp_path / "claims.csv").exists()


def test_a_cube_that_one_lacks_is_named(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for lacking in (0, 1):
        paths = []
        for number, path in enumerate(folders[:2]):
            cubes = sorted(path.glob("cubes/**/*.nc"))
            paths.append(tmp_path / f"{lacking}{number}.nc")
            write_study(cubes[: len(cubes) - (number == lacking)], paths[-1])
        _, error = adamqlr_claims(paths, tmp_path / "claims", monkeypatch, capsys)
        complaint = f"{paths[lacking]}: no cube 'epochs/diabetes/adamqlr_untuned', which {paths[1 - lacking]} has"
        assert error.strip() == f"adamqlr: error: {complaint}"


def test_what_decides_no_numbers_may_differ(folders: list[Path], tmp_path: Path) -> None:
    freely = {"data_dir": "elsewhere", "ablations": {}, "statistics": {"resamples": 9}, "training": {"seeds": 3}}
    paths = [folders[0], write_folder(tmp_path, ALIKE, name="other", seed=9, claims={"margin": 0.3}, **freely)]
    table = weighed(paths, load_config(paths[1] / "config.yaml"))
    assert (table["repetitions"] == 2).all()


def test_quantities_are_those_that_each_run_has_in_its_own_study() -> None:
    parts = cube("adam", 1.0, steps=9), cube("adam", 2.0, seeds=2, steps=30, speed=0.1)
    runs = Runs(parts)
    for quantity in (performance, lambda one: performance(one, 4.0)):
        values = runs.each(quantity)
        np.testing.assert_array_equal(values, np.concatenate([quantity(one) for one in parts]))
        assert values[REPETITION].values.tolist() == [0, 0, 0, 1, 1]
    assert REPETITION not in Runs(parts[:1]).each(performance).coords


def test_learning_rates_grow_over_each_runs_own_records() -> None:
    slow, fast = (cube("adamqlr", 1.0, seeds=1, steps=steps) for steps in (9, 90))
    alone = [next(learning_rate_grows(repeated({"adamqlr": one}), "adamqlr")).judgment.estimate for one in (slow, fast)]
    (both,) = learning_rate_grows(repeated({"adamqlr": slow}, {"adamqlr": fast}), "adamqlr")
    assert both.judgment.estimate == pytest.approx(np.mean(alone))
    assert both.sample == Sample(2, 2)


def test_learning_rates_that_one_repetition_alone_has_decide_nothing() -> None:
    grown, none = cube("adamqlr", 1.0), cube("adamqlr", 1.0)
    none["value_by_step"].loc[{"metric": "lr"}] = 0.0
    (evidence,) = learning_rate_grows(repeated({"adamqlr": grown}, {"adamqlr": none}), "adamqlr")
    assert evidence.sample == Sample(6, 2)
    assert evidence.judgment.verdict is Verdict.UNDECIDED


def test_the_best_baseline_is_that_of_all_repetitions() -> None:
    ends = [{"adam": 1.0, "sgd_full": 4.0}, {"adam": 1.0, "sgd_full": 0.1}, {"adam": 1.0, "sgd_full": 5.0}]
    study = repeated(*({key: cube(key, end) for key, end in {**own, "adamqlr": 2.0}.items()} for own in ends))
    (evidence,) = against_best_baseline(study, "adamqlr")
    assert evidence.quantity.endswith("AdamQLR ÷ best of 2 tuned baselines (Adam)")
    assert evidence.judgment.estimate == pytest.approx(2.0)


def test_what_a_repetitions_runs_share_cancels() -> None:
    # Such as the rows that are held out: they move all optimizers' losses of a repetition.
    values = xr.DataArray(
        np.repeat([0.1, 1.0, 30.0], 4), dims="seed", coords={REPETITION: ("seed", [0] * 4 + [1] * 4 + [2] * 4)}
    )
    assert judge_ratio(2 * values, [values], 1.0, ClaimsConfig()) == Judgment(2.0, 2.0, 2.0, 1.0)


def test_of_a_single_study_seeds_are_resampled_the_same_for_all() -> None:
    cubes = {"adam": cube("adam", 1.0), "adamqlr": cube("adamqlr", 1.2)}
    (evidence,) = pairwise(repeated(cubes), "adamqlr", "adam")
    drawn = np.random.default_rng([0, 0, 1, 2]).integers(3, size=(2000, 3))
    above, below = (np.median(performance(cubes[key]).values[drawn], axis=1) for key in ("adamqlr", "adam"))
    ends = np.quantile(above / below, (0.025, 0.975), method="inverted_cdf")
    assert (evidence.judgment.lower, evidence.judgment.upper) == tuple(ends)
    assert evidence.sample == Sample(3)
