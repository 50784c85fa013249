"""Habits from other optimizers' training loops: what is done to gradients, state, losses and memory between steps."""

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from adamqlr import KFAC, QLR, AdamQLR
from adamqlr.optim.passes import replay

ACTIVATIONS = [nn.Tanh, nn.ReLU]
OPTIMIZERS: dict[str, Callable[[nn.Module], QLR]] = {
    "QLR": lambda model: QLR(model, "half_mse", "gradient"),
    "AdamQLR": lambda model: AdamQLR(model, "half_mse"),
    "KFAC": lambda model: KFAC(model, "half_mse"),
    "microbatch": lambda model: AdamQLR(model, "half_mse", microbatch=20),
    "wrapped": lambda model: QLR(model, "half_mse", torch.optim.NAdam(model.parameters())),
}


def task(activation: type[nn.Module] = nn.Tanh) -> tuple[nn.Sequential, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), activation(), nn.Linear(5, 1))
    return model, torch.randn(50, 6), torch.randn(50, 1)


def trajectory(optimizer: QLR, inputs: Tensor, targets: Tensor, between: Callable[[int], Any] = abs) -> list[float]:
    losses = []
    for step in range(8):
        torch.manual_seed(step)
        losses.append(float(optimizer.step(inputs, targets).loss))
        between(step)
    return losses


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_gradients_that_are_given_other_data_are_read_nowhere(name: str, activation: type[nn.Module]) -> None:
    model, inputs, targets = task(activation)
    expected = trajectory(OPTIMIZERS[name](model), inputs, targets)
    model, inputs, targets = task(activation)
    optimizer = OPTIMIZERS[name](model)

    def clip(step: int) -> None:
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.grad.data = parameter.grad.data.clamp(-1e-3, 1e-3)

    assert trajectory(optimizer, inputs, targets, clip) == expected
    before = copy.deepcopy(model)
    functional.mse_loss(before(inputs), targets).mul(0.5).backward()
    optimizer.step(inputs, targets)
    for parameter, expected_one in zip(model.parameters(), before.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, expected_one.grad)


class Centralized(torch.optim.SGD):
    """Replaces the gradients' data in its step, as gradient centralization does."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.dim() > 1:
                    parameter.grad.data = parameter.grad.data - parameter.grad.data.mean(dim=1, keepdim=True)
        return super().step(closure)


def test_a_wrapped_optimizer_may_give_gradients_other_data() -> None:
    model, inputs, targets = task()
    optimizer = QLR(model, "half_mse", Centralized(model.parameters(), lr=1e-3))
    losses = trajectory(optimizer, inputs, targets)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.85 * losses[0]


def test_a_penalty_that_is_added_later_is_refused() -> None:
    model, inputs, targets = task()
    strength, weight = 0.0, next(model.parameters())

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        error = (outputs - targets).square().mean()
        return error + strength * weight.square().sum() if strength else error

    optimizer = AdamQLR(model, loss)
    optimizer.step(inputs, targets)
    strength = 1.0
    with pytest.raises(ValueError, match="depends on trained parameters otherwise than by the outputs"):
        optimizer.step(inputs, targets)


def test_a_loss_that_depends_on_no_outputs_is_named() -> None:
    model, inputs, targets = task()
    with pytest.raises(ValueError, match="the loss does not depend on the model's outputs: do not detach them"):
        AdamQLR(model, lambda outputs, targets: (outputs.detach() - targets).square().mean()).step(inputs, targets)


@pytest.mark.parametrize("name", ["AdamQLR", "KFAC"])
def test_state_that_was_kept_elsewhere_counts_when_it_is_back(name: str) -> None:
    model, inputs, targets = task()
    expected = trajectory(OPTIMIZERS[name](model), inputs, targets)
    model, inputs, targets = task()
    optimizer = OPTIMIZERS[name](model)

    def offload(step: int) -> None:
        for state in optimizer.state.values():
            for key, value in state.items():
                state[key] = value.clone()

    assert trajectory(optimizer, inputs, targets, offload) == expected
    # What is saved is what is in use.
    state = optimizer.state_dict()
    resumed_model, *_ = task()
    resumed_model.load_state_dict(model.state_dict())
    resumed = OPTIMIZERS[name](resumed_model)
    resumed.load_state_dict(state)
    assert trajectory(resumed, inputs, targets) == trajectory(optimizer, inputs, targets)


def test_moments_that_are_reset_are_reset() -> None:
    found = []
    for reset in (lambda value: value, torch.zeros_like, lambda value: value.zero_()):
        model, inputs, targets = task()
        optimizer = AdamQLR(model, "half_mse")
        trajectory(optimizer, inputs, targets)
        for state in optimizer.state.values():
            for key, value in state.items():
                state[key] = reset(value)
        found.append(float(optimizer.step(inputs, targets).lr))
    assert found[0] != found[1] == found[2]


def test_state_of_a_single_parameter_cannot_be_removed() -> None:
    model, inputs, targets = task()
    optimizer = AdamQLR(model, "half_mse")
    optimizer.step(inputs, targets)
    del optimizer.state[model[2].bias]
    with pytest.raises(ValueError, match=r"2\.bias: the optimizer's state was emptied"):
        optimizer.step(inputs, targets)


@pytest.mark.parametrize(
    ("function", "module"),
    [
        (functional.cross_entropy, nn.CrossEntropyLoss()),
        (functools.partial(functional.cross_entropy, ignore_index=2), nn.CrossEntropyLoss(ignore_index=2)),
        (functools.partial(functional.cross_entropy, reduction="sum"), nn.CrossEntropyLoss(reduction="sum")),
    ],
)
@pytest.mark.parametrize("microbatch", [None, 15])
def test_functions_of_pytorchs_count_as_their_modules_do(
    function: Any, module: nn.Module, microbatch: int | None
) -> None:
    torch.manual_seed(0)
    inputs, targets = torch.randn(40, 4, dtype=torch.float64), torch.randint(3, (40,))
    targets[:15] = -100 if getattr(module, "ignore_index", 0) == -100 else 2
    infos = []
    for loss, pieces in ((function, microbatch), (module, None)):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
        infos.append(AdamQLR(model, loss, microbatch=pieces).step(inputs, targets))
    for name in ("loss", "lr", "rho"):
        torch.testing.assert_close(getattr(infos[0], name), getattr(infos[1], name), msg=name)


def test_a_partial_function_of_ones_own_may_be_a_sum() -> None:
    def squares(outputs: Tensor, targets: Tensor, reduction: str) -> Tensor:
        return functional.mse_loss(outputs, targets, reduction=reduction) + 0.1 * functional.huber_loss(
            outputs, targets, reduction=reduction
        )

    losses = []
    for microbatch in (None, 20):
        model, inputs, targets = task()
        optimizer = AdamQLR(model, functools.partial(squares, reduction="sum"), microbatch=microbatch)
        losses.append(float(optimizer.step(inputs, targets).loss))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


class Trainer:
    """Holds what its methods compute with."""

    def __init__(self, critic: nn.Module) -> None:
        self.critics = [critic]

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.mse_loss(self.critics[0](outputs), targets)


def of_argument(critic: nn.Module, outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.mse_loss(critic(outputs), targets)


def judging_by(critic: nn.Module) -> Callable[..., Callable[[Tensor, Tensor], Tensor]]:
    def decorate(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        @functools.wraps(loss)
        def judge(outputs: Tensor, targets: Tensor) -> Tensor:
            return loss(critic(outputs), targets)

        return judge

    return decorate


def by_attribute(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.mse_loss(by_attribute.critic(outputs), targets)  # type: ignore[attr-defined]


@pytest.mark.parametrize("way", ["closure", "helper", "partial", "method", "decorator", "attribute", "forward"])
def test_modules_that_a_loss_reaches_move_their_buffers_once_a_step(way: str) -> None:
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 4))
    critic = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 1)).requires_grad_(False)

    def judged(outputs: Tensor) -> Tensor:
        found: Tensor = critic(outputs)
        return found

    losses: dict[str, Any] = {
        "closure": lambda outputs, targets: functional.mse_loss(critic(outputs), targets),
        "helper": lambda outputs, targets: functional.mse_loss(judged(outputs), targets),
        "partial": functools.partial(of_argument, critic),
        "method": Trainer(critic).loss,
        "decorator": judging_by(critic)(lambda outputs, targets: (outputs - targets).square().mean()),
        "attribute": by_attribute,
        "forward": "half_mse",
    }
    by_attribute.critic = critic  # type: ignore[attr-defined]
    forward = (lambda model, inputs: critic(model(inputs))) if way == "forward" else None
    optimizer = AdamQLR(generator, losses[way], forward=forward)
    for _ in range(3):
        optimizer.step(torch.randn(20, 4), torch.randn(20, 1))
    assert int(next(count for name, count in critic.named_buffers() if "num_batches" in name)) == 3


def test_the_fisher_of_a_loss_that_compares_cases_is_that_of_each_case_on_average() -> None:
    """Cox's partial likelihood: its Hessian's rows add up to zero over the cases."""

    def partial_likelihood(outputs: Tensor, targets: Tensor) -> Tensor:
        order = targets.argsort(descending=True)
        risks = outputs.flatten()[order]
        return (risks.logcumsumexp(0) - risks).mean()

    torch.manual_seed(0)
    inputs, times = torch.randn(30, 4, dtype=torch.float64), torch.rand(30, dtype=torch.float64)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    outputs = model(inputs).detach()
    hessian = torch.autograd.functional.hessian(lambda values: partial_likelihood(values, times), outputs).reshape(
        30, 30
    )
    expected = 30 * float(hessian.trace()) / 30
    optimizer = KFAC(model, partial_likelihood, ema_decay=1.0, lr=0.0, momentum=0.0)
    for _ in range(300):
        optimizer.step(inputs, times)
    found = float(optimizer.state[model[2].weight]["output_factor"]) / float(optimizer.param_groups[0]["weight"])
    assert found == pytest.approx(expected, rel=0.1)


def test_views_of_the_parameters_outlive_loading_a_state() -> None:
    model, inputs, targets = task()
    optimizer = AdamQLR(model, "half_mse")
    optimizer.step(inputs, targets)
    shown = next(model.parameters()).detach()
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.step(inputs, targets)
    assert torch.equal(shown, next(model.parameters()))


@pytest.mark.parametrize("kind", ["mps", "xpu"])
def test_generators_of_other_devices_are_set_back(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no such device here: PyTorch's functions are called as its documentation says."""

    class OneGenerator:
        state = torch.zeros(1)

        @classmethod
        def get_rng_state(cls, *device: Any) -> Tensor:
            assert len(device) == (kind != "mps")
            return cls.state.clone()

        @classmethod
        def set_rng_state(cls, state: Tensor, *device: Any) -> None:
            assert len(device) == (kind != "mps")
            cls.state = state

    monkeypatch.setattr(torch, "get_device_module", lambda device: OneGenerator)
    passes = replay.Replay([], torch.device(kind))
    with passes.recorded():
        OneGenerator.state = torch.ones(1)
    with passes.replayed():
        assert float(OneGenerator.state) == 0
    assert float(OneGenerator.state) == 1


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_function_may_take_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    losses = []
    for compiled in (False, True):
        model, inputs, targets = task()
        optimizer = AdamQLR(model, "half_mse")

        def step(inputs: Tensor, targets: Tensor, optimizer: AdamQLR = optimizer) -> Tensor:
            return optimizer.step(inputs, targets).loss

        taken = torch.compile(step, backend="eager") if compiled else step
        losses.append([float(taken(inputs, targets)) for _ in range(3)])
    assert losses[0] == losses[1]


def test_what_cannot_be_done_in_inference_mode_says_where_it_can() -> None:
    model, inputs, targets = task()
    optimizer = AdamQLR(model, "half_mse")
    optimizer.step(inputs, targets)
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"load states outside torch\.inference_mode"):
        optimizer.load_state_dict(optimizer.state_dict())


def test_cached_parametrizations_are_refused() -> None:
    model, inputs, targets = task()
    nn.utils.parametrizations.weight_norm(model[0])
    optimizer = AdamQLR(model, "half_mse")
    optimizer.step(inputs, targets)
    with nn.utils.parametrize.cached(), pytest.raises(RuntimeError, match="weights stay as they were before the step"):
        optimizer.step(inputs, targets)
    optimizer.step(inputs, targets)


class SparseTable(nn.Module):
    """Looks rows up by a function that leaves sparse gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.layer = nn.Parameter(torch.randn(10, 4)), nn.Linear(4, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        found: Tensor = self.layer(functional.embedding(inputs, self.table, sparse=True).mean(1))
        return found


def test_sparse_gradients_are_named() -> None:
    optimizer = AdamQLR(SparseTable(), "half_mse")
    with pytest.raises(ValueError, match="table has a sparse gradient: have it made with sparse=False"):
        optimizer.step(torch.randint(10, (50, 3)), torch.randn(50, 1))


class Descent:
    """The gradient, averaged."""

    def __init__(self) -> None:
        self.defaults: dict[str, Any] = {}

    def bind(self, flat: Any, state: Any) -> None:
        self._mean = state.vector("mean")

    def propose(self, gradient: Any, damping: Tensor, out: Tensor) -> None:
        out.copy_(self._mean.lerp_(gradient.buffer, 0.5))


def test_a_direction_is_one_optimizers() -> None:
    direction = Descent()
    (model, inputs, targets), (other, *_) = task(), task()
    first = QLR(model, "half_mse", direction)
    first.step(inputs, targets)
    second = QLR(other, "half_mse", direction)
    second.step(inputs, targets)
    with pytest.raises(ValueError, match="the direction Descent has been given to another optimizer since: make one"):
        first.step(inputs, targets)
    copy.deepcopy(second).step(inputs, targets)
    second.step(inputs, targets)


def test_a_loss_of_no_module_is_taken() -> None:
    """As one that was evaluated from text."""
    loss = eval("lambda outputs, targets: ((outputs - targets) ** 4).mean()", {})
    assert AdamQLR(nn.Linear(3, 1), loss).step(torch.randn(6, 3), torch.randn(6, 1)).taken


def test_inputs_that_are_given_one_by_one_are_named() -> None:
    model, inputs, targets = task()
    with pytest.raises(TypeError, match=r"got a Tensor for the latter: several inputs are one tuple"):
        AdamQLR(model, "half_mse").step(inputs, inputs, targets)


@dataclass
class Pair:
    first: Tensor
    second: Tensor


def test_a_dataclass_wants_a_forward_of_ones_own() -> None:
    model, inputs, targets = task()
    with pytest.raises(TypeError, match=r"^inputs are a Pair, with which .*: say by forward=… how"):
        AdamQLR(model, "half_mse").step(Pair(inputs, inputs), targets)
    optimizer = AdamQLR(model, "half_mse", forward=lambda model, pair: model(pair.first))
    assert optimizer.step(Pair(inputs, inputs), targets).taken


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.NLLLoss()])
def test_outputs_without_rows_are_named(loss: nn.Module) -> None:
    model, inputs, _ = task()
    with pytest.raises(ValueError, match=r"^outputs must have a row for each case, of shape \(batch, classes"):
        AdamQLR(model, loss, forward=lambda model, x: model(x)[0]).step(inputs, torch.tensor(1))
