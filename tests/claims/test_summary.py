"""One verdict for each claim, and what a study lacks for those that it says nothing of."""

import math

import numpy as np
import pytest
import xarray as xr

from adamqlr.claims.evidence import effect_varies, pairwise
from adamqlr.claims.judge import Verdict
from adamqlr.claims.report import as_text
from adamqlr.claims.statements import CLAIMS
from adamqlr.claims.weigh import summarize, summary_verdict, weigh
from adamqlr.results.study import Study
from adamqlr.study.case import Case
from adamqlr.study.config import parse_config
from adamqlr.training.history import History
from tests.results.histories import cube_of

CONFIG = parse_config(
    {
        "name": "made-up",
        "datasets": ["diabetes", "uci_energy", "rosenbrock"],
        "optimizers": ["adam", "adamqlr", "adamqlr_untuned", "kfac"],
        "training": {"seeds": 5},
        "sensitivity": {
            "ours": {"dataset": "diabetes", "optimizer": "adamqlr", "parameter": "batch_size", "values": [50, 100]},
            "theirs": {"dataset": "uci_energy", "optimizer": "adam", "parameter": "batch_size", "values": [50, 100]},
        },
    },
    "test",
)
# Of five seeds.
SPREAD = np.array([0.8, 0.9, 1.0, 1.1, 1.25])


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["supported", "undecided"], "supported"),
        (["refuted", "undecided", "refuted"], "refuted"),
        (["supported", "supported", "refuted"], "mixed"),
        (["undecided"], "undecided"),
        ([], "not weighed"),
    ],
)
def test_a_claim_as_a_whole(verdicts: list[str], expected: str) -> None:
    assert summary_verdict(verdicts) == expected


def cube(dataset: str, optimizer: str, center: float, **labels: str) -> xr.Dataset:
    histories = []
    # Of one seed, optimizers have nothing in common: what they share would cancel.
    for seed, factor in enumerate(np.roll(SPREAD, len(optimizer))):
        histories.append(History(seed))
        for step in range(3):
            metrics = dict.fromkeys(("train_loss", "test_loss"), center * factor)
            histories[-1].append(step, 0.1 * step, metrics)
    return cube_of(Case(CONFIG, "epochs", dataset, optimizer), histories, 5, **labels)


def study(finals: dict[tuple[str, str], float], *sweeps: str) -> Study:
    cubes = {f"epochs/{dataset}/{key}": cube(dataset, key, center) for (dataset, key), center in finals.items()}
    for name in sweeps:
        sweep = CONFIG.sweep(name)
        for point in sweep.points:
            labels = {"sweep": name, "sweep_parameter": "batch_size", "sweep_point": point}
            cubes[f"sensitivity/{name}/{point}"] = cube(sweep.dataset, sweep.optimizer, 1.0, **labels)
    return Study(xr.DataTree.from_dict(cubes), CONFIG)


def lacks(found: Study) -> dict[str, str]:
    summary = summarize(found, weigh(found)).set_index("claim")
    assert (summary["lacks"] != "").tolist() == (summary["verdict"] == "not weighed").tolist()
    return dict(summary["lacks"])


def test_a_study_is_told_what_it_lacks() -> None:
    both = {("diabetes", "adam"): 1.0, ("diabetes", "adamqlr"): 1.0}
    said = lacks(study({**both, ("uci_energy", "kfac"): 1.0}, "ours", "theirs"))
    assert said["damping"] == "the optimizer `adamqlr_undamped`"
    assert said["untuned_pair"] == "the optimizers `adamqlr_untuned` and `adam_untuned`"
    assert said["heuristics_vary"] == "datasets, so that `adamqlr` and `adam` are trained on at least 2 in one suite"
    assert said["kfac_generalization"] == "a dataset on which `kfac` and `adamqlr` are all trained, in one suite"
    assert said["kfac_overfits"] == "runs of `kfac` that record a validation loss"
    assert said["growing_learning_rate"].startswith("runs of `adamqlr` that record learning rates above 0")
    assert said["initial_damping"] == "a sensitivity study of the `damping` of AdamQLR"
    assert said["adam_batch_size"] == "sensitivity studies of the `batch_size` of Adam and AdamQLR on the same dataset"
    assert said["kfac_batch_size"] == "a sensitivity study of the `batch_size` of K-FAC"
    assert said["tuned_adamqlr"] == said["large_batches"] == ""
    alone = lacks(study({("diabetes", "adamqlr_untuned"): 1.0}))
    assert alone["untuned_adamqlr"] == "a tuned baseline, such as `adam`, on a dataset of `adamqlr_untuned`"
    assert alone["ranks"] == "another optimizer on a dataset of `adamqlr_untuned`"


def test_a_study_without_a_test_set_needs_one() -> None:
    trajectory = cube("rosenbrock", "adam", 1.0).assign(parameters=("seed", np.zeros(5)))
    said = lacks(Study(xr.DataTree.from_dict({"epochs/rosenbrock/adam": trajectory}), CONFIG))
    assert said["tuned_adamqlr"] == "a dataset that has a test set"
    assert all(said[claim.key] for claim in CLAIMS)


def test_an_effect_varies_surely_once_each_side_is_sure() -> None:
    def seeds(diabetes: float, uci_energy: float) -> float:
        ratios = {"diabetes": diabetes, "uci_energy": uci_energy}
        finals = {(dataset, "adam"): 1.0 for dataset in ratios}
        finals |= {(dataset, "adamqlr"): ratio for dataset, ratio in ratios.items()}
        found = study(finals)
        (evidence,) = effect_varies(found, "adamqlr", "adam")
        assert evidence.judgment.verdict is Verdict.UNDECIDED
        alone = [item.judgment.units_to_decide(5) for item in pairwise(found, "adamqlr", "adam")]
        # Both datasets have to be sure, on whichever sides of 1 they are.
        assert evidence.units_to_decide == max(alone)
        return evidence.units_to_decide

    assert 5 < seeds(0.85, 1.25) < math.inf
    assert 5 < seeds(1.2, 1.25) < math.inf
    assert seeds(0.1, 1.0) == math.inf


def test_what_is_decided_with_many_seeds_does_not_hide_what_is_not_with_few() -> None:
    cubes = {f"epochs/uci_energy/{key}": cube("uci_energy", key, at) for key, at in (("adam", 1.0), ("adamqlr", 0.1))}
    for key, at in (("adam", 1.0), ("adamqlr", 0.9)):
        cubes[f"epochs/diabetes/{key}"] = cube("diabetes", key, at).isel(seed=slice(1, 4))
    found = Study(xr.DataTree.from_dict(cubes), CONFIG)
    undecided, decided = sorted(pairwise(found, "adamqlr", "adam"), key=lambda item: item.sample)
    (evidence,) = effect_varies(found, "adamqlr", "adam")
    assert decided.units_to_decide == decided.sample.seeds == evidence.sample.seeds == 5
    assert evidence.units_to_decide == math.ceil(5 * undecided.units_to_decide / 3)


def test_the_terminal_shows_verdicts_what_is_lacking_and_the_command() -> None:
    found = study({("diabetes", "adam"): 1.0, ("diabetes", "adamqlr"): 1.25, ("uci_energy", "adamqlr"): 1.0})
    table = weigh(found)
    (more,) = table.loc[table["claim"] == "tuned_adamqlr", "more_seeds"]
    text = as_text(table, summarize(found, table), CONFIG)
    assert "undecided    Tuned AdamQLR is comparable with tuned Adam." in text
    assert f"undecided on diabetes in epochs with 5 seeds; more that would decide it: {more:.0f}" in text
    assert "add the optimizer `adamqlr_undamped`" in text
    command = f"snakemake --configfile results/made-up/config.yaml --config training='{{seeds: {5 + more:.0f}}}'"
    assert text.splitlines()[-1].strip() == command
