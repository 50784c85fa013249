"""Where a step of K-FAC spends its time."""

from collections.abc import Callable
from typing import Any

import torch

from adamqlr import KFAC
from adamqlr.optim.curvature import Linearization
from adamqlr.optim.layer_record import recorded_layers

from .cases import EAGER, Batch, Case, perceptron
from .rows import KFAC_PARTS, Row, row_of
from .timing import Effort, Make, interleave

WHOLE, PASSES, FACTORS = "whole step", "forward and backward", "factors and inversion"


def measure_kfac_parts(device: torch.device, effort: Effort, quick: bool) -> list[Row]:
    """Measure the parts of a step and the step itself, side by side."""
    case = perceptron("Fashion-MNIST", [784, 50, 10], 100 if quick else 3200)
    batch = case.minibatch(device)
    blocks = interleave({part: _part(case, batch, part) for part in (WHOLE, PASSES, FACTORS)}, effort)
    return [row_of(KFAC_PARTS, case, part, EAGER).timed(timed, blocks[WHOLE]) for part, timed in blocks.items()]


def _part(case: Case, batch: Batch, part: str) -> Make:
    def make() -> Callable[[], object]:
        torch.manual_seed(0)
        model = case.build().to(batch[0].device)
        optimizer = KFAC(model, case.loss)

        def passes() -> Any:
            with recorded_layers(model, optimizer._layers) as record:
                Linearization(model, optimizer.loss, optimizer._flat.parameters, *batch)
            return record

        optimizer.step(*batch)
        record = passes()

        def factors() -> None:
            optimizer._update_factors(record, case.batch)
            for block in optimizer._blocks:
                block.invert(optimizer._weight, optimizer._damping)

        return {WHOLE: lambda: optimizer.step(*batch), PASSES: passes, FACTORS: factors}[part]

    return make
