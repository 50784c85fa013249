"""AdamQLR: Adam's direction with K-FAC's learning-rate selection and damping."""

import math
from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from adamqlr.optim.base import AnyLoss, Params
from adamqlr.optim.directions.adam import AdamDirection
from adamqlr.optim.options import GivenOption
from adamqlr.optim.passes.network import Curvature, Forward
from adamqlr.optim.qlr import QLR


class AdamQLR(QLR):
    """Adam's update direction, with learning rate and damping from a quadratic model of the loss.

    :class:`~adamqlr.QLR` over d = m̂ / (√v̂ + ε) (Clarke & Hernández-Lobato, ICML 2024, algorithm 1)::

        optimizer = AdamQLR(model, "cross_entropy")
        for inputs, targets in batches:
            info = optimizer.step(inputs, targets)

    Args:
        model: As for :class:`~adamqlr.QLR`, as all that is not named here.
        loss: Likewise.
        betas: Adam's decay rates β₁, β₂.
        eps: Adam's ε.
        **options: Those of :class:`~adamqlr.QLR`.

    Raises:
        ValueError: An argument is out of its range, or the model or loss cannot be used.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: AnyLoss,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        lr: float | None = None,
        momentum: float | None = 0.0,
        damping: GivenOption = 1e-3,
        damping_decrease: GivenOption = 0.5,
        damping_increase: GivenOption = 2.0,
        min_damping: float = 1e-8,
        max_damping: float = math.inf,
        adapt_damping: bool = True,
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
        super().__init__(
            model,
            loss,
            AdamDirection(betas, eps),
            lr=lr,
            momentum=momentum,
            damping=damping,
            adapt_damping=adapt_damping,
            damping_decrease=damping_decrease,
            damping_increase=damping_increase,
            min_damping=min_damping,
            max_damping=max_damping,
            curvature=curvature,
            lr_clipping=lr_clipping,
            lr_rescaling=lr_rescaling,
            weight_decay=weight_decay,
            resolution=resolution,
            on_nonfinite=on_nonfinite,
            params=params,
            forward=forward,
            microbatch=microbatch,
            process_group=process_group,
        )
