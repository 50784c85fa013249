"""Perceptrons' own passes, against PyTorch's differentiation, and packs of them against their members alone."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adamqlr import KFAC, AdamQLR
from adamqlr.errors import UserError
from adamqlr.optim.flat import FlatParameters
from adamqlr.optim.passes import network_of
from adamqlr.optim.passes.differentiated import DifferentiatedNetwork
from adamqlr.optim.passes.linearizations import ForwardPass, HessianLinearization, Linearization
from adamqlr.optim.passes.losses import CrossEntropy, Loss, SquaredError
from adamqlr.optim.passes.perceptron import PerceptronNetwork, PerceptronPack, find_layers
from adamqlr.optim.passes.relu import ReluDerivative
from adamqlr.problems.models import mlp
from adamqlr.study.optimizers import OPTIMIZERS
from adamqlr.training.optimizers import make_optimizer, stack_options

# Inputs wider and narrower than the layer that takes them, and networks of one to three layers.
WIDTHS = {"wide inputs": [7, 4, 3], "narrow inputs": [2, 6, 5, 3], "linear": [4, 3]}
LOSSES: dict[str, Loss] = {"cross_entropy": CrossEntropy(), "half_mse": SquaredError(0.5), "mse": SquaredError(1.0)}
MEMBERS, ROWS, STEPS = 3, 60, 12

HYPERPARAMETERS: dict[str, dict[str, Any]] = {
    "sgd_minimal": {"lr": 0.05},
    "sgd_full": {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3},
    "adam": {"lr": 0.01},
    "adam_untuned": {},
    "adam_eps": {"lr": 0.01, "eps": 1e-3},
    "adamqlr": {"damping": 0.01, "damping_decrease": 0.7, "damping_increase": 1.5, "lr_clipping": 0.1},
    "adamqlr_untuned": {},
    "adamqlr_undamped": {},
    "adamqlr_hessian": {"damping": 0.5, "weight_decay": 1e-3, "lr_rescaling": 0.9},
    "adamqlr_hessian_untuned": {"lr_clipping": 0.1},
    "adamqlr_clipped": {"damping": 0.01, "lr_clipping": 0.05},
    "baydin_sgd": {"lr": 0.05, "hypergradient_lr": 1e-4},
    # Sampled targets would be others than those of the networks alone.
    "kfac": {"damping": 0.1, "fisher": "exact"},
    "kfac_untuned": {"fisher": "exact", "weight_decay": 1e-3},
    "kfac_unadaptive": {"damping": 0.1, "lr": 0.05, "momentum": 0.9, "fisher": "exact"},
}


def minibatch(widths: list[int], loss: str, *members: int) -> tuple[Tensor, Tensor]:
    inputs = torch.randn(*members, ROWS, widths[0], dtype=torch.float64)
    if loss == "cross_entropy":
        return inputs, torch.randint(widths[-1], (*members, ROWS))
    return inputs, torch.randn(*members, ROWS, widths[-1], dtype=torch.float64)


def flattened(model: nn.Module) -> FlatParameters:
    return FlatParameters(list(model.named_parameters()))


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("curvature", ["fisher", "hessian"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("widths", WIDTHS.values(), ids=WIDTHS)
def test_passes_equal_pytorchs_differentiation(widths: list[int], loss: str, curvature: Any, count: int) -> None:
    torch.manual_seed(0)
    model = mlp(widths).double()
    inputs, targets = minibatch(widths, loss)
    reference = copy.deepcopy(model)
    flat = flattened(model)
    network = network_of(model, LOSSES[loss], flat)
    assert isinstance(network, PerceptronNetwork)
    local = network.linearize(inputs, targets, curvature)
    kind = Linearization if curvature == "fisher" else HessianLinearization
    expected = kind(ForwardPass(reference(inputs), LOSSES[loss], list(reference.parameters()), targets))
    torch.testing.assert_close(local.loss, expected.loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(network.gradient.views, list(expected.gradients), rtol=1e-11, atol=1e-14)
    for parameter, view in zip(model.parameters(), network.gradient.views, strict=True):
        assert parameter.grad is not None
        assert parameter.grad.data_ptr() == view.data_ptr()

    directions = [[torch.randn_like(p.detach()) for p in model.parameters()] for _ in range(count)]
    found, wanted = local.curvature(directions), expected.curvature(directions)
    torch.testing.assert_close(found, [[form.detach() for form in row] for row in wanted], rtol=1e-11, atol=1e-14)

    weights = torch.tensor([0.3, -0.2], dtype=torch.float64)[:count]
    for weight, direction in zip(weights, directions, strict=True):
        flat.buffer.addcmul_(flat.gather(direction, flat.zeros()), weight)
    moved = LOSSES[loss](model(inputs), targets).detach()
    torch.testing.assert_close(local.loss_after(list(weights)), moved, rtol=1e-12, atol=0)


@pytest.mark.parametrize("key", HYPERPARAMETERS)
@pytest.mark.parametrize("widths", [WIDTHS["wide inputs"], WIDTHS["narrow inputs"]], ids=["wide", "narrow"])
@pytest.mark.parametrize(("loss", "shared"), [("cross_entropy", False), ("half_mse", False), ("cross_entropy", True)])
def test_a_packs_members_move_as_if_alone(key: str, loss: str, shared: bool, widths: list[int]) -> None:
    torch.manual_seed(1)
    alone = [mlp(widths).double() for _ in range(MEMBERS)]
    pack = PerceptronPack(alone)
    optimizers = [make_optimizer(OPTIMIZERS[key], model, loss, HYPERPARAMETERS[key]) for model in alone]
    packed = make_optimizer(OPTIMIZERS[key], pack, loss, HYPERPARAMETERS[key])
    for step in range(STEPS):
        inputs, targets = minibatch(widths, loss) if shared else minibatch(widths, loss, MEMBERS)
        found = packed.step(inputs, targets)
        for member, optimizer in enumerate(optimizers):
            batch = (inputs, targets) if shared else (inputs[member], targets[member])
            info = optimizer.step(*batch)._asdict()
            for name, value in info.items():
                # ρ is the change of the loss, good to 1e-13, over what the model predicts.
                atol = max(1e-13, 1e-13 / abs(float(info["model_change"]))) if name == "rho" else 1e-13
                torch.testing.assert_close(
                    getattr(found, name)[member], value, rtol=1e-8, atol=atol, equal_nan=True, msg=f"{step} {name}"
                )
    for member, model in enumerate(alone):
        for stacked, parameter in zip(pack.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(stacked[member], parameter, rtol=1e-8, atol=1e-12)


# Options that members differ in, MEMBERS values each; the others are shared.
DIFFERENT: dict[str, dict[str, tuple[float | None, ...]]] = {
    "sgd_minimal": {"lr": (0.05, 0.01, 0.1)},
    "sgd_full": {"lr": (0.05, 0.01, 0.1), "momentum": (0.9, 0.0, 0.5), "weight_decay": (1e-3, 0.0, 1e-2)},
    "adam": {"lr": (0.01, 0.003, 0.03)},
    "adam_untuned": {"eps": (1e-8, 1e-3, 1.0)},
    "adam_eps": {"lr": (0.01, 0.003, 0.03), "eps": (1e-8, 1e-3, 1.0)},
    "adamqlr": {"damping": (0.01, 1.0, 0.0), "damping_decrease": (0.7, 1.0, 0.5), "damping_increase": (1.5, 4.0, 1.0)},
    "adamqlr_untuned": {"lr_clipping": (0.01, None, 0.001), "lr_rescaling": (1.0, 0.5, 2.0)},
    "adamqlr_undamped": {"lr_clipping": (0.1, 0.02, 0.01)},
    "adamqlr_hessian": {"damping": (0.5, 1.0, 2.0)},
    "adamqlr_hessian_untuned": {"damping": (0.5, 1.0, 2.0)},
    "adamqlr_clipped": {"lr_clipping": (0.1, 0.02, 0.01)},
    "baydin_sgd": {"lr": (0.05, 0.01, 0.1), "hypergradient_lr": (1e-4, 0.0, 1e-3)},
    "kfac": {"damping": (0.01, 1.0, 30.0), "lr_clipping": (None, 0.1, 0.5)},
    "kfac_untuned": {"damping": (1e-4, 1.0, 10.0)},
    "kfac_unadaptive": {"damping": (0.1, 1.0, 0.01), "lr": (0.05, 0.0, 0.1), "momentum": (0.9, 0.0, 0.5)},
}


@pytest.mark.parametrize("key", DIFFERENT)
def test_members_with_options_of_their_own_move_as_if_alone(key: str) -> None:
    torch.manual_seed(5)
    widths = WIDTHS["narrow inputs"]
    alone = [mlp(widths).double() for _ in range(MEMBERS)]
    each: list[dict[str, Any]] = [
        {**HYPERPARAMETERS[key], **{name: values[member] for name, values in DIFFERENT[key].items()}}
        for member in range(MEMBERS)
    ]
    pack = PerceptronPack(alone)
    optimizers = [
        make_optimizer(OPTIMIZERS[key], model, "half_mse", one) for model, one in zip(alone, each, strict=True)
    ]
    packed = make_optimizer(OPTIMIZERS[key], pack, "half_mse", stack_options(OPTIMIZERS[key], each))
    for step in range(STEPS):
        inputs, targets = minibatch(widths, "half_mse", MEMBERS)
        if step == STEPS // 2:
            packed = restarted(
                packed, make_optimizer(OPTIMIZERS[key], pack, "half_mse", stack_options(OPTIMIZERS[key], each))
            )
        found = packed.step(inputs, targets)
        for member, optimizer in enumerate(optimizers):
            for name, value in optimizer.step(inputs[member], targets[member])._asdict().items():
                torch.testing.assert_close(
                    getattr(found, name)[member], value, rtol=1e-8, atol=1e-13, equal_nan=True, msg=f"{step} {name}"
                )
    for member, model in enumerate(alone):
        for stacked, parameter in zip(pack.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(stacked[member], parameter, rtol=1e-8, atol=1e-12)


def restarted(optimizer: Any, again: Any) -> Any:
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    return again


@pytest.mark.parametrize("rows", [30, 3_000])
def test_the_derivative_of_relu_is_pytorchs(rows: int) -> None:
    before, tangent = torch.randn(rows, 50, requires_grad=True), torch.randn(rows, 50)
    features = torch.relu(before)
    (expected,) = torch.autograd.grad(features, before, tangent)
    derivative = ReluDerivative(features.detach())
    assert torch.equal(derivative.times(tangent), expected)
    assert torch.equal(derivative.times_(tangent), expected)


def test_options_are_stacked_where_they_differ() -> None:
    each = [{"lr": 0.1, "momentum": 0.9}, {"lr": 0.2, "momentum": 0.9}]
    assert stack_options(OPTIMIZERS["sgd_full"], each) == {"lr": (0.1, 0.2), "momentum": 0.9}
    with pytest.raises(UserError, match="'adamqlr': networks side by side share their weight_decay"):
        stack_options(OPTIMIZERS["adamqlr"], [{"weight_decay": 0.1}, {"weight_decay": 0.2}])


@pytest.mark.parametrize(
    ("key", "options", "culprit"),
    [
        ("sgd_full", {"lr": (0.1, 0.1), "momentum": (0.5, -0.5)}, "momentum of network 1 must be at least 0, got -0.5"),
        ("adam", {"lr": (-0.1, 0.1)}, "lr of network 0 must be at least 0"),
        ("adamqlr", {"damping_decrease": (0.5, 1.5)}, r"damping_decrease of network 1 must be in \(0, 1\], got 1.5"),
        ("adamqlr", {"lr_clipping": (None, 0.0)}, "lr_clipping of network 1 must be positive or None"),
        ("baydin_sgd", {"lr": 0.1, "hypergradient_lr": (0.1, -0.1)}, "hypergradient_lr of network 1"),
        ("adam", {"lr": torch.tensor([0.1, 0.1, 0.1])}, "lr must be one number, or 2 for as many networks"),
    ],
)
def test_bad_options_of_members_are_named(key: str, options: dict[str, Any], culprit: str) -> None:
    pack = PerceptronPack([mlp([4, 3]) for _ in range(2)])
    with pytest.raises(UserError, match=culprit):
        make_optimizer(OPTIMIZERS[key], pack, "half_mse", options)
    with pytest.raises(UserError, match="must be one number, got"):
        make_optimizer(OPTIMIZERS[key], mlp([4, 3]), "half_mse", options)


def test_every_packable_optimizer_is_tested() -> None:
    assert set(HYPERPARAMETERS) == set(DIFFERENT) == {key for key, spec in OPTIMIZERS.items() if spec.packable}


def test_a_member_that_diverges_leaves_the_others_alone() -> None:
    torch.manual_seed(2)
    widths = WIDTHS["wide inputs"]
    models = [mlp(widths).double() for _ in range(2)]
    pack, alone = PerceptronPack(models), make_optimizer(OPTIMIZERS["adamqlr_untuned"], models[1], "half_mse", {})
    packed = make_optimizer(OPTIMIZERS["adamqlr_untuned"], pack, "half_mse", {})
    for _ in range(4):
        inputs, targets = minibatch(widths, "half_mse", 2)
        inputs[0] = float("nan")
        found, wanted = packed.step(inputs, targets), alone.step(inputs[1], targets[1])
        assert found.loss[0].isnan()
        torch.testing.assert_close(found.loss[1], wanted.loss, rtol=1e-9, atol=0)


def test_a_packs_state_round_trips() -> None:
    torch.manual_seed(3)
    pack = PerceptronPack([mlp([4, 3]).double() for _ in range(2)])
    optimizer = AdamQLR(pack, "half_mse")
    batches = [minibatch([4, 3], "half_mse", 2) for _ in range(6)]
    for batch in batches[:3]:
        optimizer.step(*batch)
    resumed = copy.deepcopy(pack)
    again = AdamQLR(resumed, "half_mse")
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for batch in batches[3:]:
        optimizer.step(*batch)
        again.step(*batch)
    torch.testing.assert_close(list(resumed.parameters()), list(pack.parameters()), rtol=0, atol=0)


@pytest.mark.parametrize("optimizer", [AdamQLR, KFAC])
def test_other_losses_take_no_packs(optimizer: Any) -> None:
    pack = PerceptronPack([mlp([4, 3]) for _ in range(2)])
    with pytest.raises(ValueError, match="side by side"):
        optimizer(pack, nn.CrossEntropyLoss(label_smoothing=0.1))


def frozen() -> nn.Module:
    model = mlp([4, 5, 3])
    model[0].bias.requires_grad_(False)
    return model


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    return model


def with_an_extra_parameter() -> nn.Module:
    model = mlp([4, 3])
    model.register_parameter("extra", nn.Parameter(torch.ones(2)))
    return model


@pytest.mark.parametrize(
    "model",
    [
        frozen(),
        tied(),
        with_an_extra_parameter(),
        nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)),
        nn.Sequential(nn.Linear(4, 5, bias=False), nn.ReLU(), nn.Linear(5, 3)),
        nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3), nn.ReLU()),
        nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)),
        nn.Linear(4, 3),
    ],
)
def test_what_is_no_plain_perceptron_is_left_to_pytorch(model: nn.Module) -> None:
    assert find_layers(model) is None
    assert isinstance(network_of(model, CrossEntropy(), flattened(model)), DifferentiatedNetwork)


def test_a_profiler_sees_steps() -> None:
    optimizer = AdamQLR(mlp([4, 3]), "cross_entropy")
    with torch.profiler.profile() as profile:
        optimizer.step(torch.randn(6, 4), torch.randint(3, (6,)))
    assert any("AdamQLR" in event.name for event in profile.events())


def test_probabilities_as_targets_are_left_to_pytorch() -> None:
    torch.manual_seed(4)
    model = mlp([4, 3]).double()
    inputs, targets = torch.randn(6, 4, dtype=torch.float64), torch.rand(6, 3, dtype=torch.float64)
    expected = nn.functional.cross_entropy(model(inputs), targets)
    info = AdamQLR(model, "cross_entropy").step(inputs, targets)
    torch.testing.assert_close(info.loss, expected.detach())


def test_targets_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="outputs of shape"):
        AdamQLR(mlp([4, 1]), "half_mse").step(torch.randn(6, 4), torch.randn(6))
