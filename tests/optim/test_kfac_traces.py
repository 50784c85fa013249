"""K-FAC step for step against kfac-jax 0.0.3, whose traces record_kfac_traces.py has recorded."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from adamqlr import KFAC
from adamqlr.optim.info import QLRInfo

TRACES = Path(__file__).parents[1] / "fixtures" / "kfac_traces.nc"
TOLERANCE = 1e-6
NETWORKS = {
    "energy_mlp": [nn.Linear(8, 50), nn.ReLU(), nn.Linear(50, 1)],
    "pooled_digits_mlp": [nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 10)],
    "digits_mlp": [nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10)],
    "digits_convolutional": [
        nn.Conv2d(1, 2, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(2, 3, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(48, 10),
    ],
    "digits_normalized": [
        nn.Conv2d(1, 3, 3, stride=2, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(48, 10),
    ],
}
OPTIONS: dict[str, Any] = {"adaptive": {}, "fixed": {"adapt_damping": False}}


def assert_close(actual: Any, expected: Any, name: str, step: int) -> None:
    """Compare arrays by the largest difference, relative to the largest element."""
    expected = np.asarray(expected)
    difference = np.abs(np.asarray(actual) - expected).max() / np.abs(expected).max(initial=1e-300)
    assert difference <= TOLERANCE, f"{name} differs by {difference:.1e} at step {step}"


def factors(optimizer: KFAC, model: nn.Module) -> dict[str, np.ndarray]:
    """Return the lower triangles of the factors, and the diagonals of normalization layers, by layer."""
    weight = optimizer.state_dict()["param_groups"][0]["weight"]
    found = {}
    layers = [module for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d, nn.BatchNorm2d))]
    for index, layer in enumerate(layers):
        state = optimizer.state[layer.weight]
        if isinstance(layer, nn.BatchNorm2d):
            for name, key in (("scale", "diagonal_0"), ("shift", "diagonal_1")):
                found[f"{index}_{name}"] = (state[key] / weight).numpy()
        else:
            for name in ("input", "output"):
                matrix = (state[f"{name}_factor"] / weight).numpy()
                found[f"{index}_{name}"] = matrix[np.tril_indices(len(matrix))]
    return found


@pytest.mark.parametrize("variant", OPTIONS)
@pytest.mark.parametrize("case", NETWORKS)
def test_every_step_is_that_of_kfac_jax(case: str, variant: str) -> None:
    with xr.open_datatree(TRACES, engine="netcdf4") as traces:
        problem, trace = (traces[name].to_dataset().load() for name in (case, f"{case}/{variant}"))
    model = nn.Sequential(*NETWORKS[case]).double()
    initial = torch.from_numpy(problem["initial_parameters"].values.copy())
    nn.utils.vector_to_parameters(initial, model.parameters())
    given = {name: float(value) for name, value in trace.attrs.items()}
    settings = {"fisher": "exact", "resolution": None, **given, **OPTIONS[variant]}
    optimizer = KFAC(model, problem.attrs["loss"], **settings)
    inputs, targets = (torch.from_numpy(problem[name].values) for name in ("inputs", "targets"))
    compared = [name for name in QLRInfo._fields if name in trace and not np.isnan(trace[name]).all()]
    # kfac-jax evaluates no quadratic model, and so no ρ, where everything is fixed.
    assert set(compared) == {"loss", "lr", "momentum", "damping"} | ({"rho"} if variant == "adaptive" else set())
    assert len(problem["batches"]) >= 50
    for step, rows in enumerate(torch.from_numpy(problem["batches"].values).long(), start=1):
        info = optimizer.step(inputs[rows], targets[rows])
        for name in compared:
            assert_close(getattr(info, name), trace[name].values[step - 1], name, step)
        if step in problem["parameter_steps"]:
            index = list(problem["parameter_steps"].values).index(step)
            theta = nn.utils.parameters_to_vector(model.parameters()).detach()
            assert_close(theta, trace["parameters"].values[index], "parameters", step)
        if step in problem["factor_steps"]:
            index = list(problem["factor_steps"].values).index(step)
            for name, values in factors(optimizer, model).items():
                assert_close(values, trace[f"factor_{name}"].values[index], f"factor {name}", step)
