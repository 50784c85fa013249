"""How many more seeds would decide a verdict: the estimate, its setting, and the command."""

import math
import shlex

import numpy as np
import pandas as pd
import pytest
import yaml

from adamqlr.claims.evidence import Evidence
from adamqlr.claims.judge import Judgment
from adamqlr.claims.more_seeds import advice, more_seeds_text, setting_of, wanted_settings
from adamqlr.results.bootstrap import interval, resampled_medians, units_to_exclude
from adamqlr.results.repetitions import Sample
from adamqlr.study.config import parse_config

INF, NAN = math.inf, math.nan
SWEEP = {"dataset": "digits", "optimizer": "adamqlr", "parameter": "damping", "values": [0.1, 1]}
SETTINGS = {
    "name": "made-up",
    "datasets": {"digits": {}, "diabetes": {"seeds": 7}},
    "optimizers": ["adam", "adamqlr"],
    "sensitivity": {"damping": SWEEP, "own.seeds": {**SWEEP, "seeds": 3}},
}
CONFIG = parse_config(SETTINGS, "test")


@pytest.mark.parametrize(
    ("bound", "estimate", "ends", "is_ratio", "expected"),
    [
        # The end beyond the bound is twice as far as the bound: four times the seeds.
        (1.0, 0.0, (-9.0, 2.0), False, 40),
        (-1.0, 0.0, (-2.0, 9.0), False, 40),
        (2.0, 1.0, (0.1, 4.0), True, 40),
        (0.5, 1.0, (0.25, 9.0), True, 40),
        # It cannot do with those that there are.
        (1.0, 0.0, (-1.0, 1.0), False, 11),
        # At the bound, and so near that no number is credible.
        (1.0, 1.0, (0.5, 2.0), True, INF),
        (1.0, 1.0, (1.0, 2.0), True, INF),
        (1.0, 0.9, (0.0, 2.0), False, INF),
        # Some resamples diverge: no width is known.
        (1.1, 1.0, (0.9, INF), True, NAN),
        (1.1, 2.0, (0.0, 3.0), True, NAN),
        (1.1, NAN, (0.0, INF), True, NAN),
        (1.1, INF, (1.0, INF), True, NAN),
    ],
)
def test_seeds_by_hand(
    bound: float, estimate: float, ends: tuple[float, float], is_ratio: bool, expected: float
) -> None:
    assert units_to_exclude(bound, estimate, ends, 10, is_ratio) == pytest.approx(expected, nan_ok=True)


def test_with_the_estimated_seeds_intervals_end_at_the_bound() -> None:
    generator = np.random.default_rng(0)

    def mean_end(seeds: int) -> float:
        ends = [
            interval(resampled_medians(values - np.median(values), 400, generator), 0.95, -INF)[1]
            for values in generator.normal(size=(200, seeds))
        ]
        return float(np.mean(ends))

    wanted = units_to_exclude(0.25, 0.0, (-1.0, mean_end(25)), 25)
    assert 50 < wanted < 400
    # 200 repetitions leave a standard error of about 3 %.
    assert mean_end(int(wanted)) == pytest.approx(0.25, rel=0.15)


def test_a_decided_verdict_needs_no_more() -> None:
    assert Judgment(1, 0.9, 1.05, 1.1).units_to_decide(5) == 5
    assert Judgment(1, 0.9, 1.21, 1.1).units_to_decide(5) == 20
    assert Judgment(0.2, -0.5, 0.9, 0.0, at_least=True, is_ratio=False).units_to_decide(4) == 49


def item(dataset: str, *sweeps: str) -> Evidence:
    return Evidence("epochs", dataset, "anything", Judgment(1, 0.9, 1.21, 1.1), Sample(5), sweeps)


def test_the_setting_is_the_one_that_counts() -> None:
    assert setting_of(item("digits"), CONFIG) == "training.seeds"
    assert setting_of(item("diabetes"), CONFIG) == "datasets.diabetes.seeds"
    several = item("2 datasets")._replace(datasets=("digits", "diabetes"))
    assert setting_of(several, CONFIG) == "datasets.diabetes.seeds training.seeds"
    assert setting_of(several._replace(datasets=("diabetes",)), CONFIG) == "datasets.diabetes.seeds"
    assert setting_of(item("digits", "damping", "own.seeds"), CONFIG) == (
        "sensitivity.damping.seeds sensitivity.own.seeds.seeds"
    )


def row(more: float, setting: str = "training.seeds", seeds: int = 5) -> dict[str, object]:
    return {"verdict": "undecided", "seeds": seeds, "more_seeds": more, "setting": setting}


def test_what_is_told_and_wanted() -> None:
    assert [more_seeds_text(row(more)) for more in (7.0, INF, NAN)] == ["7", "more than 95", "unknown"]
    assert more_seeds_text({**row(NAN), "seeds": 1}) == "at least 1"
    assert more_seeds_text({**row(NAN), "verdict": "refuted"}) == ""
    both = "sensitivity.damping.seeds sensitivity.own.seeds.seeds"
    table = pd.DataFrame([row(7.0), row(12.0), row(INF), row(NAN), row(4.0, both)])
    config = parse_config({**SETTINGS, "training": {"seeds": 5}}, "test")
    wanted = {"training.seeds": 17, "sensitivity.damping.seeds": 9, "sensitivity.own.seeds.seeds": 9}
    assert wanted_settings(table, config) == wanted


def test_no_setting_is_lowered() -> None:
    sweeps = {"damping": SWEEP, "own.seeds": {**SWEEP, "seeds": 3}}
    datasets = {"digits": {}, "diabetes": {"seeds": 7}}
    settings = {**SETTINGS, "datasets": datasets, "sensitivity": sweeps, "training": {"seeds": 12}}
    both = "sensitivity.damping.seeds sensitivity.own.seeds.seeds"
    # Four seeds are those of the smaller study, or those of which a quantity is known.
    table = pd.DataFrame([row(1.0, each, seeds=4) for each in (both, "training.seeds", "datasets.diabetes.seeds")])
    assert wanted_settings(table, parse_config(settings, "test")) == {
        "sensitivity.damping.seeds": 12,
        "sensitivity.own.seeds.seeds": 5,
        "training.seeds": 12,
        "datasets.diabetes.seeds": 7,
    }


def test_the_command_changes_the_studys_own_configuration_to_that() -> None:
    wanted = {
        "training.seeds": 17,
        "sensitivity.damping.seeds": 9,
        "sensitivity.own.seeds.seeds": 8,
        "datasets.diabetes.seeds": 30,
    }
    command, by_hand = advice(CONFIG, wanted)
    assert by_hand == "set datasets.diabetes.seeds to 30 in the configuration"
    words = shlex.split(command)
    assert words[:4] == ["snakemake", "--configfile", "results/made-up/config.yaml", "--config"]
    settings = {name: yaml.safe_load(text) for name, _, text in (word.partition("=") for word in words[4:])}
    assert settings == {"training": {"seeds": 17}, "sensitivity": {"damping": {"seeds": 9}, "own.seeds": {"seeds": 8}}}
    assert advice(CONFIG, {}) == []
    assert advice(CONFIG, {"datasets.diabetes.seeds": 30}) == [by_hand]
