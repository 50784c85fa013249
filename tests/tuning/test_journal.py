"""What a search's journal withstands: shards that are killed at any moment, and a disk that is full."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import xarray as xr
from optuna.storages.journal import JournalFileSymlinkLock

from adamqlr.errors import UserError
from adamqlr.jobs import between_steps
from adamqlr.stages.tune import tune
from adamqlr.study.case import Case
from adamqlr.study.config import parse_config
from adamqlr.tuning.journal import Journal
from adamqlr.tuning.trials import read_trials


def open_journal(path: Path) -> Journal:
    return Journal(path, "search", reduction_factor=4)


def test_the_lock_of_a_killed_shard_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Jobs of the workflow name their files from the folder that they run in.
    monkeypatch.chdir(tmp_path)
    path = Path("search", ".journal")
    journal = open_journal(path)
    with monkeypatch.context() as killed:
        killed.setattr(JournalFileSymlinkLock, "release", lambda lock: None)
        journal.entry(0)
    assert list(path.parent.glob("*.lock"))
    # Five seconds pass whenever somebody looks; nobody shall look a hundred times.
    clock = SimpleNamespace(monotonic=iter(range(0, 500, 5)).__next__, sleep=lambda seconds: None)
    monkeypatch.setattr("optuna.storages.journal._file.time", clock)
    open_journal(path).entry(1).report(0, 0.5)
    assert not list(path.parent.glob("*.lock"))
    assert [open_journal(path).find(number) is not None for number in range(3)] == [True, True, False]


def test_the_part_of_a_line_that_a_full_disk_has_left_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / ".journal"
    open_journal(path).entry(0).report(0, 0.5)
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines()[-1][:-5])
    open_journal(path).entry(1).report(0, 0.25)
    again = open_journal(path)
    known = [again.find(number) for number in (0, 1)]
    assert [trial and trial.intermediate_values for trial in known] == [{0: 0.5}, {0: 0.25}]


def test_what_is_no_journal_is_named(tmp_path: Path) -> None:
    path = tmp_path / ".journal"
    path.write_text("one\ntwo\n")
    with pytest.raises(UserError, match=r"\.journal: not a readable journal; remove its folder to search again"):
        open_journal(path)


def test_a_search_killed_while_it_tidies_up_ends_with_the_same_trials(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = {"checkpoint_seconds": 1e-9}
    case = Case(parse_config({**settings, "training": training}, "test"), "epochs", "digits", "adam")
    monkeypatch.setattr(between_steps, "_TICK_SECONDS", 0.0)
    tune(case, (0, 1), tmp_path / "whole.nc")
    unlink, removed = Path.unlink, list[Path]()

    def unlink_once(path: Path, missing_ok: bool = False) -> None:
        if path.name == ".journal" or path.suffix == ".checkpoint":
            if removed:
                raise InterruptedError
            removed.append(path)
        unlink(path, missing_ok)

    output, best = tmp_path / "one" / "trials.nc", tmp_path / "one" / "best.yaml"
    with monkeypatch.context() as killed:
        killed.setattr(Path, "unlink", unlink_once)
        with pytest.raises(InterruptedError):
            tune(case, (0, 1), output, best=best)
    tune(case, (0, 1), output, best=best)
    found, wanted = (read_trials(path) for path in (output, tmp_path / "whole.nc"))
    xr.testing.assert_equal(found["value"], wanted["value"])
