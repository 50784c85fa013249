"""What the report holds, read as a file."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from adamqlr.errors import UserError
from adamqlr.figures.contents import figures_of
from adamqlr.report.curves import METRICS, curves_of
from adamqlr.report.exhibits import emphasized
from adamqlr.results.clocks import with_evaluation
from adamqlr.results.statistics import median_over_seeds
from adamqlr.results.study import Study, by_dataset
from adamqlr.results.study_file import open_study
from adamqlr.stages.report import write_report
from adamqlr.study.config import load_config


def test_it_begins_with_the_verdicts_and_ends_with_the_commands(study_folder: Path) -> None:
    text = (study_folder / "index.html").read_text()
    sections = ("verdicts", "claims", "run", "explorer", "suite-epochs", "suite-runtime_train", "remake")
    places = [text.index(f'id="{name}"') for name in sections]
    assert places == sorted(places)
    command = "snakemake --configfile results/small/config.yaml --force results/small/figures/epochs/loss.pdf"
    assert text.index(command) > places[-1]
    config = load_config(study_folder / "config.yaml")
    for exhibit in figures_of(config, "epochs", {}).values():
        assert exhibit.title in text
        assert str(emphasized(exhibit.caption)) in text


def test_equal_studies_give_equal_pages(study_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    shutil.copytree(study_folder, folder)
    write_report(folder, None, folder / "index.html")
    assert (folder / "index.html").read_bytes() == (study_folder / "index.html").read_bytes()


def test_what_is_missing_is_named(study_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    shutil.copytree(study_folder, folder)
    (folder / "figures/epochs/loss.png").unlink()
    with pytest.raises(UserError, match=r"figures/epochs/loss\.png: no such file"):
        write_report(folder, None, folder / "page.html")
    assert not (folder / "page.html").exists()
    with pytest.raises(UserError, match=r"study\.nc: no folder"):
        write_report(folder / "study.nc", None, folder / "page.html")


def test_medians_are_those_of_the_figures(study_folder: Path) -> None:
    config = load_config(study_folder / "config.yaml")
    with open_study(study_folder, "epochs", config=config) as tree:
        study = Study(tree, config)
        pairs = by_dataset(study.pairs("epochs"))["digits"]
        curves = curves_of(pairs, study.resampling, 10**6)
        for pair in pairs:
            medians = curves["optimizers"][pair.optimizer]["medians"]
            of_axes = {
                "time": pair.cube["value"],
                "step": pair.cube["value_by_step"].isel(step=slice(1, None)),
                "evaluation": with_evaluation(pair.cube)["value"],
            }
            for axis, values in of_axes.items():
                summary = median_over_seeds(values.sel(metric="test_loss"), study.resampling)
                for kept, name in zip(medians[axis]["values"]["test_loss"], ("median", "lower", "upper"), strict=True):
                    finite = [float("inf") if value == "∞" else value for value in kept]
                    np.testing.assert_allclose(finite, summary[name], rtol=1e-3)


def test_the_larger_the_study_the_fewer_its_points(study_folder: Path) -> None:
    config = load_config(study_folder / "config.yaml")
    with open_study(study_folder, "epochs", config=config) as tree:
        study = Study(tree, config)
        pairs = by_dataset(study.pairs("epochs"))["digits"]
        few, many = (curves_of(pairs, study.resampling, numbers) for numbers in (10, 10**6))
    assert len(json.dumps(few)) < 0.6 * len(json.dumps(many))
    for optimizer in few["optimizers"]:
        ends = [curves["optimizers"][optimizer]["medians"]["time"]["x"] for curves in (few, many)]
        assert (ends[0][0], ends[0][-1]) == (ends[1][0], ends[1][-1]), "a course is whole, however thin"
    assert set(few["heights"]) <= set(METRICS)
