"""Adam, and AdamQLR from the paper's equations, as one compiled function a step.

Clarke & Hernández-Lobato, ICML 2024, algorithm 1, written as somebody who knows JAX would: nothing of this project's
passes is in it. The options are those that :mod:`tests.benchmarks.cases` measures here.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.flatten_util import ravel_pytree

from .problem import Batch, Layers, Problem, curvature_along, loss_of, network

Info = dict[str, Array]
# Takes a step and returns the parameters after it, and what it reports.
Step = Callable[[], tuple[Layers, Info]]
Start = Callable[[], Step]

DAMPING, MIN_DAMPING, DECREASE, INCREASE = 1e-3, 1e-8, 0.5, 2.0
# Units of the loss's last place, times two, below which a change of it says nothing.
RESOLUTION = 8


def adam(problem: Problem) -> Start:
    """Return what starts a training with optax's Adam."""
    optimizer = optax.adam(1e-3)

    def step(layers: Layers, moments: Any, batch: Batch) -> tuple[Layers, Any, Info]:
        loss, gradient = jax.value_and_grad(lambda at: loss_of(problem.loss, network(at, batch[0]), batch[1]))(layers)
        update, moments = optimizer.update(gradient, moments)
        return optax.apply_updates(layers, update), moments, {"loss": loss}

    return _starter(step, problem, optimizer.init(problem.layers))


def adamqlr(problem: Problem) -> Start:
    """Return what starts a training with AdamQLR."""
    adam_direction = optax.scale_by_adam()

    def step(layers: Layers, state: tuple[Any, Array], batch: Batch) -> tuple[Layers, Any, Info]:
        (moments, damping), (inputs, targets) = state, batch

        def loss_at(at: Layers) -> Array:
            return loss_of(problem.loss, network(at, inputs), targets)

        loss, gradient = jax.value_and_grad(loss_at)(layers)
        direction, moments = adam_direction.update(gradient, moments)

        outputs, tangent = jax.jvp(lambda at: network(at, inputs), (layers,), (direction,))
        g, d = ravel_pytree(gradient)[0], ravel_pytree(direction)[0]
        slope = g @ d
        curvature = curvature_along(problem.loss, outputs, tangent) + damping * (d @ d)
        rate = slope / curvature

        layers = jax.tree.map(lambda theta, step: theta - rate * step, layers, direction)
        true_change = loss_at(layers) - loss
        rho = true_change / (rate * (0.5 * rate * curvature - slope))
        damping = _adapted(damping, rho, loss, true_change)
        return layers, (moments, damping), {"loss": loss, "lr": rate, "damping": damping, "rho": rho}

    damping = jnp.asarray(DAMPING, problem.batch[0].dtype)
    return _starter(step, problem, (adam_direction.init(problem.layers), damping))


def _adapted(damping: Array, rho: Array, loss: Array, true_change: Array) -> Array:
    """Return λ after the step."""
    factor = jnp.where(rho > 0.75, DECREASE, jnp.where(rho < 0.25, INCREASE, 1.0))
    resolved = loss + true_change / RESOLUTION != loss
    return jnp.maximum(damping * jnp.where(resolved, factor, 1.0), MIN_DAMPING)


def _starter(step: Callable[..., tuple[Layers, Any, Info]], problem: Problem, initial: Any) -> Start:
    """Return what trains from the beginning, all times by one compiled step."""
    compiled = jax.jit(step)

    def start() -> Step:
        layers, state = problem.layers, initial

        def take() -> tuple[Layers, Info]:
            nonlocal layers, state
            layers, state, info = compiled(layers, state, problem.batch)
            return layers, info

        return take

    return start
