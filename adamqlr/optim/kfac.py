"""K-FAC with learning rate, momentum and damping chosen by a quadratic model of the loss."""

import math
from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from adamqlr.optim.base import AnyLoss, Params
from adamqlr.optim.directions.kronecker import KroneckerDirection
from adamqlr.optim.options import GivenOption
from adamqlr.optim.passes.given_loss import resolve_loss
from adamqlr.optim.passes.network import Forward
from adamqlr.optim.qlr import QLR
from adamqlr.optim.structure import unwrapped

DAMPING_DECAY = 0.9


class KFAC(QLR):
    """K-FAC (Martens & Grosse 2015; Grosse & Martens 2016) in the form of kfac-jax 0.0.3, without burn-in.

    :class:`~adamqlr.QLR` over the gradient preconditioned by Kronecker factors, v₁ = A⁻¹ V G⁻¹, and the previous update
    v₂: every step moves by w₁ v₁ + w₂ v₂ with w from the exact Fisher of the minibatch and damping λ::

        optimizer = KFAC(model, "cross_entropy")
        for inputs, targets in batches:
            info = optimizer.step(inputs, targets)

    Where kfac-jax and the 2015 paper differ, this follows kfac-jax: the norm in π is the trace, ρ leaves damping out of
    the model's change, λ moves by a factor of 0.9 at every step, and a ρ that is not a number counts as poor.
    With learning rate and momentum fixed but λ adapted, the model's change is that of the exact Fisher (kfac-jax's
    ``always_use_exact_qmodel_for_damping_adjustment``).

    Layers that are ``Linear``, ``Conv2d`` without groups, or batch, layer or group normalization (a diagonal for scale
    and shift) are each called once in a forward pass. All other parameters, and those that layers share, have
    kfac-jax's ``NaiveDiagonal``. A matrix that cannot be inverted ends as NaN parameters.

    Networks side by side (:class:`adamqlr.optim.passes.perceptron.PerceptronPack`) may each have their own ``lr``,
    ``momentum``, ``damping`` and ``lr_clipping``, of shape (members,). Each has its own sampled targets, all of them
    drawn at once: with the same seeds they are others than in separate runs, whose numbers then agree statistically,
    and with ``fisher="exact"`` but for rounding.

    Args:
        model: As for :class:`~adamqlr.QLR`, as all that is not named here.
        loss: Likewise. An object of one's own may have the methods of
            :class:`adamqlr.optim.passes.output_fisher.OutputFisher` as well; else the factors come from the positive
            part of its Hessian.
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
        **options: Those of :class:`~adamqlr.QLR`, but for ``curvature``, ``lr_rescaling``, ``damping_decrease`` and
            ``damping_increase``.

    Raises:
        ValueError: An argument is out of its range, or the model or loss cannot be used.
    """

    _damps_model = False
    _nan_is_poor = True

    def __init__(
        self,
        model: nn.Module,
        loss: AnyLoss,
        *,
        damping: GivenOption = 1.0,
        lr: GivenOption | None = None,
        momentum: GivenOption | None = None,
        adapt_damping: bool = True,
        fisher: Literal["sampled", "exact"] = "sampled",
        ema_decay: float = 0.95,
        inverse_period: int = 1,
        min_damping: float = 1e-8,
        max_damping: float = math.inf,
        lr_clipping: float | Sequence[float | None] | Tensor | None = None,
        weight_decay: float = 0.0,
        resolution: float | None = 4.0,
        on_nonfinite: Literal["propagate", "skip"] = "propagate",
        params: Params | None = None,
        forward: Forward | None = None,
        microbatch: int | None = None,
        process_group: Any = None,
    ) -> None:
        module, _ = unwrapped(model)
        resolved = resolve_loss(loss)
        super().__init__(
            model,
            resolved,
            KroneckerDirection(module, resolved, fisher, ema_decay, inverse_period),
            lr=lr,
            momentum=momentum,
            damping=damping,
            adapt_damping=adapt_damping,
            damping_decrease=DAMPING_DECAY,
            damping_increase=1 / DAMPING_DECAY,
            min_damping=min_damping,
            max_damping=max_damping,
            lr_clipping=lr_clipping,
            weight_decay=weight_decay,
            resolution=resolution,
            on_nonfinite=on_nonfinite,
            params=params,
            forward=forward,
            microbatch=microbatch,
            process_group=process_group,
        )
