"""QLR: K-FAC's learning rate, momentum and damping, on any direction."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from copy import deepcopy
from typing import Any, Literal

import torch
from torch import Tensor, nn

from adamqlr.optim.arithmetic import StepArithmetic
from adamqlr.optim.base import AnyLoss, MinibatchOptimizer, Params
from adamqlr.optim.directions import Direction, OptionalMethods, bind, check_bound, observer_of, resolve_direction
from adamqlr.optim.group_rates import GroupRates
from adamqlr.optim.heuristics import inner_product, quadratic_forms
from adamqlr.optim.info import QLRInfo
from adamqlr.optim.limits import Limits
from adamqlr.optim.numbers import Number
from adamqlr.optim.options import GivenOption, MemberTensors, checked_heuristics, require
from adamqlr.optim.passes.given_loss import resolve_loss
from adamqlr.optim.passes.network import Curvature, Forward
from adamqlr.optim.passes.perceptron import members_of
from adamqlr.optim.passes.reached_modules import reached_modules
from adamqlr.optim.refusal import Refusal
from adamqlr.optim.state import State
from adamqlr.optim.step_vectors import StepVectors
from adamqlr.optim.structure import unwrapped


class QLR(MinibatchOptimizer):
    """K-FAC's learning-rate, momentum and damping heuristics over any direction, such as an optimizer of PyTorch's.

    Every step asks the direction for d, minimizes the quadratic model M(θ − α d) over α on the minibatch, with
    curvature C + λ I, and adapts λ by Levenberg–Marquardt (Clarke & Hernández-Lobato, ICML 2024, algorithm 1)::

        optimizer = QLR(model, "cross_entropy", torch.optim.NAdam(model.parameters()))
        for inputs, targets in batches:
            info = optimizer.step(inputs, targets)

    The step runs the forward and backward passes itself. It never waits for the device. All its passes see the same
    function: the same dropout masks, the same batch. Buffers and random generators move once a step, as in an ordinary
    forward pass, and parameters that a minibatch does not use stay. What stands in ``param_groups`` is read at every
    step. The ``lr`` there is a factor of α, 1 at first, for learning-rate schedulers; where groups differ in it, their
    parts of d are scaled in proportion.

    Networks side by side (:class:`adamqlr.optim.passes.perceptron.PerceptronPack`) may each have their own ``lr``,
    ``momentum``, ``damping``, ``damping_decrease``, ``damping_increase``, ``lr_clipping`` and ``lr_rescaling``, of
    shape (members,).

    Args:
        model: Any module, or a ``DistributedDataParallel``. Frozen parameters stay as they are.
        loss: ``"cross_entropy"``, ``"half_mse"``, a ``torch.nn`` loss, a function of outputs and targets, or an object
            with the methods of :class:`adamqlr.Loss`.
        direction: ``"gradient"``, ``"adam"``, ``"kronecker"``, an optimizer of PyTorch's over the model's parameters
            (its learning rate cancels; a tiny one loses digits), or an object with the methods of
            :class:`adamqlr.Direction`.
        lr: Fixed learning rate; None for the quadratic model's.
        momentum: Fixed momentum, a multiple of the previous update; None for the quadratic model's, which bounds and
            schedules of α shorten in proportion; 0 for none.
        damping: Initial damping λ₀; 0 with ``adapt_damping=False`` for none.
        adapt_damping: Whether λ follows ρ.
        damping_decrease: ω_dec, multiplies λ where ρ > 3/4.
        damping_increase: ω_inc, multiplies λ where ρ < 1/4.
        min_damping: Adapted damping never falls below.
        max_damping: Nor rises above.
        curvature: ``"fisher"`` (the generalized Gauss–Newton matrix) or ``"hessian"``, the matrix C.
        lr_clipping: α_max; α is limited to [−α_max, α_max].
        lr_rescaling: Multiplies α after clipping.
        weight_decay: Decoupled: θ ← θ − α d − weight_decay · θ. Groups may have their own.
        resolution: λ stays where the loss changes by at most so many units of its last place, or of its outputs' if
            those come in bfloat16, as ρ then says nothing; None: ρ always counts.
        on_nonfinite: ``"propagate"``, or ``"skip"`` to refuse a step whose loss or parameters are not finite:
            everything is then as before it, for a copy of all that a step changes. Where a direction keeps counts on
            the host, as PyTorch's Adam does beside a GPU, each step then waits for the device.
        params: What to train, with groups as for PyTorch's optimizers; None for all that is trainable.
        forward: Calls the model with the inputs and returns what the loss takes; None for ``model(inputs)``.
        microbatch: Rows that go through the model at a time, to the numbers of all at once where no batch statistics
            couple them; None for all.
        process_group: Processes with other parts of every minibatch: replicas then take the step of the whole. That of
            a ``DistributedDataParallel`` if None; ``"local"`` for processes that train on their own.

    Raises:
        ValueError: An argument is out of its range, or the model, loss or direction cannot be used; the message says
            what to do.
        TypeError: The loss or the direction is of no known kind, such as a class.
    """

    _of_a_group = frozenset({"lr", "weight_decay"})
    _replaced_in_groups = frozenset({"damping"})
    # Where K-FAC's conventions differ.
    _damps_model = True
    _nan_is_poor = False

    def __init__(
        self,
        model: nn.Module,
        loss: AnyLoss,
        direction: str | torch.optim.Optimizer | Direction,
        *,
        lr: GivenOption | None = None,
        momentum: GivenOption | None = 0.0,
        damping: GivenOption = 1e-3,
        adapt_damping: bool = True,
        damping_decrease: GivenOption = 0.5,
        damping_increase: GivenOption = 2.0,
        min_damping: float = 1e-8,
        max_damping: float = math.inf,
        curvature: Curvature = "fisher",
        lr_clipping: float | Sequence[float | None] | Tensor | None = None,
        lr_rescaling: GivenOption = 1.0,
        weight_decay: float = 0.0,
        resolution: float | None = 4.0,
        on_nonfinite: Literal["propagate", "skip"] = "propagate",
        params: Params | None = None,
        forward: Forward | None = None,
        microbatch: int | None = None,
        process_group: Any = None,
    ) -> None:
        options: dict[str, Any] = {
            "lr": lr,
            "momentum": momentum,
            "damping": damping,
            "adapt_damping": adapt_damping,
            "damping_decrease": damping_decrease,
            "damping_increase": damping_increase,
            "min_damping": min_damping,
            "max_damping": max_damping,
            "curvature": curvature,
            "lr_clipping": lr_clipping,
            "lr_rescaling": lr_rescaling,
            "weight_decay": weight_decay,
            "resolution": resolution,
            "on_nonfinite": on_nonfinite,
        }
        module, _ = unwrapped(model)
        options = checked_heuristics(options, members_of(module))
        resolved = resolve_loss(loss)
        self._direction = resolve_direction(direction, module, resolved)
        self._optional, self._observer = OptionalMethods(self._direction), observer_of(self._direction)
        options.update(choose_lr=lr is None, lr=1.0 if lr is None else options["lr"])
        for name in options.keys() & self._direction.defaults.keys():
            raise ValueError(f"the direction's option {name!r} is one of QLR's own: give it another name")
        options.update(self._direction.defaults)
        super().__init__(
            model,
            resolved,
            options,
            params=params,
            forward=forward,
            microbatch=microbatch,
            process_group=process_group,
        )

    @property
    def damping(self) -> Tensor:
        """The current damping λ, a 0-d tensor."""
        return self._damping.clone()

    @property
    def capturable(self) -> bool:
        """Whether all steps run the same kernels, so that one can be captured and replayed."""
        return super().capturable and self._optional.capturable

    def _bind(self, state: State) -> None:
        bind(self._direction, self._flat, state)
        self._vectors = StepVectors(self._flat, state)
        self._vectors.use_update(state.group["momentum"] != 0)
        self._damping = state.number("damping", 0.0)
        for group in self.param_groups:
            group["damping"] = self._damping
        self._operands = MemberTensors(self._damping)
        self._arithmetic = StepArithmetic(self._damping, self._damps_model, self._nan_is_poor)
        self._limits = Limits(self._operands, self._arithmetic)
        self._zero, self._true = torch.zeros_like(self._damping), torch.ones_like(self._damping, dtype=torch.bool)
        self._rates = GroupRates(self._vectors, self._operands, self._true)

    def _checked(self, options: dict[str, Any]) -> dict[str, Any]:
        wanted = "a number, a factor of what the model chooses"
        require(options["lr"] is not None, "lr of a parameter group", wanted, None)
        self._optional.check_options(options)
        return checked_heuristics(options, self._flat.members)

    def _take_step(self, inputs: Any, targets: Any) -> QLRInfo:
        group, damping = self.param_groups[0], self._current_damping()
        if (group["momentum"] != 0) != (len(self._vectors.vectors) == 2):
            self._vectors.use_update(group["momentum"] != 0)
        refusal = self._refusal() if group["on_nonfinite"] == "skip" else None
        local = self._network.linearize(inputs, targets, group["curvature"], self._observer)
        gradient = self._network.gradient.buffer
        self._propose(damping, refusal)
        factor, momentum = self._rates.scale(self.param_groups, self._groups.indices), group["momentum"]
        lr = None if group["choose_lr"] else self._operands(factor)
        momentum = None if momentum is None else self._operands(momentum)
        if lr is not None and momentum is not None and not group["adapt_damping"]:
            return self._fixed_step(local.loss, lr, momentum, refusal)

        # The paper's five lines: the quadratic model, its minimum, the step, the reduction ratio, the damping.
        forms = quadratic_forms(gradient, self._vectors.vectors, local.curvature(self._vectors.views), damping)
        weights = self._arithmetic.minimizer(forms, lr, momentum)
        weights = self._limits.of_step(weights, forms, group, factor if lr is None else 1.0)
        before = self._move(weights)
        after = local.loss_after(weights)
        found = self._arithmetic.judge(local.loss, after, weights, forms, group, local.unresolved)
        info = QLRInfo._make([local.loss, *found, self._true])
        if group["adapt_damping"]:
            damping.copy_(info.damping)
        if before is None and refusal is None:
            return info
        taken = self._finish(before, refusal, local.loss, info.true_change)
        return info if refusal is None else info._replace(damping=damping.clone(), taken=taken)

    def _fixed_step(self, loss: Tensor, lr: Number, momentum: Number, refusal: Refusal | None) -> QLRInfo:
        """Take the step that the options prescribe, of which no model is made."""
        slope = inner_product(self._network.gradient.buffer, self._vectors.vectors[0])
        fixed = self._zero + momentum
        weights = [self._limits.of_lr(self._zero - lr, self.param_groups[0], 1.0), fixed][: len(self._vectors.vectors)]
        taken = self._finish(self._move(weights), refusal, loss, self._zero)
        nan = torch.full_like(loss, math.nan)
        return QLRInfo(loss, -weights[0], nan, slope, self._damping.clone(), nan, nan, nan, fixed, taken)

    def _current_damping(self) -> Tensor:
        """Return λ, which somebody may have set in the parameter groups."""
        if self.param_groups[0]["damping"] is not self._damping:
            self._damping.copy_(torch.as_tensor(self.param_groups[0]["damping"], dtype=self._damping.dtype))
            for group in self.param_groups:
                group["damping"] = self._damping
        return self._damping

    def _propose(self, damping: Tensor, refusal: Refusal | None) -> None:
        """Let the direction write v₁."""
        gradient, optional, out = self._network.gradient, self._optional, self._vectors.vectors[0]
        check_bound(self._direction, self._state)
        # The passes may run under autocast; the parameters and what directions keep are not of its precision.
        kind = out.device.type
        with torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext():
            self._direction.propose(gradient, damping, out)
        # What the minibatch does not use stays: no curvature would bound its step.
        for vector in self._vectors.vectors:
            gradient.leave_out_unused(vector)
        if refusal:
            refusal.undo = optional.undo()

    def _move(self, weights: Sequence[Tensor]) -> Tensor | None:
        """Take the step; return θ from before it where weight decay needs that."""
        decays = any(group["weight_decay"] for group in self.param_groups)
        before = self._flat.buffer.clone() if decays else None
        self._vectors.move(weights)
        return before

    def _finish(self, before: Tensor | None, refusal: Refusal | None, loss: Tensor, true_change: Tensor) -> Tensor:
        """Decay the parameters, now that ρ is measured; return whether the step stands, and take it back if not."""
        if before is not None:
            self._network.gradient.leave_out_unused(before)
            self._groups.decay(self.param_groups, before)
        if refusal is None:
            return self._true
        return refusal.unless_finite(loss, true_change, self._flat.buffer)

    def _refusal(self) -> Refusal:
        if self._flat.members:
            raise ValueError("on_nonfinite='skip' is for one network: networks side by side fail each on their own")
        modules = [self._module, *reached_modules(self.loss), *reached_modules(self._forward)]
        return Refusal([self._flat.buffer, *self._state.tensors, *self._optional.live_tensors()], modules)

    def _replace(self, replaced: Any) -> None:
        super()._replace(replaced)
        self._optional.replace(replaced)

    def state_dict(self) -> dict[str, Any]:
        """Return what :meth:`load_state_dict` takes up again, a wrapped optimizer's state among it."""
        own = self._optional.state_dict()
        return {**super().state_dict(), **({"direction": own} if own else {})}

    def _load(self, state_dict: dict[str, Any]) -> None:
        if "damping" not in state_dict["param_groups"][0]:
            raise ValueError("the saved state has no damping: it is of another optimizer")
        own = self._optional.state_dict()
        if not own:
            super()._load(state_dict)
            return
        if "direction" not in state_dict:
            raise ValueError(
                "the saved state has none of the direction's: it is of another optimizer, or was taken by "
                "torch.distributed.checkpoint, which leaves that out: save optimizer.state_dict()"
            )
        # Directions may load into the tensors that they have.
        before = deepcopy(own)
        try:
            self._optional.load_state_dict(state_dict["direction"])
            super()._load(state_dict)
        except Exception:
            self._optional.load_state_dict(before)
            raise

    def __getstate__(self) -> dict[str, Any]:
        """Return what pickling and copying keep."""
        bound = {"_vectors", "_damping", "_operands", "_arithmetic", "_limits", "_rates", "_zero", "_true"}
        return {name: value for name, value in super().__getstate__().items() if name not in bound}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take up pickled, copied or loaded state; None as a learning rate, as version 0.1 has it, is the model's."""
        for group in state["param_groups"]:
            if "choose_lr" not in group:
                rate = group.get("lr")
                group.update(choose_lr=rate is None, lr=1.0 if rate is None else rate)
        super().__setstate__(state)
