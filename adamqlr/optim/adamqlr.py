"""AdamQLR: Adam's direction with K-FAC's learning-rate selection and damping."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from adamqlr.optim.damping import DampingRule
from adamqlr.optim.dispatch import network_of
from adamqlr.optim.flat import FlatParameters
from adamqlr.optim.losses import Loss, resolve_loss
from adamqlr.optim.minibatch import check_not_empty
from adamqlr.optim.network import Curvature, LocalModel
from adamqlr.optim.options import MemberTensors, member_option, members_of, require, require_each
from adamqlr.optim.watched import WatchedOptimizer

# What may differ between networks side by side, and its range; ``lr_clipping`` may also be None.
_MEMBER_RANGES: dict[str, tuple[str, Callable[[float], bool]]] = {
    "damping": ("at least 0", lambda value: value >= 0),
    "damping_decrease": ("in (0, 1]", lambda value: 0 < value <= 1),
    "damping_increase": ("at least 1", lambda value: value >= 1),
    "lr_clipping": ("positive or None", lambda value: value > 0),
    "lr_rescaling": ("positive", lambda value: value > 0),
}


class AdamQLRInfo(NamedTuple):
    """What one step found, as 0-d tensors on the parameters' device.

    Attributes:
        loss: L(θ; B) before the step.
        lr: α, the learning rate taken.
        curvature: c = dᵀ (C + λ I) d, with the damping from before the step.
        grad_dot_direction: gᵀd.
        damping: λ after the step.
        rho: ρ = true_change / model_change; NaN where both vanish.
        model_change: M(θ − α d) − M(θ).
        true_change: L(θ − α d; B) − L(θ; B).
    """

    loss: Tensor
    lr: Tensor
    curvature: Tensor
    grad_dot_direction: Tensor
    damping: Tensor
    rho: Tensor
    model_change: Tensor
    true_change: Tensor


class AdamQLR(WatchedOptimizer):
    """Adam's update direction, with learning rate and damping from a quadratic model of the loss.

    Every step minimizes M(θ − α d) over α on the minibatch, where d = m̂ / (√v̂ + ε) is Adam's direction and M has the
    curvature C + λ I, and adapts λ by Levenberg–Marquardt (Clarke & Hernández-Lobato, ICML 2024, algorithm 1)::

        optimizer = AdamQLR(model, "cross_entropy")
        for inputs, targets in batches:
            info = optimizer.step(inputs, targets)

    The step runs the forward and backward passes itself. It never waits for the device. The model's buffers move once
    a step, as in an ordinary forward pass.

    Networks side by side (:class:`adamqlr.optim.perceptron.PerceptronPack`) may each have their own ``damping``,
    ``damping_decrease``, ``damping_increase``, ``lr_clipping`` and ``lr_rescaling``, of shape (members,).

    Args:
        model: Any module whose output is one tensor. Frozen parameters stay as they are.
        loss: ``"cross_entropy"``, ``"half_mse"``, the matching ``torch.nn`` module, or an object with the methods of
            :class:`adamqlr.optim.losses.Loss`.
        betas: Adam's decay rates β₁, β₂.
        eps: Adam's ε.
        damping: Initial damping λ₀; 0 with ``adapt_damping=False`` for none.
        damping_decrease: ω_dec, multiplies λ where ρ > 3/4.
        damping_increase: ω_inc, multiplies λ where ρ < 1/4.
        min_damping: Adapted damping never falls below.
        adapt_damping: Whether λ follows ρ.
        curvature: ``"fisher"`` or ``"hessian"``, the matrix C.
        lr_clipping: α_max; α is limited to [−α_max, α_max].
        lr_rescaling: Multiplies α after clipping.
        weight_decay: Decoupled: θ ← θ − α d − weight_decay · θ.

    Raises:
        ValueError: An argument is out of its range, or the parameters cannot be trained together.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: str | nn.Module | Loss,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        damping: float | Sequence[float] | Tensor = 1e-3,
        damping_decrease: float | Sequence[float] | Tensor = 0.5,
        damping_increase: float | Sequence[float] | Tensor = 2.0,
        min_damping: float = 1e-8,
        adapt_damping: bool = True,
        curvature: Curvature = "fisher",
        lr_clipping: float | Sequence[float | None] | Tensor | None = None,
        lr_rescaling: float | Sequence[float] | Tensor = 1.0,
        weight_decay: float = 0.0,
    ) -> None:
        options: dict[str, Any] = {
            "betas": betas,
            "eps": eps,
            "damping": damping,
            "damping_decrease": damping_decrease,
            "damping_increase": damping_increase,
            "min_damping": min_damping,
            "adapt_damping": adapt_damping,
            "curvature": curvature,
            "lr_clipping": lr_clipping,
            "lr_rescaling": lr_rescaling,
            "weight_decay": weight_decay,
        }
        options = _checked(options, members_of(model))
        initial_damping = options.pop("damping")
        self.model = model
        self.loss = resolve_loss(loss)
        self._flat = FlatParameters(model)
        super().__init__(self._flat.parameters, options)
        self._moment, self._second_moment = self._flat.zeros(), self._flat.zeros()
        self._network = network_of(model, self.loss, self._flat)
        self._descent = self._flat.zeros()
        self._descent_views = self._flat.views(self._descent)
        self._step = torch.zeros((), dtype=torch.float32, device=self._flat.buffer.device)
        self._damping = self._flat.scalar(initial_damping)
        self._operands = MemberTensors(self._damping)
        self._tiny = self._flat.buffer.new_tensor(torch.finfo(self._flat.buffer.dtype).tiny)
        self._rule_options: tuple[Any, ...] = ()
        self._publish_state()

    @property
    def damping(self) -> Tensor:
        """The current damping λ, a 0-d tensor."""
        return self._damping.clone()

    def _take_step(self, inputs: Tensor, targets: Tensor) -> AdamQLRInfo:
        check_not_empty(inputs)
        self._flat.check_bound()
        local = self._network.linearize(inputs, targets, self.param_groups[0]["curvature"])
        self._update_descent()
        return self._finish(local, local.quadratic_form(self._descent_views))

    def _update_descent(self) -> None:
        """Update Adam's moments and the descent direction −d = −m̂ / (√v̂ + ε)."""
        group = self.param_groups[0]
        beta1, beta2 = group["betas"]
        # One fused Adam step of size 1 from the origin lands on −d.
        self._descent.zero_()
        self._step.add_(1)
        torch._fused_adam_(
            [self._descent],
            [self._network.gradient.buffer],
            [self._moment],
            [self._second_moment],
            [],
            [self._step],
            lr=1.0,
            beta1=beta1,
            beta2=beta2,
            weight_decay=0.0,
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )

    def _finish(self, local: LocalModel, undamped: Tensor) -> AdamQLRInfo:
        """Choose α, move the parameters, measure ρ and adapt λ."""
        group = self.param_groups[0]
        theta, descent = self._flat.buffer, self._descent
        negative_slope = torch.linalg.vecdot(self._network.gradient.buffer, descent)
        slope = -negative_slope
        # The smallest number makes no difference but to a vanished gradient: 0/0 must not undo what was learnt.
        curvature = torch.addcmul(undamped + self._tiny, self._damping, torch.linalg.vecdot(descent, descent))
        lr = slope / curvature
        if group["lr_clipping"] is not None:
            limit = self._operands(group["lr_clipping"])
            lr = lr.clamp(-limit, limit)
        if group["lr_rescaling"] != 1:
            lr = lr * self._operands(group["lr_rescaling"])
        before = theta.clone() if group["weight_decay"] else theta
        theta.addcmul_(descent, lr.unsqueeze(-1) if self._flat.members else lr)
        true_change = local.loss_after(lr) - local.loss
        if group["weight_decay"]:
            theta.sub_(before, alpha=group["weight_decay"])
        model_change = lr * torch.addcmul(negative_slope, lr, curvature, value=0.5)
        rho = true_change / model_change
        damping = self._rule_of(group)(self._damping, rho) if group["adapt_damping"] else self._damping.clone()
        self._damping.copy_(damping)
        return AdamQLRInfo(local.loss, lr, curvature, slope, damping, rho, model_change, true_change)

    def _rule_of(self, group: dict[str, Any]) -> DampingRule:
        """Return the damping rule, made anew where its options have changed."""
        options = (group["damping_decrease"], group["damping_increase"], group["min_damping"])
        if options != self._rule_options:
            self._rule, self._rule_options = DampingRule(*options, like=self._tiny), options
        return self._rule

    def _publish_state(self) -> None:
        """Show the flat state as PyTorch's usual per-parameter state, so that ``state_dict`` needs nothing special."""
        moments = zip(
            self._flat.parameters,
            self._flat.views(self._moment),
            self._flat.views(self._second_moment),
            strict=True,
        )
        for parameter, moment, second_moment in moments:
            self.state[parameter] = {"exp_avg": moment, "exp_avg_sq": second_moment}
        self.param_groups[0].update(step=self._step, damping=self._damping)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state that ``state_dict`` returned; the run then continues to the same numbers."""
        super().load_state_dict(state_dict)
        states = [self.state[parameter] for parameter in self._flat.parameters]
        self._flat.gather([state["exp_avg"] for state in states], out=self._moment)
        self._flat.gather([state["exp_avg_sq"] for state in states], out=self._second_moment)
        self._step.copy_(self.param_groups[0]["step"])
        self._damping.copy_(self.param_groups[0]["damping"])
        self._publish_state()


def _checked(options: dict[str, Any], members: Sequence[int]) -> dict[str, Any]:
    """Return the options, those that may differ between networks side by side in one form, all in their ranges."""
    if isinstance(options["lr_clipping"], Sequence):
        # The infinite limit is none.
        limits = [math.inf if limit is None else limit for limit in options["lr_clipping"]]
        options = {**options, "lr_clipping": limits}
    options = options | {name: member_option(name, options[name], members) for name in _MEMBER_RANGES}
    for name, (wanted, holds) in _MEMBER_RANGES.items():
        if options[name] is not None:
            require_each(holds, name, wanted, options[name])
    require(all(0 <= beta < 1 for beta in options["betas"]), "betas", "in [0, 1)", options["betas"])
    for name in ("eps", "min_damping", "weight_decay"):
        require(options[name] >= 0, name, "at least 0", options[name])
    require(options["curvature"] in ("fisher", "hessian"), "curvature", "'fisher' or 'hessian'", options["curvature"])
    return options
