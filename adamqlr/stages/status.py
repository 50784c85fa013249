"""Status: from a study's folder to how far it is."""

import contextlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.live import Live

from adamqlr.errors import UserError
from adamqlr.results.published import published_file, read_published
from adamqlr.status.expected import jobs_of
from adamqlr.status.report import as_json, as_text
from adamqlr.status.states import Folder, look
from adamqlr.status.summary import Status, hours_of, rows_of
from adamqlr.status.traces import read_traces
from adamqlr.study.config import load_config
from adamqlr.study.names import CONFIG_NAME

# Columns for a table that goes to a file or a pager; lines of text are as long as they are.
_WIDTH = 120


def read_status(path: Path) -> Status:
    """Return how far a study is.

    Args:
        path: Its folder, ``results/<study>``.

    Raises:
        UserError: There is no such folder, it is no study's, or a file of the run may not be read.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; name that of a study, results/<study>, where Snakemake was started")
    config = path / CONFIG_NAME
    if not config.is_file():
        raise UserError(
            f"{path}: no study's folder, as it holds no {CONFIG_NAME}, which Snakemake writes when it starts; "
            "name one that does, results/<study>"
        )
    study = load_config(config, may_lack_code=True)
    try:
        # Before the folder: a job that ends in between is then seen as running, not as waiting.
        traces = read_traces(path)
        folder, now = Folder(path), time.time()
        jobs = look(jobs_of(study, read_published(published_file(path))), folder, traces, now)
        rows = rows_of(jobs, study, folder)
        return Status(study.name, path, now, traces.locked_since, jobs, rows, hours_of(rows, folder))
    except PermissionError as error:
        raise UserError(f"{error.filename}: may not be read; ask as the user who started the study") from error


def show_status(path: Path, is_json: bool, every: float | None) -> None:
    """Print how far a study is: once, or every so many seconds until Ctrl-C.

    Raises:
        UserError: As :func:`read_status`.
    """
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)

    def show() -> None:
        status = read_status(path)
        if is_json:
            print(json.dumps(as_json(status)), flush=True)
        else:
            console.print(as_text(status), soft_wrap=True)

    if every is None:
        show()
        return
    with contextlib.suppress(KeyboardInterrupt):
        if is_json or not console.is_terminal:
            _repeat(show, every)
        with Live(console=console, auto_refresh=False) as live:
            _repeat(lambda: live.update(as_text(read_status(path)), refresh=True), every)


def _repeat(show: Callable[[], None], every: float) -> NoReturn:
    while True:
        show()
        time.sleep(every)
