"""What runs in JAX's environment: answers requests, a line of JSON each, until there are no more.

python -m tests.benchmarks.peers.worker PROBLEM.npz
"""

import json
import sys
import timeit
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax

from .kfac import EXACT, kfac
from .problem import Problem, flattened, read_problem
from .steps import Start, adam, adamqlr

OPTIMIZERS: dict[str, Callable[[Problem], Start]] = {
    "adam": adam,
    "adamqlr": adamqlr,
    "kfac": kfac,
    "kfac_exact": partial(kfac, fisher=EXACT),
}


def seconds(start: Start, steps: int) -> float:
    """Return the seconds a step of a new training takes, after as many steps of warm-up as PyTorch's Timer has."""
    take = start()

    def block(length: int) -> None:
        for _ in range(length):
            result = take()
        jax.block_until_ready(result)

    block(max(steps // 100, 2))
    return timeit.timeit(lambda: block(steps), number=1) / steps


def trace(start: Start, steps: int) -> dict[str, Any]:
    """Return what each step of a new training reports, and the parameters after the last."""
    take = start()
    taken = [take() for _ in range(steps)]
    names = {"loss", "lr", "momentum", "damping", "rho"} & taken[0][1].keys()
    stats = {name: [float(info[name]) for _, info in taken] for name in names}
    return stats | {"parameters": flattened(taken[-1][0])}


def main(path: str) -> None:
    """Answer until the input ends."""
    # What a library may print is no answer.
    answers, sys.stdout = sys.stdout, sys.stderr
    problem = read_problem(Path(path))
    started: dict[str, Start] = {}
    answer_by: dict[str, Callable[[Start, int], Any]] = {"seconds": seconds, "trace": trace}
    for line in sys.stdin:
        request = json.loads(line)
        name, steps = request["optimizer"], request["steps"]
        if name not in started:
            started[name] = OPTIMIZERS[name](problem)
        answer = answer_by[request["what"]](started[name], steps)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
