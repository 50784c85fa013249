"""Where a step of K-FAC spends its time."""

from collections.abc import Callable

import torch

from adamqlr import KFAC
from adamqlr.optim.directions.kronecker import KroneckerDirection
from adamqlr.optim.passes.perceptron import PerceptronModel

from .cases import EAGER, Batch, Case, perceptron
from .rows import KFAC_PARTS, Row, row_of
from .timing import Effort, Make, interleave

WHOLE, PASSES, FACTORS = "whole step", "forward and backward", "factors and direction"


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

        network, direction = optimizer._network, optimizer._direction
        assert isinstance(direction, KroneckerDirection)

        @torch.no_grad()
        def passes() -> PerceptronModel:
            local = network.linearize(*batch, "fisher")
            assert isinstance(local, PerceptronModel)
            return local

        optimizer.step(*batch)
        record, out = passes(), optimizer._flat.zeros()

        @torch.no_grad()
        def factors() -> None:
            direction.begin(case.batch)
            direction.observe(record)
            direction.end(None)
            direction.propose(network.gradient, optimizer._damping, out)

        return {WHOLE: lambda: optimizer.step(*batch), PASSES: passes, FACTORS: factors}[part]

    return make
