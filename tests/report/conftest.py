"""A small study's folder with made-up numbers, and its report."""

from pathlib import Path

import pytest
import yaml
from PIL import Image

from adamqlr.figures.contents import figures_of
from adamqlr.results.cube import write_cube
from adamqlr.results.join import write_study
from adamqlr.stages.claims import judge_claims
from adamqlr.stages.report import write_report
from adamqlr.stages.tables import write_table
from adamqlr.study.case import Case, cases_of
from adamqlr.study.config import StudyConfig, load_config
from adamqlr.tables.contents import tables_of
from adamqlr.training.history import History
from tests.results.histories import cube_of, random_history

SEEDS = 6


def made_up(case: Case) -> list[History]:
    """Make up a pair's runs; of untuned Adam, most diverge."""
    histories = []
    for seed in range(SEEDS):
        made = random_history(seed, 40, accuracy=case.settings.loss == "cross_entropy")
        made.evaluation_seconds = 0.05
        made.diverged = case.optimizer == "adam_untuned" and seed > 1
        histories.append(made)
    return histories


def write_folder(folder: Path) -> StudyConfig:
    """Write all that a report is made of; figures are blank, as drawing takes long."""
    settings = {
        "name": "small",
        "device": "cpu",
        "suites": ["epochs", "runtime_train"],
        "datasets": {"digits": {"epochs": 2}, "diabetes": {"epochs": 2}},
        "optimizers": ["adam_untuned", "adamqlr_untuned"],
        "ablations": {},
        "training": {"seeds": SEEDS},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    config, parts = load_config(folder / "config.yaml"), []
    for suite in config.suites:
        for case in cases_of(config, suite):
            labels = {"hyperparameters": {"batch_size": 50}, "device": "a test's CPU", "runs_sharing_device": 1}
            parts.append(folder / "cubes" / f"{case.path}.nc")
            write_cube(parts[-1], cube_of(case, made_up(case), 60, **labels))
    write_study(parts, folder / "study.nc")
    for suite in config.suites:
        for name in figures_of(config, suite, {}):
            path = folder / "figures" / suite / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGBA", (60, 30), "white").save(path)
        for name in tables_of(config, suite, {}):
            write_table(name, folder, suite, config, folder / "tables" / suite / name)
    judge_claims([folder / "study.nc"], config, folder / "claims")
    return config


@pytest.fixture(scope="session")
def study_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_folder(folder)
    write_report(folder, None, folder / "index.html")
    return folder
