"""Record what kfac-jax 0.0.3 does on small problems, for tests/optim/test_kfac_traces.py to compare with.

kfac-jax 0.0.3 needs Python 3.10 and packages of its time, so this runs in an environment of its own and is no
part of the test suite. To record the traces anew, from the repository's root::

    python3.10 -m venv /tmp/kfac-jax
    /tmp/kfac-jax/bin/pip install kfac-jax==0.0.3 jax==0.4.13 jaxlib==0.4.13 optax==0.1.4 dm-haiku==0.0.9 \
        chex==0.1.6 distrax==0.1.3 "numpy==1.22.*" "scipy<1.11" "netCDF4<1.7" scikit-learn
    ADAMQLR_DATA_DIR=<folder with uci_energy/data.txt> JAX_PLATFORMS=cpu \
        /tmp/kfac-jax/bin/python tests/optim/record_kfac_traces.py tests/fixtures/kfac_traces.nc

The file has a group for each problem, with the rows used (a small, standardized excerpt of each data set), the rows of
each minibatch and the initial parameters, and in it a group for each variant, with the numbers of every step, and the
parameters and curvature factors after some. Parameters and factors are ordered as PyTorch's modules order them.
Everything is in double precision; the Fisher is exact.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import kfac_jax
import netCDF4
import numpy as np
from sklearn.datasets import load_digits

jax.config.update("jax_enable_x64", True)

STEPS = 60
PARAMETER_STEPS = (1, 2, 10, 30, 60)
FACTOR_STEPS = (1, 2, 10)
VARIANTS: dict[str, dict[str, float]] = {
    "adaptive": {"damping": 1.0},
    "fixed": {"lr": 0.03, "momentum": 0.9, "damping": 0.1},
}
Array = Any
Parameters = list[Array]


class Case(NamedTuple):
    """One problem: ``layers`` are (kind, shape of the weight in PyTorch's order), each weight followed by a bias."""

    loss: str
    layers: tuple[tuple[str, tuple[int, ...]], ...]
    inputs: np.ndarray
    targets: np.ndarray
    batch_size: int


def energy() -> tuple[np.ndarray, np.ndarray]:
    """Return 192 standardized rows of the UCI Energy table."""
    table = np.loadtxt(Path(os.environ["ADAMQLR_DATA_DIR"]) / "uci_energy" / "data.txt")
    table = (table - table.mean(axis=0)) / table.std(axis=0)
    rows = np.random.default_rng(0).permutation(len(table))[:192]
    return table[rows, :-1], table[rows, -1:]


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Return 320 images (row, 1, 8, 8) of scikit-learn's digits, and their classes."""
    images, classes = load_digits(return_X_y=True)
    rows = np.random.default_rng(1).permutation(len(images))[:320]
    return images[rows].reshape(-1, 1, 8, 8) / 16, classes[rows]


def cases() -> dict[str, Case]:
    """Return the problems by name."""
    table, heating_load = energy()
    images, classes = digits()
    pooled = images.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, 16)
    return {
        "energy_mlp": Case("half_mse", (("linear", (50, 8)), ("linear", (1, 50))), table, heating_load, 96),
        "pooled_digits_mlp": Case(
            "half_mse", (("linear", (12, 16)), ("linear", (10, 12))), pooled, np.eye(10)[classes], 128
        ),
        "digits_mlp": Case(
            "cross_entropy", (("linear", (12, 64)), ("linear", (10, 12))), images.reshape(-1, 64), classes, 160
        ),
        "digits_convolutional": Case(
            "cross_entropy",
            (("convolution", (2, 1, 3, 3)), ("convolution_stride_2", (3, 2, 3, 3)), ("linear", (10, 48))),
            images,
            classes,
            160,
        ),
        "digits_normalized": Case(
            "cross_entropy",
            (("convolution_stride_2", (3, 1, 3, 3)), ("normalization", (3,)), ("linear", (10, 48))),
            images,
            classes,
            160,
        ),
    }


def initial_parameters(case: Case) -> Parameters:
    """Draw weights, N(0, 1 / fan_in), and biases, N(0, 0.01), in PyTorch's order."""
    generator = np.random.default_rng(2)
    parameters: Parameters = []
    for kind, shape in case.layers:
        fan_in = int(np.prod(shape[1:]))
        scale = generator.normal(size=shape)
        parameters.append(1 + 0.1 * scale if kind == "normalization" else scale / np.sqrt(fan_in))
        parameters.append(0.1 * generator.normal(size=shape[0]))
    return parameters


def to_jax(parameters: Parameters) -> Parameters:
    """Reorder weights for JAX: (in, out) and (height, width, in, out)."""
    order = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}
    return [jnp.asarray(np.transpose(p, order[np.ndim(p)])) for p in parameters]


def to_torch(parameters: Parameters) -> np.ndarray:
    """Return the parameters as one vector in PyTorch's order."""
    order = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}
    return np.concatenate([np.transpose(p, order[np.ndim(p)]).ravel() for p in parameters])


def convolution(x: Array, weight: Array, bias: Array, stride: int) -> Array:
    """Return a 3×3 convolution of padding 1, registered by hand: kfac-jax's search fails on those of jax 0.4.13."""
    numbers = jax.lax.conv_dimension_numbers(x.shape, weight.shape, ("NHWC", "HWIO", "NHWC"))
    geometry = {"window_strides": (stride, stride), "padding": ((1, 1), (1, 1)), "dimension_numbers": numbers}
    y = jax.lax.conv_general_dilated(x, weight, **geometry) + bias
    return kfac_jax.register_conv2d(y, x, weight, bias, lhs_shape=x.shape, rhs_shape=weight.shape, **geometry)


def network(case: Case, parameters: Parameters, inputs: Array) -> Array:
    """Return the outputs, with ReLU between the layers (after a normalization only, where there is one)."""
    x = jnp.transpose(inputs, (0, 2, 3, 1)) if inputs.ndim == 4 else inputs
    for index, (kind, _) in enumerate(case.layers):
        weight, bias = parameters[2 * index : 2 * index + 2]
        if kind == "linear":
            if x.ndim == 4:
                x = jnp.transpose(x, (0, 3, 1, 2)).reshape(len(x), -1)
            x = jnp.matmul(x, weight) + bias
        elif kind == "normalization":
            variance = x.var(axis=(0, 1, 2))
            x = (x - x.mean(axis=(0, 1, 2))) / jnp.sqrt(variance + 1e-5)
            x = x * weight + bias
        else:
            x = convolution(x, weight, bias, 2 if kind == "convolution_stride_2" else 1)
        following = case.layers[index + 1][0] if index + 1 < len(case.layers) else "normalization"
        if following != "normalization":
            x = jax.nn.relu(x)
    return x


def objective(case: Case) -> Callable[[Parameters, tuple[Array, Array]], Array]:
    """Return the loss of a minibatch, registered with kfac-jax."""

    def half_mse(parameters: Parameters, batch: tuple[Array, Array]) -> Array:
        outputs = network(case, parameters, batch[0])
        kfac_jax.register_normal_predictive_distribution(outputs, batch[1], variance=1.0, weight=1.0 / outputs.shape[1])
        return 0.5 * jnp.mean((outputs - batch[1]) ** 2)

    def cross_entropy(parameters: Parameters, batch: tuple[Array, Array]) -> Array:
        logits = network(case, parameters, batch[0])
        kfac_jax.register_categorical_predictive_distribution(logits, batch[1])
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(logits)), batch[1]])

    return half_mse if case.loss == "half_mse" else cross_entropy


def factors_of(case: Case, optimizer: kfac_jax.Optimizer, state: Any) -> dict[str, np.ndarray]:
    """Return the lower triangles of the curvature factors by layer, their indices in PyTorch's order."""
    values = {}
    for index, (kind, shape) in enumerate(case.layers):
        block = state.estimator_state.blocks_states[optimizer.estimator.params_block_index[2 * index]]
        if kind == "normalization":
            for name, factor in zip(("scale", "shift"), block.diagonal_factors, strict=True):
                values[f"{index}_{name}"] = np.asarray(factor.value)
            continue
        inputs = np.asarray(block.inputs_factor.value)
        if kind != "linear":
            order = np.arange(len(inputs) - 1).reshape(shape[2], shape[3], shape[1]).transpose(2, 0, 1).ravel()
            order = np.append(order, len(inputs) - 1)
            inputs = inputs[np.ix_(order, order)]
        outputs = np.asarray(block.outputs_factor.value)
        values[f"{index}_input"] = inputs[np.tril_indices(len(inputs))]
        values[f"{index}_output"] = outputs[np.tril_indices(len(outputs))]
    return values


def trace(
    case: Case, batches: np.ndarray, variant: dict[str, float]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Run kfac-jax; return what it reports at each step with parameters after some, and factors after some."""
    adaptive = "lr" not in variant
    optimizer = kfac_jax.Optimizer(
        jax.value_and_grad(objective(case)),
        l2_reg=0.0,
        use_adaptive_learning_rate=adaptive,
        use_adaptive_momentum=adaptive,
        use_adaptive_damping=adaptive,
        initial_damping=variant["damping"] if adaptive else None,
        damping_adaptation_interval=1,
        num_burnin_steps=0,
        estimation_mode="fisher_exact",
        curvature_ema=0.95,
        patterns_to_skip=("conv2d_with_bias", "conv2d_no_bias"),
        inverse_update_period=1,
    )
    fixed = {} if adaptive else {"learning_rate": variant["lr"], "momentum": variant["momentum"]}
    if not adaptive:
        fixed["damping"] = variant["damping"]
    fixed = {name: jnp.asarray(value) for name, value in fixed.items()}
    parameters = to_jax(initial_parameters(case))
    random = jax.random.PRNGKey(0)
    first = (jnp.asarray(case.inputs[batches[0]]), jnp.asarray(case.targets[batches[0]]))
    state = optimizer.init(parameters, random, first)
    print(" ", [type(block).__name__ for block in optimizer.estimator.blocks])
    stats: dict[str, list[Any]] = {name: [] for name in ("loss", "lr", "momentum", "damping", "rho", "parameters")}
    factors: dict[str, list[np.ndarray]] = {}
    for step, rows in enumerate(batches, start=1):
        batch = (jnp.asarray(case.inputs[rows]), jnp.asarray(case.targets[rows]))
        parameters, state, info = optimizer.step(
            parameters, state, random, batch=batch, global_step_int=step - 1, **fixed
        )
        for name in ("loss", "momentum", "damping", "rho"):
            stats[name].append(float(info[name]))
        stats["lr"].append(float(info["learning_rate"]))
        if step in PARAMETER_STEPS:
            stats["parameters"].append(to_torch(parameters))
        if step in FACTOR_STEPS:
            for name, value in factors_of(case, optimizer, state).items():
                factors.setdefault(name, []).append(value)
    print(f"  loss {stats['loss'][0]:.3g} -> {stats['loss'][-1]:.3g}, damping -> {stats['damping'][-1]:.3g}")
    return (
        {name: np.asarray(values) for name, values in stats.items()},
        {name: np.asarray(values) for name, values in factors.items()},
    )


def save(group: Any, name: str, values: np.ndarray, dimensions: tuple[str, ...]) -> None:
    """Write one array, compressed, making the dimensions that are not there."""
    for dimension, size in zip(dimensions, values.shape, strict=True):
        if dimension not in group.dimensions:
            group.createDimension(dimension, size)
    group.createVariable(name, values.dtype, dimensions, zlib=True, complevel=9, shuffle=True)[:] = values


def main(path: str) -> None:
    """Record every variant of every problem."""
    with netCDF4.Dataset(path, "w") as file:
        file.title = "Traces of kfac-jax 0.0.3 (jax 0.4.13, double precision, exact Fisher)"
        file.recipe = "tests/optim/record_kfac_traces.py"
        for name, case in cases().items():
            print(name)
            generator = np.random.default_rng(3)
            batches = np.stack([generator.permutation(len(case.inputs))[: case.batch_size] for _ in range(STEPS)])
            group = file.createGroup(name)
            group.loss = case.loss
            save(group, "inputs", case.inputs, ("row", "channel", "height", "width")[: case.inputs.ndim])
            save(group, "targets", case.targets, ("row", "output")[: case.targets.ndim])
            save(group, "batches", batches.astype(np.int16), ("step", "case"))
            initial = np.concatenate([p.ravel() for p in initial_parameters(case)])
            save(group, "initial_parameters", initial, ("parameter",))
            save(group, "parameter_steps", np.asarray(PARAMETER_STEPS), ("parameter_step",))
            save(group, "factor_steps", np.asarray(FACTOR_STEPS), ("factor_step",))
            for variant, options in VARIANTS.items():
                stats, factors = trace(case, batches, options)
                inner = file.createGroup(name + "/" + variant)
                inner.setncatts(options)
                for key, values in stats.items():
                    save(inner, key, values, ("parameter_step", "parameter") if key == "parameters" else ("step",))
                for key, values in factors.items():
                    save(inner, "factor_" + key, values, ("factor_step", "element_" + key))


if __name__ == "__main__":
    main(sys.argv[1])
