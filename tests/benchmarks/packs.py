"""Networks trained side by side, against one alone."""

import torch

from adamqlr.optim.passes.perceptron import PerceptronPack

from .cases import ENERGY, SMALL_BATCH, Case, modes, study_step
from .rows import PACKS, Row, row_of
from .timing import Effort, Make, interleave

OPTIMIZERS = ("adam", "adamqlr", "kfac")


def measure_packs(device: torch.device, effort: Effort, quick: bool) -> list[Row]:
    """Measure packs of several sizes, captured where they can be, as in training."""
    sizes = (1, 10) if quick else (1, 10, 50)
    return [
        row
        for case in (ENERGY, SMALL_BATCH)
        for optimizer in OPTIMIZERS
        for row in _compare(case, optimizer, sizes, device, effort)
    ]


def _compare(case: Case, optimizer: str, sizes: tuple[int, ...], device: torch.device, effort: Effort) -> list[Row]:
    mode = modes(case, device)[-1]
    contenders: dict[int | None, Make] = {None: study_step(case, optimizer, case.minibatch(device), mode)}
    for size in sizes:
        contenders[size] = _pack_step(case, optimizer, size, mode, device)
    blocks = interleave(contenders, effort)
    rows = []
    for members in contenders:
        row = row_of(PACKS, case, optimizer, mode).timed(blocks[members], blocks[None])
        row.members = members
        row.seed_steps_per_second = (members or 1) / blocks[members].seconds.median
        rows.append(row)
    return rows


def _pack_step(case: Case, optimizer: str, size: int, mode: str, device: torch.device) -> Make:
    def pack() -> PerceptronPack:
        return PerceptronPack([case.build() for _ in range(size)])  # type: ignore[misc]

    return study_step(case, optimizer, case.minibatch(device, (size,)), mode, pack)
