"""The README's Python runs as it stands."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from adamqlr.config import load_config
from adamqlr.stages.aggregate import aggregate
from adamqlr.stages.train import train

ROOT = Path(__file__).resolve().parents[1]


def test_python_blocks_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, config_file: Callable[..., Path]) -> None:
    monkeypatch.chdir(tmp_path)
    results = tmp_path / "results" / "quickstart"
    train(load_config(config_file()), "epochs", "digits", "adamqlr_untuned", [0, 1], {}, tmp_path / "runs.nc")
    aggregate([tmp_path / "runs.nc"], tmp_path / "cube.nc", 20)
    aggregate([tmp_path / "cube.nc"], results / "study.nc", 20)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_every_file_that_is_linked_exists() -> None:
    for page in (ROOT / "README.md", ROOT / "results" / "README.md", ROOT / "profiles" / "README.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert target.startswith("http") or (page.parent / target).exists(), json.dumps(target)
