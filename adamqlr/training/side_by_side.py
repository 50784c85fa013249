"""How many runs are trained side by side: as many as a device does faster together than one after another."""

import torch
from torch import nn

from adamqlr.problems.problem import Problem, initial_model
from adamqlr.study.case import Case

# Beyond this, runs side by side save little, and their activations take memory.
MOST_MEMBERS = 64

# On a CPU, runs side by side share the cost of calling kernels: they are faster while all that a step touches stays in
# cache. Measured with 1 MB of L2 and 32 MB of L3 cache on captured steps of ten perceptrons of 8–50–1 to 64–50–10: 1.1
# to 4.4 times the steps a second within these bounds. Beyond them it was 0.3 to 1.5 times, eager.
_RUN_BYTES, _PACK_BYTES = 1 << 19, 5 << 20
_FEWEST_MEMBERS = 3
# Steps of all runs below which measuring a step takes longer than is saved.
_FEWEST_STEPS = 20_000
_BYTES = 4
# θ, g and the vectors that optimizers keep of the same size.
_VECTORS = 6


def pack_size(case: Case, problem: Problem, batch_size: int, runs: int, steps: float) -> int:
    """Return how many of some runs are best trained side by side; 0 for one after another.

    Args:
        case: What is trained.
        problem: On the device that trains.
        batch_size: Of all runs.
        runs: How many there are.
        steps: How many steps all of them take together.
    """
    if not case.can_pack:
        return 0
    if problem.device.type == "cuda" or case.study.training.pack == "always":
        return min(runs, MOST_MEMBERS)
    run_bytes = _working_set(problem, batch_size)
    if run_bytes > _RUN_BYTES or runs < _FEWEST_MEMBERS or steps < _FEWEST_STEPS:
        return 0
    return min(runs, MOST_MEMBERS, _PACK_BYTES // run_bytes)


def _working_set(problem: Problem, batch_size: int) -> int:
    """Return the bytes that a step of a perceptron touches: vectors of parameters, and activations there and back."""
    with torch.random.fork_rng(devices=[]):
        model = initial_model(problem, 0)
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    activations = layers[0].in_features + sum(2 * layer.out_features for layer in layers)
    return _BYTES * (_VECTORS * parameters + problem.rows_of_batch(batch_size) * activations)
