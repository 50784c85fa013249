"""The Python of the README and the tutorial runs as it stands."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from adamqlr.stages.aggregate import aggregate
from adamqlr.stages.select import select
from adamqlr.stages.train import train
from adamqlr.stages.tune import tune
from adamqlr.study.case import Case
from adamqlr.study.config import load_config

ROOT = Path(__file__).resolve().parents[1]


def python_blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, config_file: Callable[..., Path]) -> Path:
    """The folder of results that pages read, with two small studies."""
    monkeypatch.chdir(tmp_path)
    for name in ("quickstart", "miniature"):
        config = load_config(config_file(name=name))
        parts = []
        for optimizer in ("adam_untuned", "adamqlr_untuned"):
            parts.append(tmp_path / f"{optimizer}.nc")
            train(Case(config, "epochs", "digits", optimizer), [0, 1], {}, tmp_path / "runs.nc")
            aggregate([tmp_path / "runs.nc"], parts[-1], 20)
        tune(Case(config, "epochs", "digits", "adamqlr"), (0, 1), tmp_path / "shards" / "0.nc")
        select([tmp_path / "shards" / "0.nc"], tmp_path / "trials.nc", tmp_path / "best.yaml")
        aggregate([*parts, tmp_path / "trials.nc"], tmp_path / "results" / name / "study.nc", 20)
    return tmp_path / "results"


def test_the_readmes_python_runs(results: Path) -> None:
    blocks = python_blocks("README.md")
    assert len(blocks) == 4
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_the_tutorial_runs(results: Path) -> None:
    names: dict[str, object] = {}
    for block in python_blocks("docs/tutorial.md"):
        exec(compile(block, "tutorial.md", "exec"), names)
    assert (results.parent / "learning_rates.png").stat().st_size > 10_000
    assert set(names["seconds"]) == {"adam_untuned", "adamqlr_untuned"}
    assert names["both"]["quickstart"].equals(names["both"]["miniature"]), "the same seeds, the same numbers"
    assert len(names["table"]) == 4


def test_every_file_that_is_linked_exists() -> None:
    for page in (
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        ROOT / "adamqlr" / "optim" / "README.md",
        ROOT / "docs" / "recipes.md",
        ROOT / "docs" / "tutorial.md",
        ROOT / "results" / "README.md",
        ROOT / "profiles" / "README.md",
        ROOT / "workflow" / "plugins" / "README.md",
    ):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert target.startswith("http") or (page.parent / target).exists(), json.dumps(target)
