"""A study's status for people, as a table with bars, and for scripts, as JSON."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from adamqlr.status.states import Seen, State
from adamqlr.status.summary import Row, Status

_BAR_WIDTH, _MOST_NAMED = 16, 8
_STYLES = {State.FAILED: "red", State.UNKNOWN: "yellow", State.RUNNING: "cyan"}
_NAMED = (State.FAILED, State.UNKNOWN, State.RUNNING)
_UNITS = {"gpu": "GPU", "cpu": "CPU", "unknown": ""}


def as_text(status: Status) -> RenderableType:
    """Return what a terminal shows."""
    shown = [state for state in State if state in (State.DONE, State.RUNNING, State.WAITING) or status.counts[state]]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("stage", "dataset"):
        table.add_column(name, no_wrap=True)
    # The bars are what gives way on a narrow terminal.
    table.add_column(max_width=_BAR_WIDTH)
    for name in (*shown, "left", "spent"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in status.rows:
        table.add_row(*_cells(row, shown, status.jobs_at_a_time))
    return Group(_headline(status), table, *_footer(status), *_named(status))


def as_json(status: Status) -> dict[str, Any]:
    """Return what scripts read; results/README.md documents the keys."""
    return {
        "study": status.study,
        "folder": str(status.folder),
        "time": _iso(status.time),
        "locked_since": None if status.locked_since is None else _iso(status.locked_since),
        "jobs": {state: status.counts[state] for state in State},
        "queued": status.queued,
        "jobs_at_a_time": status.jobs_at_a_time,
        "seconds_left": status.seconds_left,
        "seconds_left_is_lower_bound": status.is_lower_bound,
        "hours": status.hours,
        "stages": [_stage(row, status.jobs_at_a_time) for row in status.rows],
        "named": [_named_job(seen) for seen in status.jobs if seen.state in _NAMED],
    }


def _stage(row: Row, jobs_at_a_time: int) -> dict[str, Any]:
    return {
        "rule": row.rule,
        "dataset": row.dataset,
        "jobs": {state: row.counts[state] for state in State},
        "median_seconds": row.median_seconds,
        "seconds_left": row.seconds_left(jobs_at_a_time),
        "hours": row.hours,
        "hours_of": row.hours_of,
    }


def _named_job(seen: Seen) -> dict[str, Any]:
    return {
        "rule": seen.job.rule,
        "name": seen.job.name,
        "state": seen.state,
        "fraction": seen.fraction,
        "silent_seconds": seen.silent_seconds,
        "why": seen.why,
        "log": seen.job.log,
    }


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _headline(status: Status) -> Text:
    counts = status.counts
    others = "".join(f", {counts[state]} {state}" for state in State if state is not State.DONE and counts[state])
    if status.queued:
        others += f" ({status.queued} of those waiting in the cluster's queue)"
    lock = "no run holds its lock"
    if status.locked_since is not None:
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(status.locked_since))
        lock = f"locked by a run since {since}"
    return Text(f"{status.study}: {counts[State.DONE]} of {counts.total()} jobs done{others}; {lock}")


def _cells(row: Row, shown: list[State], jobs_at_a_time: int) -> Iterator[RenderableType]:
    yield row.rule
    yield row.dataset or "–"
    yield ProgressBar(row.counts.total(), row.counts[State.DONE])
    for state in shown:
        count = row.counts[state]
        text = f"{count}/{row.counts.total()}" if state is State.DONE else str(count or "–")
        yield Text(text, style=_STYLES.get(state, "") if count else "")
    seconds = row.seconds_left(jobs_at_a_time)
    yield "?" if seconds is None else _duration(seconds) if seconds else "–"
    yield f"{_spent(row.hours)} {_UNITS[row.hours_of]}".rstrip() if row.hours else "–"


def _footer(status: Status) -> Iterator[Text]:
    if status.counts[State.DONE] < len(status.jobs):
        seconds, running = status.seconds_left, status.counts[State.RUNNING]
        if seconds is None:
            yield Text("Expected time left: not known before jobs have finished")
        else:
            least = "at least " if status.is_lower_bound else ""
            pace = f"{running} at a time, as now" if running else "one at a time, as none runs now"
            yield Text(f"Expected time left: {least}{_duration(seconds)}, estimated from finished jobs, {pace}")
    spent = [f"{_spent(hours)} of {_UNITS[kind] or 'unknown device'}" for kind, hours in status.hours.items() if hours]
    yield Text(f"Spent: {', '.join(spent) or 'nothing yet'}")


def _named(status: Status) -> Iterator[Text]:
    for state in _NAMED:
        named = [seen for seen in status.jobs if seen.state is state]
        for seen in named[:_MOST_NAMED]:
            yield Text(f"{state}: {_described(seen, status)}", style=_STYLES[state])
        if len(named) > _MOST_NAMED:
            yield Text(f"{state}: … and {len(named) - _MOST_NAMED} more")


def _described(seen: Seen, status: Status) -> str:
    parts = [seen.why] if seen.why else []
    if seen.state is State.FAILED:
        parts.append(f"see {status.folder / seen.job.log}")
    if seen.fraction is not None:
        parts.append(f"{seen.fraction:.0%} done")
    if seen.state is State.UNKNOWN:
        parts.append("started, but not known to be at work")
    if seen.silent_seconds is not None:
        parts.append(f"last wrote {_duration(seen.silent_seconds)} ago")
    return f"{seen.job.rule} {seen.job.name}".rstrip() + f": {'; '.join(parts)}"


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}" if seconds >= 10 * size else f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _spent(hours: float) -> str:
    return f"{hours:,.1f} h" if hours >= 1 else _duration(3600 * hours)
