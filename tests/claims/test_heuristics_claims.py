"""The claims that a factorial's heuristics help its directions."""

from pathlib import Path

import pytest
import xarray as xr

from adamqlr.claims.heuristics import heuristics_claims
from adamqlr.claims.report import write_claims
from adamqlr.claims.statements import CLAIMS, claims_of
from adamqlr.claims.weigh import summarize, weigh
from adamqlr.results.study import Study
from adamqlr.study.case import cases_of
from adamqlr.study.config import StudyConfig, parse_config
from adamqlr.training.history import History
from tests.results.histories import cube_of

CONFIG = parse_config(
    {
        "name": "made-up",
        "datasets": ["digits", "diabetes"],
        "optimizers": [],
        "factorials": {
            "small": {
                "directions": {"adam": {"label": "Adam", "direction": "adam"}, "gradient": {"direction": "gradient"}},
                "heuristics": {
                    "tuned": {"label": "Tuned", "space": {"lr": {"loguniform": [1e-3, 1]}}},
                    "lr": {"label": "Learning rate"},
                    "all": {"label": "All", "heuristics": {"momentum": None}},
                },
            }
        },
    },
    "test",
)
# Of the judged quantity; diverged runs have none.
FINAL = {"adam-tuned": 0.2, "adam-lr": 0.1, "adam-all": 0.4, "gradient-tuned": 0.2, "gradient-lr": 0.2}


def runs(optimizer: str) -> list[History]:
    histories = []
    for seed in range(5):
        history = History(seed=seed, diverged=optimizer not in FINAL)
        for step in range(3):
            value = FINAL.get(optimizer, 1.0)
            metrics = {"test_loss": value, "validation_loss": value, "test_accuracy": 1 - value}
            history.append(step, 0.1 * step, metrics, evaluation_seconds=0.0)
        histories.append(history)
    return histories


@pytest.fixture(scope="module")
def study() -> Study:
    cubes = {f"/{case.path}": cube_of(case, runs(case.optimizer), 10) for case in cases_of(CONFIG, "epochs")}
    return Study(xr.DataTree.from_dict(cubes), CONFIG)


def test_every_combination_but_the_first_is_weighed_on_every_dataset(study: Study) -> None:
    table = weigh(study)
    assert list(table["claim"]) == [
        key for key in ("adam-lr", "adam-all", "gradient-lr", "gradient-all") for _ in range(2)
    ]
    verdicts = table.groupby("claim", sort=False)["verdict"].agg(set).to_dict()
    assert verdicts == {
        "adam-lr": {"supported"},
        "adam-all": {"refuted"},
        # No worse counts as help.
        "gradient-lr": {"supported"},
        "gradient-all": {"refuted"},
    }
    assert table["estimate"].tolist() == pytest.approx([0.5, 0.5, 2, 2, 1, 1, float("inf"), float("inf")])
    assert set(table["quantity"].str.split(",").str[0]) == {"test error", "test loss"}


def test_statements_name_the_heuristics_and_the_direction(study: Study, tmp_path: Path) -> None:
    statements = [statement for *_, statement in heuristics_claims(CONFIG)]
    assert statements[0] == "The heuristics “Learning rate” help Adam: it ends no worse than with “Tuned”."
    assert len(statements) == 4
    table = weigh(study)
    write_claims(table, summarize(study, table), CONFIG.claims, tmp_path / "claims")
    assert all(statement in (tmp_path / "claims.md").read_text() for statement in statements)


def test_a_study_without_factorials_has_the_papers_claims() -> None:
    plain: StudyConfig = parse_config({"name": "plain", "datasets": ["digits"], "optimizers": ["adam"]}, "test")
    assert claims_of(plain) == CLAIMS
