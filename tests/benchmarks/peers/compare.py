"""This project's steps against those of JAX and kfac-jax."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import click
import torch

from tests.benchmarks.cases import CAPTURED, EAGER, ENERGY, JAX, SMALL_BATCH, Case, perceptron, study_step
from tests.benchmarks.rows import PEERS, Row, row_of
from tests.benchmarks.timing import Effort, TimeBlock, interleave_blocks, time_here

from .process import Peers

COMPARED = ("adam", "adamqlr", "kfac")


def peer_cases(quick: bool) -> list[Case]:
    """Return the study's perceptrons; of ResNet-18 a single step takes kfac-jax more than a minute."""
    if quick:
        return [ENERGY, SMALL_BATCH]
    return [
        perceptron("UCI Energy", [8, 50, 1], 50),
        ENERGY,
        perceptron("UCI Protein", [9, 100, 1], 3200),
        *(perceptron("Fashion-MNIST", [784, 50, 10], batch) for batch in (100, 400, 3200)),
    ]


def measure_peers(device: torch.device, effort: Effort, quick: bool) -> list[Row]:
    """Measure steps here and by JAX in turn, both on one thread of one core."""
    with one_core():
        return [row for case in peer_cases(quick) for row in _compare(case, device, effort)]


def _compare(case: Case, device: torch.device, effort: Effort) -> list[Row]:
    click.echo(f"  {case}", err=True)
    batch = case.minibatch(device)
    with Peers(case) as peers:
        contenders: dict[tuple[str, str], TimeBlock] = {}
        for key in COMPARED:
            contenders[key, JAX] = partial(peers.seconds, key)
            for mode in (EAGER, CAPTURED):
                contenders[key, mode] = time_here(study_step(case, key, batch, mode))
            # Compiles the step, which is not to be measured, nor to use up anybody's patience.
            contenders[key, JAX](1)
        blocks = interleave_blocks(contenders, effort)
    return [
        row_of(PEERS, case, *key).timed(timed, None if key[1] == JAX else blocks[key[0], JAX])
        for key, timed in blocks.items()
    ]


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this process, and those that it starts, on one thread and, where the system can, on one core."""
    threads, can_bind = torch.get_num_threads(), hasattr(os, "sched_setaffinity")
    cores = os.sched_getaffinity(0) if can_bind else set()
    torch.set_num_threads(1)
    if can_bind:
        os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if can_bind:
            os.sched_setaffinity(0, cores)
