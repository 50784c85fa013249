"""The process that trains with JAX, as seen from here."""

import json
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tests.benchmarks.cases import Batch, Case

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENT = ROOT / ".venv-peers"
LOCK = ROOT / "envs" / "peers.lock"
ONE_THREAD = {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def has_peers() -> bool:
    """Return whether ``make benchmark-peers`` has made JAX's environment."""
    return (ENVIRONMENT / "installed").exists()


def versions() -> str:
    """Return what the environment has, in words."""
    pinned = dict(re.findall(r"^(jax|kfac-jax)==(\S+)", LOCK.read_text(), re.MULTILINE))
    return f"JAX {pinned['jax']} and kfac-jax {pinned['kfac-jax']}"


def starting_point(case: Case, dtype: torch.dtype) -> tuple[nn.Module, Batch]:
    """Return the network that training starts from, and the minibatch."""
    torch.manual_seed(0)
    inputs, targets = case.minibatch(torch.device("cpu"))
    return case.build().to(dtype), (inputs.to(dtype), targets.to(dtype) if targets.is_floating_point() else targets)


def write_problem(case: Case, dtype: torch.dtype, path: Path) -> None:
    """Write the starting point, for :func:`tests.benchmarks.peers.problem.read_problem`."""
    model, (inputs, targets) = starting_point(case, dtype)
    arrays: dict[str, Any] = {
        f"parameter_{index}": part.detach().numpy() for index, part in enumerate(model.parameters())
    }
    np.savez(path, inputs=inputs.numpy(), targets=targets.numpy(), loss=np.array(case.loss), **arrays)


class Peers:
    """JAX on one thread, with a case to train; it waits until it is asked, so that it disturbs nobody.

    Args:
        case: A perceptron.
        dtype: The precision of parameters and minibatch.
    """

    def __init__(self, case: Case, dtype: torch.dtype = torch.float32) -> None:
        self._case, self._dtype = case, dtype

    def __enter__(self) -> "Peers":
        self._folder = tempfile.TemporaryDirectory()
        path = Path(self._folder.name) / "problem.npz"
        write_problem(self._case, self._dtype, path)
        command = [str(ENVIRONMENT / "bin" / "python"), "-m", "tests.benchmarks.peers.worker", str(path)]
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **ONE_THREAD, "JAX_ENABLE_X64": str(self._dtype == torch.float64)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *raised: object) -> None:
        self._process.communicate()
        self._folder.cleanup()

    def seconds(self, optimizer: str, steps: int) -> float:
        """Return the seconds a step takes, of a block of so many from the start of training."""
        return self._ask("seconds", optimizer, steps)

    def trace(self, optimizer: str, steps: int) -> dict[str, list[float]]:
        """Return the numbers of each step by name, and under ``parameters`` those after the last."""
        return self._ask("trace", optimizer, steps)

    def _ask(self, what: str, optimizer: str, steps: int) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = json.dumps({"what": what, "optimizer": optimizer, "steps": steps})
        print(request, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"JAX's process ended when asked for {request}; it says above why")
        return json.loads(answer)
