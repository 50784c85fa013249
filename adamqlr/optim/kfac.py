"""K-FAC with learning rate, momentum and damping chosen by a quadratic model of the loss."""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from adamqlr.optim.curvature import Linearization, fisher_quadratic_form, preserved_buffers
from adamqlr.optim.damping import DampingRule
from adamqlr.optim.flat import FlatGradient, FlatParameters
from adamqlr.optim.kfac_blocks import curvature_blocks
from adamqlr.optim.layer_record import LayerRecord, recorded_layers
from adamqlr.optim.losses import Loss, resolve_loss
from adamqlr.optim.minibatch import check_not_empty
from adamqlr.optim.options import require
from adamqlr.optim.output_fisher import output_fisher
from adamqlr.optim.quadratic import minimize_quadratic
from adamqlr.optim.watched import WatchedOptimizer

DAMPING_DECAY = 0.9


class KFACInfo(NamedTuple):
    """What one step found, as 0-d tensors on the parameters' device; NaN what it had no need of.

    With learning rate, momentum and damping all fixed, there is no quadratic model: ``curvature``, ``rho``,
    ``model_change`` and ``true_change`` are NaN.

    Attributes:
        loss: L(θ; B) before the step.
        lr: Learning rate −w₁.
        curvature: v₁ᵀ (F + λ I) v₁, with the damping from before the step.
        grad_dot_direction: gᵀv₁.
        damping: λ after the step.
        rho: ρ = true_change / model_change.
        model_change: ½ wᵀQw + wᵀb, without damping.
        true_change: L(θ′; B) − L(θ; B).
        momentum: Momentum w₂.
    """

    loss: Tensor
    lr: Tensor
    curvature: Tensor
    grad_dot_direction: Tensor
    damping: Tensor
    rho: Tensor
    model_change: Tensor
    true_change: Tensor
    momentum: Tensor


class KFAC(WatchedOptimizer):
    """K-FAC (Martens & Grosse 2015; Grosse & Martens 2016) in the form of kfac-jax 0.0.3, without burn-in.

    Every step updates moving averages of the Fisher's Kronecker factors, preconditions the gradient to
    v₁ = A⁻¹ V G⁻¹, and moves by w₁ v₁ + w₂ v₂, where v₂ is the previous update and w minimizes a quadratic model of the
    loss with the exact Fisher F of the minibatch and damping λ; λ follows by Levenberg–Marquardt::

        optimizer = KFAC(model, "cross_entropy")
        for inputs, targets in batches:
            info = optimizer.step(inputs, targets)

    Where kfac-jax and the 2015 paper differ, this follows kfac-jax: the norm in π is the trace, ρ leaves damping out of
    the model's change, λ moves by a factor of 0.9 at every step, and a ρ that is not a number counts as poor.
    With learning rate and momentum fixed but λ adapted, the model's change is that of the exact Fisher (kfac-jax's
    ``always_use_exact_qmodel_for_damping_adjustment``).

    The layers with trainable parameters must be ``Linear``, ``Conv2d`` without groups, or batch, layer or group
    normalization (a diagonal for scale and shift), each called once in a forward pass. The step runs the forward and
    backward passes itself and never waits for the device. A matrix that cannot be inverted ends as NaN parameters.

    Args:
        model: A module whose output is one tensor, its first dimension the batch.
        loss: As for :class:`adamqlr.AdamQLR`; an object needs the methods of
            :class:`adamqlr.optim.output_fisher.OutputFisher` as well.
        damping: Initial damping λ₀.
        lr: Fixed learning rate; None for the quadratic model's.
        momentum: Fixed momentum; None for the quadratic model's.
        adapt_damping: Whether λ follows ρ.
        fisher: ``"sampled"``, one target a case from the model's own predictive distribution, drawn with PyTorch's
            global generator, or ``"exact"``, its expectation where no batch normalization couples the cases: a backward
            pass for each output.
        ema_decay: Decay of the factors' moving averages; 1 for plain means of all steps.
        inverse_period: Steps between inversions.
        min_damping: Adapted damping never falls below.

    Raises:
        ValueError: An argument is out of its range, or a parameter is in a layer that K-FAC cannot train.
        TypeError: The loss has no predictive distribution that is known.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: str | nn.Module | Loss,
        *,
        damping: float = 1.0,
        lr: float | None = None,
        momentum: float | None = None,
        adapt_damping: bool = True,
        fisher: Literal["sampled", "exact"] = "sampled",
        ema_decay: float = 0.95,
        inverse_period: int = 1,
        min_damping: float = 1e-8,
    ) -> None:
        options = {
            "lr": lr,
            "momentum": momentum,
            "adapt_damping": adapt_damping,
            "fisher": fisher,
            "ema_decay": ema_decay,
            "inverse_period": inverse_period,
        }
        _check_options(damping=damping, min_damping=min_damping, **options)
        self.model = model
        self.loss = resolve_loss(loss)
        self._output_fisher = output_fisher(self.loss)
        self._blocks = curvature_blocks(model)
        self._layers = [block.module for block in self._blocks]
        self._flat = FlatParameters(model)
        super().__init__(self._flat.parameters, options)
        theta = self._flat.buffer
        self._gradient = FlatGradient(self._flat)
        # Row 0 is v₁, the preconditioned gradient, row 1 is v₂, the previous update.
        self._directions = theta.new_zeros(2, len(theta))
        self._views = [self._flat.views(direction) for direction in self._directions]
        indices = {parameter: index for index, parameter in enumerate(self._flat.parameters)}
        self._indices = [[indices[parameter] for parameter in block.parameters] for block in self._blocks]
        self._step = 0
        self._weight = theta.new_zeros(())
        self._damping = theta.new_full((), damping)
        self._rule = DampingRule(DAMPING_DECAY, 1 / DAMPING_DECAY, min_damping, self._damping, increase_on_nan=True)
        self._publish_state()

    @property
    def damping(self) -> Tensor:
        """The current damping λ, a 0-d tensor."""
        return self._damping.clone()

    @property
    def capturable(self) -> bool:
        """Whether all steps run the same kernels, so that one can be captured as a CUDA graph and replayed."""
        return self.param_groups[0]["inverse_period"] == 1

    def _take_step(self, inputs: Tensor, targets: Tensor) -> KFACInfo:
        check_not_empty(inputs)
        self._flat.check_bound()
        group = self.param_groups[0]
        with torch.enable_grad():
            with recorded_layers(self.model, self._layers) as record:
                local = Linearization(self.model, self.loss, self._flat.parameters, inputs, targets)
            self._gradient.assign(local.gradients)
            self._update_factors(record, len(inputs))
            self._precondition()
            fixed = group["lr"] is not None and group["momentum"] is not None and not group["adapt_damping"]
            fisher = None if fixed else fisher_quadratic_form(local, self.loss, targets, self._views)
        return self._finish(local.loss, fisher, inputs, targets)

    @torch.no_grad()
    def _update_factors(self, record: LayerRecord, cases: int) -> None:
        """Move the averages: raw ← decay · raw + new, weight ← decay · weight + 1."""
        group = self.param_groups[0]
        self._weight.mul_(group["ema_decay"]).add_(1.0)
        features = []
        for block, inputs in zip(self._blocks, record.inputs, strict=True):
            block.decay(group["ema_decay"])
            features.append(block.add_inputs(inputs, cases))
        outputs = record.output.detach()
        if group["fisher"] == "exact":
            cotangents = self._output_fisher.exact_cotangents(outputs)
        else:
            cotangents = iter([self._output_fisher.sample_cotangent(outputs)])
        for cotangent in cotangents:
            back_propagated = torch.autograd.grad(record.output, record.edges, cotangent, retain_graph=True)
            for block, known, delta in zip(self._blocks, features, back_propagated, strict=True):
                block.add_cotangents(known, delta, cases)

    @torch.no_grad()
    def _precondition(self) -> None:
        """Set v₁ to the damped inverse of the factors times the gradient."""
        invert = self._step % self.param_groups[0]["inverse_period"] == 0
        for block, indices in zip(self._blocks, self._indices, strict=True):
            if invert:
                block.invert(self._weight, self._damping)
            gradients = [self._gradient.views[index] for index in indices]
            preconditioned = block.precondition(gradients, self._weight, self._damping)
            for index, value in zip(indices, preconditioned, strict=True):
                self._views[0][index].copy_(value)

    @torch.no_grad()
    def _finish(self, loss: Tensor, fisher: Tensor | None, inputs: Tensor, targets: Tensor) -> KFACInfo:
        """Choose w, move the parameters, measure ρ and adapt λ."""
        group = self.param_groups[0]
        slopes = self._directions @ self._gradient.buffer
        lr, momentum = (None if c is None else slopes.new_full((), c) for c in (group["lr"], group["momentum"]))
        curvature = rho = model_change = true_change = slopes.new_full((), float("nan"))
        if fisher is None:
            assert lr is not None
            assert momentum is not None
            coefficients = torch.stack([-lr, momentum])
        else:
            squares = self._directions @ self._directions.T
            damped = torch.addcmul(fisher, squares, self._damping)
            curvature = damped[0, 0]
            coefficients = minimize_quadratic(damped, slopes, lr, momentum)
            model_change = torch.dot(coefficients, torch.addmv(slopes, fisher, coefficients, alpha=0.5))
        update = coefficients @ self._directions
        self._directions[1].copy_(update)
        self._flat.buffer.add_(update)
        if fisher is not None:
            with preserved_buffers(self.model):
                true_change = self.loss(self.model(inputs), targets) - loss
            rho = true_change / model_change
            if group["adapt_damping"]:
                self._damping.copy_(self._rule(self._damping, rho))
        self._step += 1
        return KFACInfo(
            loss,
            -coefficients[0],
            curvature,
            slopes[0],
            self._damping.clone(),
            rho,
            model_change,
            true_change,
            coefficients[1],
        )

    def _publish_state(self) -> None:
        """Show the state as PyTorch's usual per-parameter state: a block's is with its first parameter."""
        for parameter, view in zip(self._flat.parameters, self._views[1], strict=True):
            self.state[parameter] = {"update": view}
        for block in self._blocks:
            self.state[block.parameters[0]].update(block.state(with_inverse=self.param_groups[0]["inverse_period"] > 1))
        self.param_groups[0].update(step=self._step, weight=self._weight, damping=self._damping)

    def state_dict(self) -> dict[str, Any]:
        """Return what :meth:`load_state_dict` takes up again."""
        self._publish_state()
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state that ``state_dict`` returned; the run then continues to the same numbers."""
        super().load_state_dict(state_dict)
        group = self.param_groups[0]
        self._flat.gather([self.state[p]["update"] for p in self._flat.parameters], out=self._directions[1])
        for block in self._blocks:
            block.load(self.state[block.parameters[0]])
        self._step = group["step"]
        self._weight.copy_(group["weight"])
        self._damping.copy_(group["damping"])
        self._publish_state()


def _check_options(**options: Any) -> None:
    for name in ("damping", "min_damping"):
        require(options[name] >= 0, name, "at least 0", options[name])
    for name in ("lr", "momentum"):
        require(options[name] is None or options[name] >= 0, name, "at least 0, or None", options[name])
    require(options["fisher"] in ("sampled", "exact"), "fisher", "'sampled' or 'exact'", options["fisher"])
    require(0 <= options["ema_decay"] <= 1, "ema_decay", "in [0, 1]", options["ema_decay"])
    period = options["inverse_period"]
    require(isinstance(period, int) and period >= 1, "inverse_period", "a whole number, 1 or more", period)
