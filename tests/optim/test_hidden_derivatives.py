"""Models and losses whose derivatives are not what autograd makes of them: right numbers, or an error that says so."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import hessian, jvp
from torch.func import functional_call
from torch.nn import functional

from adamqlr import KFAC, QLR, AdamQLR

# Backward passes of one's own.


class InNumPy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.slope = 1 - x.detach().tanh().numpy() ** 2
        return x.tanh()

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        return torch.from_numpy(cotangent.detach().numpy() * ctx.slope)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        return cotangent * (1 - ctx.saved_tensors[0].tanh() ** 2)


class Twice(Once):
    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        return cotangent * (1 - ctx.saved_tensors[0].tanh() ** 2)


class Steps(Once):
    """Flat almost everywhere."""

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        return torch.zeros(cotangent.shape)


class Residual(nn.Module):
    def __init__(self, function: type[torch.autograd.Function]) -> None:
        super().__init__()
        self.function, self.first, self.last = function, nn.Linear(3, 4), nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        features = self.first(inputs)
        outputs: Tensor = self.last(features + self.function.apply(features))
        return outputs


@pytest.mark.parametrize("options", [{}, {"curvature": "hessian"}, {"microbatch": 4}], ids=str)
@pytest.mark.parametrize("function", [InNumPy, Once])
def test_a_backward_pass_that_ends_the_derivatives_is_named(
    function: type[torch.autograd.Function], options: dict[str, Any]
) -> None:
    optimizer = AdamQLR(Residual(function), "cross_entropy", **options)
    # Nor does the second step go wrong where the first has raised.
    for _ in range(2):
        with pytest.raises(RuntimeError, match=f"differentiated twice, and the backward pass of {function.__name__} "):
            optimizer.step(torch.randn(8, 3), torch.randint(3, (8,)))


class Behind(nn.Module):
    """A function of one's own behind layers that begin with zeros."""

    def __init__(self, function: type[torch.autograd.Function], zeros: int) -> None:
        super().__init__()
        self.function, self.first = function, nn.Linear(3, 4)
        self.zeros = [nn.Linear(4, 4) for _ in range(zeros)]
        self.last = nn.Sequential(*self.zeros, nn.Linear(4, 3))
        self.fill(0.0)

    def fill(self, value: float) -> None:
        for layer in self.zeros:
            nn.init.constant_(layer.weight, value)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.last(self.function.apply(self.first(inputs)))
        return outputs


@pytest.mark.parametrize("options", [{}, {"curvature": "hessian"}, {"microbatch": 4}], ids=str)
@pytest.mark.parametrize("zeros", [1, 2, 3])
def test_a_backward_pass_that_ends_the_derivatives_behind_zeros_is_named(zeros: int, options: dict[str, Any]) -> None:
    """As long as it gets zeros, nothing is wrong with the step; then the step raises, and none after it goes on."""
    model = Behind(InNumPy, zeros)
    optimizer, batch = QLR(model, "cross_entropy", "gradient", **options), (torch.randn(8, 3), torch.randint(3, (8,)))
    for _ in range(5):
        optimizer.step(*batch)
        model.fill(0.0)
    model.fill(0.5)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="the backward pass of InNumPy cannot be"):
            optimizer.step(*batch)


@pytest.mark.parametrize("options", [{}, {"microbatch": 4}], ids=str)
def test_a_backward_pass_that_is_first_used_later_is_named(options: dict[str, Any]) -> None:
    model = Residual(Twice)
    optimizer, batch = AdamQLR(model, "cross_entropy", **options), (torch.randn(8, 3), torch.randint(3, (8,)))
    for _ in range(5):
        optimizer.step(*batch)
    model.function = InNumPy
    with pytest.raises(RuntimeError, match="the backward pass of InNumPy cannot be"):  # noqa: PT012
        for _ in range(3):
            optimizer.step(*batch)


def test_a_backward_pass_of_another_mode_is_named_at_once() -> None:
    model = Residual(Twice)
    optimizer, batch = AdamQLR(model, "cross_entropy"), (torch.randn(8, 3), torch.randint(3, (8,)))
    for _ in range(5):
        optimizer.step(*batch)
    model.eval().function = InNumPy
    for _ in range(3):
        with pytest.raises(RuntimeError, match="the backward pass of InNumPy cannot be"):
            optimizer.step(*batch)


@pytest.mark.parametrize("function", [Twice, Steps])
def test_a_backward_pass_that_ends_nothing_is_trained(function: type[torch.autograd.Function]) -> None:
    model = Residual(function)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    info = AdamQLR(model, "cross_entropy").step(torch.randn(8, 3), torch.randint(3, (8,)))
    assert info.rho.isfinite()
    assert not any(torch.equal(*pair) for pair in zip(model.parameters(), before, strict=True))


def test_outputs_without_derivatives_are_refused() -> None:
    class Detached(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input).detach()

    with pytest.raises(ValueError, match="outputs depend on no trained parameter: do not detach them"):
        AdamQLR(Detached(3, 3), "cross_entropy").step(torch.randn(8, 3), torch.randint(3, (8,)))


# Gradients that are changed on their way.


def unchanged(module: nn.Module, *gradients: Any) -> None:
    """See the gradients, as a hook."""


HOOKS: dict[str, Callable[[Any], Any]] = {
    "backward": lambda layer: layer.register_full_backward_hook(unchanged),
    "backward, before": lambda layer: layer.register_full_backward_pre_hook(unchanged),
    "accumulated": lambda layer: layer.weight.register_post_accumulate_grad_hook(lambda parameter: None),
}


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
@pytest.mark.parametrize("hook", HOOKS)
def test_backward_hooks_are_refused_whenever_they_come(hook: str, activation: type[nn.Module]) -> None:
    model = nn.Sequential(nn.Linear(3, 4), activation(), nn.Linear(4, 3))
    batch = torch.randn(8, 3), torch.randint(3, (8,))
    optimizer = AdamQLR(model, "cross_entropy")
    handle = HOOKS[hook](model[2])
    for act in (lambda: optimizer.step(*batch), lambda: AdamQLR(model, "cross_entropy")):
        with pytest.raises(ValueError, match=r"2.* has a .*hook.*, which the curvature knows nothing of: remove it"):
            act()
    handle.remove()
    optimizer.step(*batch)


def test_gradients_scaled_by_frequency_are_refused() -> None:
    model = nn.Sequential(nn.Embedding(5, 3, scale_grad_by_freq=True), nn.Linear(3, 3))
    with pytest.raises(ValueError, match="the module '0' scales its gradients by frequency: make it with"):
        AdamQLR(model, "cross_entropy")


# Models that differentiate within their forward pass.


class Force(nn.Module):
    """The gradient of an energy in the inputs, as for molecules."""

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features, self.weights = features, nn.LazyLinear(1)

    def energy(self, inputs: Tensor) -> Tensor:
        total: Tensor = self.weights(self.features(inputs).flatten(1)).sum()
        return total

    def forward(self, inputs: Tensor) -> Tensor:
        inputs = inputs.detach().requires_grad_()
        with torch.enable_grad():
            (force,) = torch.autograd.grad(self.energy(inputs), inputs, create_graph=True)
        return force.flatten(1)


class ForceByTransform(Force):
    def forward(self, inputs: Tensor) -> Tensor:
        force: Tensor = torch.func.grad(self.energy)(inputs)
        return force.flatten(1)


class Slope(Force):
    """The derivative of the energy along the inputs, in forward mode."""

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(inputs, inputs)
            tangent = torch.autograd.forward_ad.unpack_dual(self.features(dual).flatten(1)).tangent
        result: Tensor = self.weights(tangent)
        return result


def normalized() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, 3, 3, bias=False), nn.Tanh())


def convolved() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Conv2d(4, 3, 3, bias=False), nn.Tanh())


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize(
    ("kind", "features"),
    [(Force, normalized), (ForceByTransform, convolved), (Slope, convolved)],
    ids=["backward", "torch.func", "forward mode"],
)
def test_models_may_differentiate_in_their_forward_pass(
    kind: type[Force], features: Callable[[], nn.Module], training: bool
) -> None:
    model = kind(features()).double()
    inputs = torch.randn(5, 2, 5, 5).double()
    model.energy(inputs)
    model.train(training)
    named = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}

    def outputs(*values: Tensor) -> Tensor:
        own = {name: buffer.clone() for name, buffer in buffers.items()}
        found: Tensor = functional_call(model, {**dict(zip(named, values, strict=True)), **own}, (inputs,))
        return found

    targets = torch.randn_like(outputs(*named.values()))
    parameters = [parameter.requires_grad_() for parameter in named.values()]
    loss = 0.5 * functional.mse_loss(outputs(*parameters), targets)
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    tangent = jvp(outputs, tuple(named.values()), tuple(gradients))[1]
    slope = sum(float((gradient**2).sum()) for gradient in gradients)
    info = QLR(model, "half_mse", "gradient", damping=0.1).step(inputs, targets)
    assert float(info.grad_dot_direction) == pytest.approx(slope, rel=1e-8)
    assert float(info.curvature) == pytest.approx(float(tangent.square().mean()) + 0.1 * slope, rel=1e-8)


def test_a_model_that_differentiates_where_gradients_are_off_is_told() -> None:
    class Careless(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            input = input.detach().requires_grad_()
            return torch.autograd.grad(super().forward(input).tanh().sum(), input, create_graph=True)[0]

    with pytest.raises(RuntimeError, match=r"differentiates in its forward pass, .*within torch.enable_grad\(\)"):
        AdamQLR(Careless(3, 3), "half_mse").step(torch.randn(8, 3), torch.randn(8, 3))


def test_convolutions_may_be_called_by_keyword() -> None:
    class ByKeyword(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            return functional.conv2d(input=input, weight=self.weight, bias=self.bias)

    ends = []
    for kind in (nn.Conv2d, ByKeyword):
        torch.manual_seed(0)
        model = nn.Sequential(kind(2, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4, 3))
        AdamQLR(model, "cross_entropy").step(torch.randn(6, 2, 3, 3), torch.randint(3, (6,)))
        ends.append([parameter.detach() for parameter in model.parameters()])
    torch.testing.assert_close(*ends)


class ComplexConvolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 2, 3, 3, 2))

    def forward(self, inputs: Tensor) -> Tensor:
        found = functional.conv2d(torch.complex(inputs, -inputs), torch.view_as_complex(self.weight), padding=1)
        return torch.view_as_real(found).flatten(1)


def test_complex_convolutions_are_differentiated_beside_real_ones() -> None:
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Tanh(), ComplexConvolution()).double()
    inputs, targets = torch.randn(4, 2, 3, 3).double(), torch.randn(4, 54).double()

    def outputs(*values: Tensor) -> Tensor:
        names = [name for name, _ in model.named_parameters()]
        found: Tensor = functional_call(model, dict(zip(names, values, strict=True)), (inputs,))
        return found

    before = tuple(parameter.detach().clone() for parameter in model.parameters())
    gradients = torch.autograd.grad(0.5 * functional.mse_loss(model(inputs), targets), list(model.parameters()))
    info = QLR(model, "half_mse", "gradient", damping=0.0, adapt_damping=False).step(inputs, targets)
    tangent = jvp(outputs, before, gradients)[1]
    assert float(info.curvature) == pytest.approx(float(tangent.square().mean()), rel=1e-8)


# Losses.


def on_half(outputs: Tensor, targets: Tensor) -> Tensor:
    """A loss that draws which outputs count."""
    return ((outputs - targets).pow(4) * (torch.rand_like(outputs) > 0.5)).mean()


@pytest.mark.parametrize("make", [AdamQLR, KFAC])
def test_a_random_loss_is_drawn_once_a_step(make: Any) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    inputs, targets = torch.randn(8, 3).double(), torch.randn(8, 2).double()
    before = [parameter.detach().clone() for parameter in model.parameters()]

    def outputs(*values: Tensor) -> Tensor:
        names = [name for name, _ in model.named_parameters()]
        found: Tensor = functional_call(model, dict(zip(names, values, strict=True)), (inputs,))
        return found

    start = torch.get_rng_state()
    drawn = (torch.rand(8, 2, dtype=torch.float64) > 0.5).double()
    end = torch.get_rng_state()
    torch.set_rng_state(start)
    info = make(model, on_half, damping=0.0, adapt_damping=False, momentum=0.0).step(inputs, targets)
    if make is AdamQLR:
        assert torch.equal(torch.get_rng_state(), end)
    step = [(now.detach() - then) / -info.lr for now, then in zip(model.parameters(), before, strict=True)]
    value, tangent = jvp(outputs, tuple(before), tuple(step))
    matrix = hessian(lambda o: ((o.view(8, 2) - targets).pow(4) * drawn).mean(), value.flatten())
    assert float(info.curvature) == pytest.approx(float(tangent.flatten() @ matrix @ tangent.flatten()), rel=1e-8)


def test_classes_may_be_bytes() -> None:
    inputs, targets = torch.randn(3, 4), torch.tensor([2, 0, 1])
    infos = []
    for kind in (torch.int64, torch.uint8):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
        infos.append(tuple(AdamQLR(model, nn.CrossEntropyLoss(torch.rand(3))).step(inputs, targets.to(kind))))
    torch.testing.assert_close(*infos)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
@pytest.mark.parametrize("loss", ["half_mse", nn.BCEWithLogitsLoss()])
def test_targets_in_double_precision_are_refused(loss: Any, activation: type[nn.Module]) -> None:
    model = nn.Sequential(nn.Linear(3, 4), activation(), nn.Linear(4, 1))
    with pytest.raises(ValueError, match=r"torch.float32 but targets torch.float64: convert them with targets.float()"):
        AdamQLR(model, loss).step(torch.randn(8, 3), torch.rand(8, 1).double())


def test_losses_that_are_no_tensor_are_refused() -> None:
    def with_parts(outputs: Tensor, targets: Tensor) -> Any:
        return functional.cross_entropy(outputs, targets), {}

    with pytest.raises(ValueError, match="the loss must be a 0-d tensor, got a tuple"):
        AdamQLR(nn.Linear(3, 3), with_parts).step(torch.randn(8, 3), torch.randint(3, (8,)))


@pytest.mark.parametrize("dim", [0, 1])
def test_the_hessian_of_weight_norm_is_refused_as_pytorch_has_it_wrong(dim: int) -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 5), dim=dim), nn.Linear(5, 1))
    inputs, targets = torch.randn(8, 4), torch.randn(8, 1)
    with pytest.raises(RuntimeError, match="second derivatives of weight_norm are wrong: use curvature='fisher'"):
        AdamQLR(model, "half_mse", curvature="hessian").step(inputs, targets)
    optimizer = AdamQLR(model, "half_mse")
    for _ in range(3):
        assert optimizer.step(inputs, targets).lr.isfinite()
    optimizer.param_groups[0]["curvature"] = "hessian"
    with pytest.raises(RuntimeError, match="second derivatives of weight_norm are wrong: use curvature='fisher'"):
        optimizer.step(inputs, targets)


def test_the_hessian_of_a_linear_loss_of_a_linear_network_is_none_at_all() -> None:
    optimizer = AdamQLR(nn.Linear(4, 1), lambda outputs, targets: (outputs * targets).mean(), curvature="hessian")
    assert optimizer.step(torch.randn(8, 4), torch.randn(8, 1)).lr.isfinite()
