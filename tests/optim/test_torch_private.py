"""What the library asks of PyTorch beyond its documentation."""

import subprocess
import sys

import pytest
import torch

from adamqlr.optim.torch_private import without_compiler

WHOLE_LIFE = """
import sys
import torch
from torch import nn
from adamqlr.optim.adam import Adam
from adamqlr.optim.adamqlr import AdamQLR
from adamqlr.optim.baydin import BaydinSGD
from adamqlr.optim.kfac import KFAC
from adamqlr.optim.sgd import SGD

for maker in (Adam, AdamQLR, BaydinSGD, KFAC, SGD):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    options = {"hypergradient_lr": 0.1} if maker is BaydinSGD else {}
    options |= {} if maker in (AdamQLR, KFAC) else {"lr": 0.1}
    optimizer = maker(model, "half_mse", **options)
    for _ in range(2):
        optimizer.zero_grad()
        optimizer.step(torch.randn(5, 3), torch.randn(5, 2))
        optimizer.load_state_dict(optimizer.state_dict())
    assert "torch._dynamo" not in sys.modules, maker
"""


def test_no_optimizer_imports_the_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", WHOLE_LIFE], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["add_param_group", "load_state_dict", "state_dict", "zero_grad"])
def test_pytorch_marks_the_methods_that_the_compiler_leaves_alone(name: str) -> None:
    assert hasattr(getattr(torch.optim.Optimizer, name), "__wrapped__")


def bare() -> str:
    return "bare"


def marked() -> str:
    return "marked"


def test_a_mark_stays_where_the_compiler_is_there_or_nothing_is_beneath_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    assert without_compiler(marked)() == "marked"
    monkeypatch.setattr(marked, "__wrapped__", bare, raising=False)
    assert without_compiler(marked)() == "bare"
    monkeypatch.setitem(sys.modules, "torch._dynamo", sys)
    assert without_compiler(marked)() == "marked"
