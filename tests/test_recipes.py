"""The recipes run as they stand."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from adamqlr import AdamQLR

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


def check_lightning(names: dict[str, Any], folder: Path) -> None:
    assert names["trainer"].global_step == 7
    assert sorted(path.name for path in folder.rglob("*.ckpt")) == ["epoch=0-step=3.ckpt", "epoch=1-step=6.ckpt"]
    (optimizer,) = names["trainer"].optimizers
    assert float(optimizer.param_groups[0]["step"]) == 7


def check_trainer(names: dict[str, Any], folder: Path) -> None:
    assert names["result"].global_step == 5
    assert float(names["trainer"].optimizer.optimizer.param_groups[0]["step"]) == 5


def check_refused_step(names: dict[str, Any], folder: Path) -> None:
    assert not names["info"].taken


def check_resumption(names: dict[str, Any], folder: Path) -> None:
    assert (names["again"].loss, names["again"].lr) == (names["ahead"].loss, names["ahead"].lr)


def check_checkpoint(names: dict[str, Any], folder: Path) -> None:
    """What was saved is loaded, and goes on to the same numbers."""
    optimizer, batch = names["optimizer"].optimizer, (names["inputs"], names["targets"])
    ahead = optimizer.step(*batch)
    names["accelerator"].load_state(folder / "checkpoint")
    again = optimizer.step(*batch)
    assert (again.loss, again.lr) == (ahead.loss, ahead.lr)


# What a recipe promises, beyond steps to finite losses.
CHECKS: dict[str, Callable[[dict[str, Any], Path], None]] = {
    "Lightning": check_lightning,
    "Hugging Face's Trainer": check_trainer,
    "Steps that are not finite": check_refused_step,
    "Saving, and going on": check_resumption,
    "accelerate": check_checkpoint,
}


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name != SEVERAL])
def test_a_recipe_runs(recipe: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = run(recipe, monkeypatch, tmp_path)
    if recipe in CHECKS:
        CHECKS[recipe](names, tmp_path)
    elif "info" in names:
        assert torch.isfinite(names["info"].loss)


def test_saving_by_safetensors_is_as_the_page_says(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    optimizer, batch = AdamQLR(model, "half_mse"), (torch.randn(5, 3), torch.randn(5, 2))
    optimizer.step(*batch)

    def assert_saved(content: bytes) -> None:
        torch.testing.assert_close(safetensors.load(content), dict(model.state_dict()), rtol=0, atol=0)

    with pytest.raises(RuntimeError, match="find names to remove"):
        safetensors.save_model(model, tmp_path / "model.safetensors")
    assert_saved(safetensors.save(model.state_dict()))
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    safetensors.save_model(model, tmp_path / "model.safetensors")
    assert_saved((tmp_path / "model.safetensors").read_bytes())
    before = model.state_dict()["0.weight"].clone()
    assert torch.isfinite(optimizer.step(*batch).loss)
    assert not torch.equal(model.state_dict()["0.weight"], before)


def test_every_block_is_one_of_a_recipe() -> None:
    assert PAGE.read_text(encoding="utf-8").count("```python") == len(RECIPES)
    assert CHECKS.keys() | {SEVERAL} <= RECIPES.keys(), "a heading that is renamed takes its check along"


def test_the_recipe_for_several_processes_runs_in_two() -> None:
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
