"""What the library asks of PyTorch beyond its documentation."""

import ast
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.utils.checkpoint
from torch.optim import optimizer as torch_optimizer

import adamqlr
from adamqlr import QLR
from adamqlr.optim.torch_private import (
    copy_all,
    fused_adam,
    fused_sgd,
    global_hooks,
    has_comm_hook,
    joins_early_processes,
    reentrant_checkpointing_refused,
    scale_all,
    step_is_watched,
    versions,
    without_compiler,
)

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


# Each function again where PyTorch lacks what it calls: to the same numbers, or by itself on the safe side.


def tensors(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


def lacking(monkeypatch: pytest.MonkeyPatch, how: str, name: str) -> None:
    """Take a function from PyTorch, or its kernel."""

    def no_kernel(*args: object, **kwargs: object) -> None:
        raise NotImplementedError("Could not run it with arguments from this backend")

    if how == "no function":
        monkeypatch.delattr(torch, name)
    else:
        monkeypatch.setattr(torch, name, no_kernel)


LACKS = pytest.mark.parametrize("how", ["no function", "no kernel"])


@LACKS
def test_copies_and_products_one_by_one(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking(monkeypatch, how, "_foreach_copy_")
    lacking(monkeypatch, how, "_foreach_mul_")
    found, out = tensors((3, 2), (), (4,)), tensors((3, 2), (), (4,))
    copy_all(out, [3 * tensor for tensor in found])
    scale_all(out, 0.5)
    scale_all(out, torch.tensor(2.0))
    assert all(torch.equal(one, 3 * other) for one, other in zip(out, found, strict=True))


@LACKS
def test_adams_step_by_plain_operations(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = []
    for lacks in (False, True):
        if lacks:
            lacking(monkeypatch, how, "_fused_adam_")
        theta, *gradients = tensors(*[(20,)] * 4)
        moment, second_moment, step = torch.zeros(20).double(), torch.zeros(20).double(), torch.tensor(0.0)
        for gradient in gradients:
            step += 1
            fused_adam(theta, gradient, moment, second_moment, step, lr=0.1, betas=(0.9, 0.99), eps=1e-8)
        ends.append(torch.stack([theta, moment, second_moment]))
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-12, atol=1e-12)


@LACKS
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgds_step_by_plain_operations(how: str, momentum: float, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = []
    for lacks in (False, True):
        if lacks:
            lacking(monkeypatch, how, "_fused_sgd_")
        theta, *gradients = tensors(*[(20,)] * 4)
        buffer = torch.zeros_like(theta) if momentum else None
        for gradient in gradients:
            fused_sgd(theta, gradient, buffer, lr=0.1, momentum=momentum, weight_decay=0.01)
        ends.append(theta)
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "place", [(torch._C._autograd, "_profiler_enabled"), (torch_optimizer, "_global_optimizer_pre_hooks")]
)
def test_steps_go_through_pytorchs_wrapper_where_watchers_are_unknown(
    place: tuple[object, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1)
    assert not step_is_watched(optimizer)
    monkeypatch.delattr(*place)
    assert step_is_watched(optimizer)


def test_writes_that_cannot_go_unnoticed_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Softplus(), torch.nn.Linear(4, 2))
    optimizer = QLR(model, "half_mse", torch.optim.NAdam(model.parameters()))
    batch = torch.randn(5, 3), torch.randn(5, 2)
    optimizer.step(*batch)
    monkeypatch.delattr(torch.autograd, "_unsafe_preserve_version_counter")
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        optimizer.step(*batch)


def test_checkpointing_needs_no_refusal_where_pytorch_has_none_that_is_reentrant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(torch.utils.checkpoint, "CheckpointFunction")
    with reentrant_checkpointing_refused():
        pass


def test_versions_count_what_is_written_in_place() -> None:
    tensor = torch.zeros(3)
    before = versions([tensor, tensor[1:]])
    tensor.add_(1)
    assert versions([tensor, tensor[1:]]) != before
    with torch.inference_mode():
        assert versions([torch.zeros(3)]) == [0]


@pytest.mark.parametrize("kind", ["forward", "backward"])
def test_hooks_of_all_modules_are_seen_as_they_come_and_go(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = torch.nn.modules.module
    places = global_hooks(kind)  # type: ignore[arg-type]
    full = "full_" if kind == "backward" else ""
    for when in ("", "_pre"):
        assert not any(places)
        handle = getattr(module, f"register_module_{full}{kind}{when}_hook")(lambda *_: None)
        assert any(places)
        handle.remove()
    monkeypatch.delattr(module, f"_global_{kind}_hooks")
    assert not any(global_hooks(kind))  # type: ignore[arg-type]


def test_what_is_no_replica_has_no_messages() -> None:
    module = torch.nn.Linear(2, 1)
    assert not joins_early_processes(module)
    assert not has_comm_hook(module)


def test_each_thread_refuses_reentrant_checkpointing_for_itself() -> None:
    def checkpointed() -> torch.Tensor:
        found: torch.Tensor = torch.utils.checkpoint.checkpoint(
            torch.tanh, torch.zeros(1, requires_grad=True), use_reentrant=True
        )
        return found

    with reentrant_checkpointing_refused(), ThreadPoolExecutor(1) as other:
        other.submit(checkpointed).result().backward()
        with pytest.raises(RuntimeError, match="reentrant checkpointing has no second derivatives"):
            checkpointed()
    checkpointed()


def test_several_threads_train_at_once() -> None:
    def trained(seed: int) -> float:
        generator = torch.Generator().manual_seed(seed)
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
        optimizer = QLR(model, "half_mse", "gradient")
        for parameter in model.parameters():
            parameter.data.normal_(generator=generator)
        batch = torch.ones(5, 3), torch.ones(5, 2)
        return float([optimizer.step(*batch) for _ in range(100)][-1].loss)

    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(trained, range(4)))
    assert together == [trained(seed) for seed in range(4)]


LIBRARY = Path(adamqlr.__file__).parent / "optim"


def private_functions(path: Path) -> set[str]:
    """Return what a module takes from ``torch`` or ``nn`` under a private name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            dotted = ast.unparse(node)
            if re.fullmatch(r"(torch|nn|functional)(\.\w+)*\._[a-z]\w*", dotted):
                found.add(dotted)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("torch"):
            found |= {alias.name for alias in node.names if alias.name.startswith("_")}
    return found


def test_private_functions_stand_in_one_module() -> None:
    found = {str(path.relative_to(LIBRARY)): private_functions(path) for path in LIBRARY.rglob("*.py")}
    assert found.pop("torch_private.py")
    assert {path: names for path, names in found.items() if names} == {}
