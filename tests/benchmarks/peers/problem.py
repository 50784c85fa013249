"""A perceptron and its minibatch, as files hand them to JAX."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Layers = list[tuple[Array, Array]]
Batch = tuple[Array, Array]


class Problem(NamedTuple):
    """What is trained, and on what.

    Attributes:
        loss: ``half_mse`` or ``cross_entropy``.
        layers: Each layer's weight (in, out) and bias, as training starts from.
        batch: Inputs and targets.
    """

    loss: str
    layers: Layers
    batch: Batch


def read_problem(path: Path) -> Problem:
    """Read what :func:`tests.benchmarks.peers.process.write_problem` wrote."""
    with np.load(path) as arrays:
        parameters = [jnp.asarray(arrays[f"parameter_{index}"]) for index in range(len(arrays.files) - 3)]
        batch = jnp.asarray(arrays["inputs"]), jnp.asarray(arrays["targets"])
        # PyTorch's weights are (out, in).
        layers = [(weight.T, bias) for weight, bias in zip(parameters[::2], parameters[1::2], strict=True)]
        return Problem(str(arrays["loss"]), layers, batch)


def flattened(layers: Layers) -> list[float]:
    """Return all parameters in PyTorch's order."""
    return np.concatenate([np.ravel(part) for weight, bias in layers for part in (weight.T, bias)]).tolist()


def network(layers: Layers, inputs: Array) -> Array:
    """Return the outputs."""
    *hidden, (weight, bias) = layers
    for weight_, bias_ in hidden:
        inputs = jax.nn.relu(jnp.matmul(inputs, weight_) + bias_)
    return jnp.matmul(inputs, weight) + bias


def loss_of(loss: str, outputs: Array, targets: Array) -> Array:
    """Return the minibatch's loss."""
    if loss == "half_mse":
        return 0.5 * jnp.mean((outputs - targets) ** 2)
    chosen = jnp.take_along_axis(jax.nn.log_softmax(outputs), targets[:, None], axis=1)
    return -jnp.mean(chosen)


def curvature_along(loss: str, outputs: Array, tangent: Array) -> Array:
    """Return tᵀ H t with H the loss's Hessian in the outputs."""
    if loss == "half_mse":
        return jnp.mean(tangent**2)
    probabilities = jax.nn.softmax(outputs)
    mean = jnp.sum(probabilities * tangent, axis=1)
    return jnp.mean(jnp.sum(probabilities * tangent**2, axis=1) - mean**2)
