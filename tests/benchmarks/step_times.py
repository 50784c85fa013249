"""Step times of the study's optimizers, and how they grow."""

import click
import torch

from .cases import BASELINE, CAPTURED, EAGER, MEASURED, Case, baseline, modes, perceptron, study_cases, study_step
from .memory import peak_bytes
from .rows import BATCH, PARAMETERS, STEPS, Row, row_of
from .timing import Effort, Make, interleave

GROWING = ("adam", "adamqlr", "kfac")


def measure_steps(device: torch.device, effort: Effort, quick: bool) -> list[Row]:
    """Measure time and memory of a step of every optimizer on every network of the study."""
    rows = []
    for case in study_cases(device, quick):
        rows += _compare(STEPS, case, tuple(MEASURED), modes(case, device), device, effort)
    return rows


def measure_growth(device: torch.device, effort: Effort, quick: bool) -> list[Row]:
    """Measure steps by batch size and parameter count, captured where they can be, as in training."""
    batches = (50, 100) if quick else (50, 100, 200, 400, 800, 1600, 3200)
    hidden = (25, 50) if quick else (25, 50, 100, 200, 400, 800)
    by_batch = [(BATCH, perceptron("", [784, 50, 10], batch)) for batch in batches]
    by_width = [(PARAMETERS, perceptron("", [784, width, 10], 400)) for width in hidden]
    rows = []
    for section, case in by_batch + by_width:
        rows += _compare(section, case, GROWING, modes(case, device)[-1:], device, effort)
    return rows


def _compare(
    section: str,
    case: Case,
    optimizers: tuple[str, ...],
    modes_: tuple[str, ...],
    device: torch.device,
    effort: Effort,
) -> list[Row]:
    click.echo(f"  {case}", err=True)
    batch = case.minibatch(device)
    contenders: dict[tuple[str, str], Make] = {(BASELINE, EAGER): baseline(case, batch)}
    for mode in modes_:
        for optimizer in optimizers:
            contenders[optimizer, mode] = study_step(case, optimizer, batch, mode)
    blocks = interleave(contenders, effort)
    rows = []
    for (optimizer, mode), make in contenders.items():
        row = row_of(section, case, optimizer, mode)
        row.timed(blocks[optimizer, mode], blocks[BASELINE, EAGER])
        # The memory of captured graphs is a pool of their own that lives as long as they do.
        if mode != CAPTURED:
            row.peak_mib = peak_bytes(make, device) / 2**20
        rows.append(row)
    return rows
