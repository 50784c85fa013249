"""One measurement as a row of the table."""

from dataclasses import asdict, dataclass

import pandas as pd

from .cases import BASELINE, Case
from .timing import Blocks

STEPS, BATCH, PARAMETERS = "steps", "batch size", "parameters"
PACKS, LIMITS, KFAC_PARTS, PEERS = "packs", "limits", "K-FAC parts", "peers"


@dataclass
class Row:
    """One measurement; None is what does not concern it.

    Attributes:
        section: What it was measured for.
        network: The network's name.
        batch: Rows of a minibatch.
        parameters: Of the network.
        optimizer: The optimizer's key, or what else was timed.
        mode: ``eager``, ``captured`` as in training, or ``jax``: by JAX or kfac-jax.
        members: Networks trained side by side.
        milliseconds: A step's, the median over blocks.
        milliseconds_iqr: Their interquartile range.
        ratio: Times the reference of the section (PyTorch's fused Adam; solo; a whole K-FAC step; the same by JAX),
            the median over pairs of blocks.
        ratio_iqr: Its interquartile range.
        blocks: How many were measured.
        seed_steps_per_second: Steps times networks a second.
        peak_mib: Most memory that was allocated for parameters, optimizer and step, without the minibatch.
        gflop: Floating-point operations.
        gbyte: Traffic, if every kernel reads its operands and writes its results once.
        matmul_fraction: Operations a second over those of a large matrix product.
        memory_fraction: Traffic a second over that of a large copy.
    """

    section: str
    network: str
    batch: int | None
    parameters: int | None
    optimizer: str
    mode: str
    members: int | None = None
    milliseconds: float | None = None
    milliseconds_iqr: float | None = None
    ratio: float | None = None
    ratio_iqr: float | None = None
    blocks: int | None = None
    seed_steps_per_second: float | None = None
    peak_mib: float | None = None
    gflop: float | None = None
    gbyte: float | None = None
    matmul_fraction: float | None = None
    memory_fraction: float | None = None

    def timed(self, blocks: Blocks, reference: Blocks | None) -> "Row":
        """Fill in what the blocks say, and return the row."""
        self.milliseconds, self.milliseconds_iqr = (1e3 * seconds for seconds in blocks.seconds)
        if reference is not None:
            self.ratio, self.ratio_iqr = blocks.ratio_to(reference)
        self.blocks = len(blocks)
        return self


def row_of(section: str, case: Case, optimizer: str, mode: str) -> Row:
    """Return a row without a measurement."""
    return Row(section, case.name, case.batch, case.parameters, optimizer, mode)


def table(rows: list[Row], device: str) -> pd.DataFrame:
    """Return all rows, each saying where it was measured and on what."""
    frame = pd.DataFrame([asdict(row) for row in rows])
    return frame.convert_dtypes().assign(baseline=BASELINE, device=device, inputs="synthetic")
