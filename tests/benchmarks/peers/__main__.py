"""Measure, print the table, write ``peers.csv`` and ``peers.md``."""

import time
from pathlib import Path

import click
import torch

from adamqlr.files import replacing
from adamqlr.jobs.device import device_name, keep_freed_memory
from adamqlr.logs import configure_logging
from tests.benchmarks.report import peers_table, write_csv
from tests.benchmarks.rows import table
from tests.benchmarks.timing import QUICK, Effort

from .compare import measure_peers
from .process import has_peers


@click.command(context_settings={"show_default": True})
@click.option("--quick", is_flag=True, help="Seconds instead of minutes: small cases, and too few blocks to rely on.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("results/benchmark"), help="Folder of results.")
def main(quick: bool, output: Path) -> None:
    """Measure this project's steps beside those of JAX and kfac-jax, on one CPU thread; inputs are synthetic."""
    configure_logging()
    keep_freed_memory()
    if not has_peers():
        raise click.UsageError("JAX has no environment here: make benchmark-peers makes one")
    device, started = torch.device("cpu"), time.monotonic()
    where = f"{device_name(device)}, PyTorch {torch.__version__}"
    frame = table(measure_peers(device, QUICK if quick else Effort(), quick), where)
    text = "\n\n".join([f"# Benchmark: {where}; synthetic inputs", *peers_table(frame)])
    click.echo(text)
    write_csv(frame, output / "peers.csv")
    with replacing(output / "peers.md") as temporary:
        temporary.write_text(text + "\n")
    click.echo(f"\n{output}/peers.csv and .md after {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main(prog_name="python -m tests.benchmarks.peers")
