"""Where a K-FAC step spends its time on the 784-50-10 network at batch 3200 (synthetic inputs, one thread)."""

import os
from typing import Any

import pytest
import torch

from adamqlr import KFAC
from adamqlr.optim.curvature import Linearization
from adamqlr.optim.layer_record import recorded_layers
from adamqlr.problems.models import mlp
from adamqlr.training.device import keep_freed_memory


@pytest.fixture(scope="module", autouse=True)
def _steady_machine() -> None:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    keep_freed_memory()


@pytest.mark.parametrize("part", ["forward and backward", "factor update and inversion"])
def test_parts(benchmark: Any, part: str) -> None:
    torch.manual_seed(0)
    model = mlp([784, 50, 10])
    optimizer = KFAC(model, "cross_entropy")
    inputs, targets = torch.randn(3200, 784), torch.randint(10, (3200,))
    optimizer.step(inputs, targets)

    def passes() -> Any:
        with recorded_layers(model, optimizer._layers) as record:
            Linearization(model, optimizer.loss, optimizer._flat.parameters, inputs, targets)
        return record

    record = passes()

    def factors() -> None:
        optimizer._update_factors(record, len(inputs))
        for block in optimizer._blocks:
            block.invert(optimizer._weight, optimizer._damping)

    benchmark.group = "K-FAC on 784-50-10, batch 3200"
    benchmark.pedantic(passes if part == "forward and backward" else factors, rounds=40, warmup_rounds=10)
