"""Measure, print tables, write ``benchmark.csv`` and ``benchmark.png``."""

import os
import time
from pathlib import Path

import click
import torch

from adamqlr.errors import UserError
from adamqlr.jobs.device import device_name, keep_freed_memory, resolve_device
from adamqlr.logs import configure_logging

from .figure import draw
from .kfac_parts import measure_kfac_parts
from .limits import measure_limits
from .packs import measure_packs
from .peers.compare import measure_peers
from .peers.process import has_peers
from .report import tables, write_csv
from .rows import BATCH, KFAC_PARTS, LIMITS, PACKS, PEERS, STEPS, table
from .step_times import measure_growth, measure_steps
from .timing import QUICK, Effort

SECTIONS = {
    STEPS: measure_steps,
    PACKS: measure_packs,
    BATCH: measure_growth,
    LIMITS: measure_limits,
    KFAC_PARTS: measure_kfac_parts,
    PEERS: measure_peers,
}


@click.command(context_settings={"show_default": True})
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to measure.")
@click.option("--quick", is_flag=True, help="Seconds instead of minutes: small cases, and too few blocks to rely on.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("results/benchmark"), help="Folder of results.")
def main(device: str, quick: bool, output: Path) -> None:
    """Measure training steps on one CPU thread (or as many as OMP_NUM_THREADS says) or a GPU; inputs are synthetic."""
    configure_logging()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    keep_freed_memory()
    try:
        place = resolve_device(device)
    except UserError as error:
        raise click.UsageError(str(error)) from error
    where = f"{device_name(place)}, PyTorch {torch.__version__}"
    click.echo(f"# Benchmark: {where}; synthetic inputs\n")
    started, rows = time.monotonic(), []
    for name, measure in SECTIONS.items():
        if name == PEERS and not (has_peers() and place.type == "cpu"):
            continue
        click.echo(f"measuring {name} ...", err=True)
        rows += measure(place, QUICK if quick else Effort(), quick)
    frame = table(rows, where)
    click.echo("\n\n".join(tables(frame)))
    write_csv(frame, output / "benchmark.csv")
    draw(frame, output / "benchmark.png")
    click.echo(f"\n{output}/benchmark.csv and .png after {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main(prog_name="python -m tests.benchmarks")
