"""The recipes run as they stand."""

import os
import re
import socket
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "recipes.md"
RECIPES = dict(
    re.findall(r"^## (.+?)$.*?```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
)
SEVERAL = "Several processes"
OURS = {"torch", "adamqlr"}


@pytest.fixture(autouse=True)
def _a_process_of_its_own() -> None:
    # accelerate keeps the first precision that a process asks for; Transformers' trainer asks as well.
    if find_spec("accelerate"):
        import_module("accelerate.state").AcceleratorState._reset_state(reset_partial_state=True)


def run(recipe: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    for package in re.findall(r"^(?:import|from) (\w+)", RECIPES[recipe], re.MULTILINE):
        if package not in OURS:
            pytest.importorskip(package)
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {"__name__": "recipe"}
    exec(compile(RECIPES[recipe], recipe, "exec"), names)
    return names


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name != SEVERAL])
def test_a_recipe_runs(recipe: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = run(recipe, monkeypatch, tmp_path)
    if recipe == "Lightning":
        assert names["trainer"].global_step == 7
        assert sorted(path.name for path in tmp_path.rglob("*.ckpt")) == ["epoch=0-step=3.ckpt", "epoch=1-step=6.ckpt"]
        (optimizer,) = names["trainer"].optimizers
        assert float(optimizer.param_groups[0]["step"]) == 7
    elif recipe == "Hugging Face's Trainer":
        assert names["result"].global_step == 5
        assert float(names["trainer"].optimizer.optimizer.param_groups[0]["step"]) == 5
    elif recipe == "Steps that are not finite":
        assert not names["info"].taken
    elif recipe == "Saving, and going on":
        assert (names["again"].loss, names["again"].lr) == (names["ahead"].loss, names["ahead"].lr)
    elif recipe == "accelerate":
        assert (tmp_path / "checkpoint" / "optimizer.bin").exists()


def test_every_block_is_one_of_a_recipe() -> None:
    assert PAGE.read_text(encoding="utf-8").count("```python") == len(RECIPES)


def test_the_recipe_for_several_processes_runs_in_two(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", RECIPES[SEVERAL]],
            env={**shared, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in running]
    assert not any(process.returncode for process in running), outputs
    assert outputs[0][0] == outputs[1][0] != ""
