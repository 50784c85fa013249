"""Status: from a study's folder to how far it is."""

import contextlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.live import Live

from adamqlr.errors import UserError
from adamqlr.status.expected import jobs_of
from adamqlr.status.report import as_json, as_text
from adamqlr.status.states import Folder, look
from adamqlr.status.summary import Status, hours_of, rows_of
from adamqlr.status.traces import read_traces
from adamqlr.study.config import load_config
from adamqlr.study.paths import CONFIG_NAME

_WIDTH = 110


def read_status(path: Path) -> Status:
    """Tell how far a study is.

    Args:
        path: Its folder, ``results/<study>``.

    Raises:
        UserError: There is no such folder, or it is no study's.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; name that of a study, results/<study>, where Snakemake was started")
    config = path / CONFIG_NAME
    if not config.is_file():
        raise UserError(
            f"{path}: no study's folder, as it holds no {CONFIG_NAME}, which Snakemake writes when it starts; "
            "name one that does, results/<study>"
        )
    study = load_config(config, is_stored=True)
    # Before the folder: a job that ends in between is then seen as running, not as waiting.
    traces = read_traces(path)
    folder, now = Folder(path), time.time()
    jobs = look(jobs_of(study), folder, traces, now)
    rows = rows_of(jobs, study, folder)
    return Status(study.name, now, traces.locked_since, jobs, rows, hours_of(rows, folder))


def show_status(path: Path, is_json: bool, every: float | None) -> None:
    """Print how far a study is: once, or every so many seconds until Ctrl-C.

    Raises:
        UserError: As :func:`read_status`.
    """
    # Without a terminal, what is read by a pager or kept in a file is as wide as its longest line.
    console = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=_WIDTH)
    if is_json:
        _repeat(lambda: print(json.dumps(as_json(read_status(path))), flush=True), every)
    elif every is None or not console.is_terminal:
        _repeat(lambda: console.print(as_text(read_status(path))), every)
    else:
        with Live(as_text(read_status(path)), console=console, auto_refresh=False) as live:
            _repeat(lambda: live.update(as_text(read_status(path)), refresh=True), every)


def _repeat(show: Callable[[], None], every: float | None) -> None:
    show()
    if every is None:
        return
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(every)
            show()
